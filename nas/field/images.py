"""The images that every method of a field run sees, the same in the same order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.manifest import Manifest
from modeltree.preprocessing import Preprocessing
from runtime.images import SUFFIXES, image_files


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldImages:
    """images : (n, channels, height, width) uint8. labels : class of each, None where not known. origin : in words.

    files : what each was read from, which the device is shown; empty where there are arrays alone.
    """

    images: np.ndarray
    labels: tuple[int | None, ...]
    origin: str
    files: tuple[Path, ...] = ()


def field_images(manifest: Manifest, folder: Path | None, *, count: int, seed: int) -> FieldImages:
    """Images of a folder, else test images where the bundle comes from the digits, else noise.

    A folder's images are labelled where their own folder is named like a class.

    Raises
    ------
    ConfigError : the folder holds none. DataError : none can be read, or the network takes no pictures.
    """
    tree = manifest.tree
    rng = np.random.default_rng(seed)
    if folder is not None:
        return _of_folder(folder, tree.preprocessing, tree.classes)
    config = manifest.provenance.config
    if config.get("data") == "digits" and tree.classes == tuple("0123456789"):
        from nas.data import load_dataset

        _, height, width = tree.input_shape
        size, seed = f"{width}x{height}", int(config.get("seed") or 0)
        data = load_dataset("digits", image_size=size, seed=seed, rule=tree.picture)
        chosen = rng.permutation(len(data.test))[:count]
        labels = tuple(int(label) for label in data.test.labels[chosen])
        return FieldImages(images=data.test.images[chosen], labels=labels, origin="test images of the digits")
    noise = rng.integers(0, 256, (min(count, 64), *tree.input_shape), dtype=np.uint8)
    return FieldImages(images=noise, labels=(None,) * len(noise), origin="noise")


def _of_folder(folder: Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> FieldImages:
    from nas.data.broken import warn_of_broken
    from nas.data.decoding import read_all

    files = image_files(folder)
    if not files:
        raise ConfigError(f"there is no image in {folder}: known are {', '.join(SUFFIXES)}")
    images, sound, reasons = read_all(files, preprocessing)
    if not sound:
        raise DataError(f"none of the {len(files)} images in {folder} can be read: {reasons[0]}")
    if reasons:
        warn_of_broken(reasons, len(files), folder)
    number = {name: label for label, name in enumerate(classes)}
    labels = tuple(number.get(files[position].parent.name) for position in sound)
    return FieldImages(
        images=images, labels=labels, origin=f"{len(sound)} images of {folder}",
        files=tuple(files[position].resolve() for position in sound),
    )  # fmt: skip
