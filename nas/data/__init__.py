"""Data sets: digits from scikit-learn, CIFAR-10, and the user's own image folder."""

from pathlib import Path

from modeltree.errors import ConfigError, unknown
from nas.data import cifar10, digits, imagefolder
from nas.data.dataset import Dataset, ImageSet
from nas.data.jpeg import jpeg_round_trip

__all__ = ["SPECS", "Dataset", "ImageSet", "class_names", "jpeg_round_trip", "load_dataset"]

SPECS = ("digits", "cifar10:DIR", "imagefolder:DIR")


def class_names(spec: str, *, image_size: int = 32) -> tuple[str, ...]:
    """The classes of the data that `spec` names, in their order, without reading an image.

    Raises
    ------
    ConfigError, DataError : what `load_dataset` refuses and can be known so early.
    """
    kind, where = _parts(spec, image_size)
    if kind == "digits":
        return digits.CLASSES
    return cifar10.CLASSES if kind == "cifar10" else imagefolder.class_names(Path(where))


def load_dataset(spec: str, *, image_size: int = 32, seed: int = 0, cache: Path | None = None) -> Dataset:
    """Load the data that `spec` names.

    Parameters
    ----------
    spec : `digits`; `cifar10:DIR`, with `?download` behind it to fetch the files first; `imagefolder:DIR`.
    image_size : height and width in pixels, at least 8; CIFAR-10 has 32 only.
    seed : decides what is held back from training.
    cache : folder for the decoded images of an image folder; None decodes them into memory.

    Raises
    ------
    ConfigError : unknown data, a folder missing from or left over in `spec`, a size that cannot be had.
    DataError : files that cannot be used.
    """
    kind, where = _parts(spec, image_size)
    if kind == "digits":
        return digits.load(image_size=image_size, seed=seed)
    if kind == "imagefolder":
        return imagefolder.load(Path(where), image_size=image_size, seed=seed, cache=cache)
    folder = Path(where.removesuffix("?download"))
    if where.endswith("?download"):
        cifar10.download(folder)
    return cifar10.load(folder, seed=seed)


def _parts(spec: str, image_size: int) -> tuple[str, str]:
    """Kind of data, and its folder: empty for digits."""
    kind, colon, where = spec.partition(":")
    if kind not in ("digits", "cifar10", "imagefolder"):
        raise unknown("data set", spec, SPECS)
    if image_size < 8:
        raise ConfigError(f"image size is {image_size} but must be at least 8: 32 is usual")
    if kind == "digits" and colon:
        raise ConfigError(f"data is {spec!r} but digits take no folder: pass digits alone")
    if kind != "digits" and not where:
        raise ConfigError(f"data is {spec!r} but must name a folder: pass {kind}:DIR")
    if kind == "cifar10" and image_size != 32:
        raise ConfigError(f"image size is {image_size} but CIFAR-10 has 32: pass 32, or use imagefolder:DIR")
    return kind, where
