"""Data sets: digits from scikit-learn, CIFAR-10, and the user's own image folder."""

from dataclasses import replace
from pathlib import Path

from modeltree.errors import ConfigError, FormatError, unknown
from modeltree.preprocessing import ImageSize, PictureRule, check_channels
from modeltree.preprocessing import image_size as _size
from nas.data import cifar10, digits, imagefolder, unlabelled
from nas.data.dataset import Dataset, ImageSet
from nas.data.jpeg import jpeg_round_trip

__all__ = ["SPECS", "Dataset", "ImageSet", "class_names", "jpeg_round_trip", "load_dataset"]

_USUAL = PictureRule()

SPECS = ("digits", "cifar10:DIR", "imagefolder:DIR", "images:DIR")


def class_names(spec: str, *, image_size: int | str = 32) -> tuple[str, ...]:
    """The classes of the data that `spec` names, in their order, without reading an image; none of plain `images`.

    Raises
    ------
    ConfigError, DataError : what `load_dataset` refuses and can be known so early.
    """
    kind, where = _parts(spec, image_size)
    if kind == "digits":
        return digits.CLASSES
    if kind == "images":
        return ()
    return cifar10.CLASSES if kind == "cifar10" else imagefolder.class_names(Path(where))


def load_dataset(
    spec: str, *, image_size: int | str = 32, seed: int = 0, cache: Path | None = None, rule: PictureRule = _USUAL,
    mean: tuple[float, ...] = (), std: tuple[float, ...] = (),
) -> Dataset:  # fmt: skip
    """Load the data that `spec` names.

    Parameters
    ----------
    spec : `digits`; `cifar10:DIR`, with `?download` behind it to fetch the files first; `imagefolder:DIR`;
        `images:DIR`, pictures without classes.
    image_size : height and width in pixels, or `WIDTHxHEIGHT`, at least 8 each; CIFAR-10 has 32 only.
    seed : decides what is held back from training.
    cache : folder for the decoded images of an image folder; None decodes them into memory.
    rule : how pictures become pixels.
    mean, std : what the network was trained with, per channel of pixels scaled to 0..1; of the training images
        unless said.

    Raises
    ------
    ConfigError : unknown data, a folder missing from or left over in `spec`, a size that cannot be had.
    DataError : files that cannot be used.
    """
    kind, where = _parts(spec, image_size)
    if not mean and not std:
        return _loaded(kind, where, seed=seed, size=_size(image_size), cache=cache, rule=rule)
    try:
        check_channels(mean, std, rule.count)
    except FormatError as error:
        raise ConfigError(f"{error}: pass both, a number a channel") from error
    return replace(_loaded(kind, where, seed=seed, size=_size(image_size), cache=cache, rule=rule), mean=mean, std=std)


def _loaded(
    kind: str, where: str, *, seed: int, size: ImageSize, cache: Path | None, rule: PictureRule
) -> Dataset:  # fmt: skip
    if kind == "digits":
        return digits.load(size=size, seed=seed, rule=rule)
    if kind == "images":
        return unlabelled.load(Path(where), size=size, seed=seed, cache=cache, rule=rule)
    if kind == "imagefolder":
        return imagefolder.load(Path(where), size=size, seed=seed, cache=cache, rule=rule)
    if rule != _USUAL:
        raise ConfigError("CIFAR-10 comes as 32x32 RGB: use imagefolder:DIR for other channels and ways to cut")
    folder = Path(where.removesuffix("?download"))
    if where.endswith("?download"):
        cifar10.download(folder)
    return cifar10.load(folder, seed=seed)


def _parts(spec: str, image_size: int | str) -> tuple[str, str]:
    """Kind of data, and its folder: empty for digits."""
    kind, colon, where = spec.partition(":")
    if kind not in ("digits", "cifar10", "imagefolder", "images"):
        raise unknown("data set", spec, SPECS)
    size = _size(image_size)
    if min(size) < 8:
        raise ConfigError(f"image size is {image_size} but must be at least 8: 32 is usual")
    if kind == "digits" and colon:
        raise ConfigError(f"data is {spec!r} but digits take no folder: pass digits alone")
    if kind != "digits" and not where:
        raise ConfigError(f"data is {spec!r} but must name a folder: pass {kind}:DIR")
    if kind == "cifar10" and size != (32, 32):
        raise ConfigError(f"image size is {image_size} but CIFAR-10 has 32: pass 32, or use imagefolder:DIR")
    return kind, where
