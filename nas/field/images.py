"""The images that every method of a field run sees, the same in the same order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError
from modeltree.manifest import Manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldImages:
    """images : (n, channels, height, width) uint8. labels : class of each, None where not known. origin : in words."""

    images: np.ndarray
    labels: tuple[int | None, ...]
    origin: str


def field_images(manifest: Manifest, folder: Path | None, *, count: int, seed: int) -> FieldImages:
    """Images of a folder, else test images where the bundle comes from the digits, else noise.

    A folder's images are labelled where their own folder is named like a class.

    Raises
    ------
    ConfigError : the folder holds none, or the network takes no RGB squares. DataError : one cannot be read.
    """
    tree = manifest.tree
    rng = np.random.default_rng(seed)
    if folder is not None:
        return _of_folder(folder, tree.input_shape, tree.classes)
    config = manifest.provenance.config
    if config.get("data") == "digits" and tree.classes == tuple("0123456789"):
        from nas.data import load_dataset

        data = load_dataset("digits", image_size=tree.input_shape[1], seed=int(config.get("seed") or 0))
        chosen = rng.permutation(len(data.test))[:count]
        labels = tuple(int(label) for label in data.test.labels[chosen])
        return FieldImages(images=data.test.images[chosen], labels=labels, origin="test images of the digits")
    noise = rng.integers(0, 256, (min(count, 64), *tree.input_shape), dtype=np.uint8)
    return FieldImages(images=noise, labels=(None,) * len(noise), origin="noise")


def _of_folder(folder: Path, shape: tuple[int, ...], classes: tuple[str, ...]) -> FieldImages:
    from nas.data.imagefolder import SUFFIXES, decode

    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise ConfigError(f"the network takes {shape}: images need (3, side, side); leave --images out")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ConfigError(f"there is no image in {folder}: known are {', '.join(SUFFIXES)}")
    number = {name: label for label, name in enumerate(classes)}
    return FieldImages(
        images=np.stack([decode(file, shape[1]) for file in files]),
        labels=tuple(number.get(file.parent.name) for file in files), origin=f"{len(files)} images of {folder}",
    )  # fmt: skip
