"""What the base network computes inside, kept on disk so that every variant can be distilled against it at once."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import fx

from modeltree.errors import DataError
from nas.jobs.batches import channels_together, images_at_once
from transforms import Network


class Features:
    """Values of graph nodes for a set of images, as memory-mapped float32 arrays (n, *shape), one file a node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, node: str) -> torch.Tensor:
        """(n, *shape) float32; pages are read as they are used. Not to be written to."""
        return torch.from_numpy(np.load(self.folder / f"{node}.npy", mmap_mode="c"))


def write_features(
    network: Network, images: torch.Tensor, counts: Mapping[str, int], folder: Path
) -> Features:  # fmt: skip
    """Run `images` (n, c, h, w), normalised, through the base network and keep what some nodes give.

    counts : node -> for how many of the images, from the first on. The network runs on no more images than the largest
        count, and no further than the last of the nodes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: min(count, len(images)) for name, count in counts.items()}
    files: dict[str, np.memmap] = {}
    at_once = images_at_once(network.spec)
    try:
        with torch.no_grad():
            for start in range(0, max(wanted.values(), default=0), at_once):
                here = {name for name, count in wanted.items() if count > start}
                for name, value in _recorded(network.graph, channels_together(images[start : start + at_once]), here):
                    if name not in files:
                        files[name] = _new_file(folder / f"{name}.npy", (wanted[name], *value.shape[1:]))
                    files[name][start : start + len(value)] = value[: wanted[name] - start].numpy()
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


def _recorded(graph: fx.GraphModule, images: torch.Tensor, wanted: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """(node, value) of the wanted nodes, each as soon as it is there; what no later node reads is freed."""
    recorder = fx.Interpreter(graph)
    last = {name: node for node in graph.graph.nodes for name in (n.name for n in node.all_input_nodes)}
    recorder.args_iter = iter((images,))
    missing = set(wanted)
    for node in graph.graph.nodes:
        if not missing:
            return
        recorder.env[node] = recorder.run_node(node)
        if node.name in missing:
            missing.remove(node.name)
            yield node.name, recorder.env[node]
        for read in node.all_input_nodes:
            if last[read.name] is node:
                recorder.env.pop(read, None)
