"""What the base network computes inside, kept on disk so that every variant can be distilled against it at once."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from modeltree.errors import DataError
from transforms import Network, node_values

_BATCH = 128


class Features:
    """Values of graph nodes for a set of images, as memory-mapped float32 arrays (n, *shape), one file a node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, node: str) -> torch.Tensor:
        """(n, *shape) float32; pages are read as they are used. Not to be written to."""
        return torch.from_numpy(np.load(self.folder / f"{node}.npy", mmap_mode="c"))


def write_features(network: Network, images: torch.Tensor, nodes: Iterable[str], folder: Path) -> Features:
    """Run `images` (n, c, h, w), normalised, through the base network and keep what the named nodes give."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(nodes)
    files: dict[str, np.memmap] = {}
    try:
        for start in range(0, len(images), _BATCH):
            for name, value in node_values(network, images[start : start + _BATCH], wanted).items():
                if name not in files:
                    shape = (len(images), *value.shape[1:])
                    files[name] = _new_file(folder / f"{name}.npy", shape)
                files[name][start : start + len(value)] = value.numpy()
        for file in files.values():
            file.flush()
    except OSError as error:
        raise DataError(f"cannot keep features in {folder}: {error.strerror or error}: free some space") from error
    return Features(folder)


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """An array on disk whose room is taken at once: a full disk is an error here, not a fault at some later write."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return file


def bytes_per_image(network: Network) -> int:
    """Bytes of all unit inputs and outputs together, for one image."""
    shapes = {unit.source: unit.in_shape for unit in network.units} | {u.output: u.out_shape for u in network.units}
    return 4 * sum(int(np.prod(shape)) for shape in shapes.values())
