"""The user's own images: one folder per class, as torchvision's ImageFolder has them."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from modeltree.errors import DataError
from modeltree.files import written_whole
from nas.data import cifar10
from nas.data.dataset import Dataset, ImageSet
from nas.data.split import mean_and_std, stratified

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SEARCH_SHARE, SEARCH_MOST = 0.10, 5000

_VERSION = 1
_WINDOW = 2048

Files = list[tuple[Path, int]]
"""Images with their labels."""


def load(folder: Path, *, image_size: int, seed: int, cache: Path | None) -> Dataset:
    """Read `train/` and `val/` or `test/` or both.

    With both, `val` is `search` and `test` is `test`. With one of them it is `test`, and `search` is a stratified 10 %
    of `train`, at most 5000. Images are scaled so that the shorter side fits and cropped about the centre. Mean and
    deviation are the training images' own, except that at 32x32 the ten class names of CIFAR-10 get CIFAR-10's, for
    which networks trained on it are made. Mirrored images keep their label.

    cache : folder for decoded images, which are then mapped instead of read; None decodes into memory every time.

    Raises
    ------
    DataError : a missing folder, no classes, a class without images, a class unknown to `train`, an unreadable image.
    """
    parts = [name for name in ("val", "test") if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not parts:
        raise DataError(f"{folder} must hold train/ and val/ or test/ with one folder per class: arrange the images so")
    classes = tuple(path.name for path in _subfolders(folder / "train"))
    if len(classes) < 2:
        raise DataError(f"{folder / 'train'} holds {len(classes)} class folders but must hold at least 2: add some")

    fit, test = _files(folder / "train", classes), _files(folder / parts[-1], classes)
    if len(parts) == 2:
        search = _files(folder / "val", classes)
    else:
        count = min(round(SEARCH_SHARE * len(fit)), SEARCH_MOST)
        labels = np.array([label for _, label in fit])
        kept, held = stratified(labels, count, np.random.default_rng(seed))
        fit, search = [fit[k] for k in kept], [fit[k] for k in held]
    if not search:
        raise DataError(f"{folder} has too few images to hold some back for the search: add images or a val/ folder")

    decoded = [_decoded(files, folder=folder, image_size=image_size, cache=cache) for files in (fit, search, test)]
    is_cifar = classes == cifar10.CLASSES and image_size == 32
    mean, std = (cifar10.MEAN, cifar10.STD) if is_cifar else mean_and_std(decoded[0].images)
    return Dataset(
        name="imagefolder",
        classes=classes,
        mean=mean,
        std=std,
        fit=decoded[0],
        search=decoded[1],
        test=decoded[2],
        flip=True,
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    """All images under the class folders, in sorted order."""
    files: Files = []
    for home in _subfolders(folder):
        if home.name not in classes:
            raise DataError(f"{home} is a class that train/ does not have: remove it or add it there")
        found = [
            path
            for path in sorted(home.rglob("*"))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not found:
            raise DataError(f"{home} holds no image ({', '.join(SUFFIXES)}): add some or remove the folder")
        files += [(path, classes.index(home.name)) for path in found]
    if not files:
        raise DataError(f"{folder} holds no class folders: it must hold one per class")
    return files


def _decoded(files: Files, *, folder: Path, image_size: int, cache: Path | None) -> ImageSet:
    """The files as one array, mapped from the cache if there is one."""
    labels = np.array([label for _, label in files], np.int64)
    shape = (len(files), 3, image_size, image_size)
    if cache is None:
        images = np.empty(shape, np.uint8)
        for start, window in _windows(files, image_size):
            images[start : start + len(window)] = window
        return ImageSet(images=images, labels=labels)
    path = cache / f"images-{_key(files, folder, image_size)}.npy"
    try:
        return ImageSet(images=_mapped(path, shape), labels=labels)
    except (OSError, ValueError, EOFError):  # not there yet, or spoilt by someone: decode again
        with written_whole(path) as temporary, temporary.open("wb") as file:
            _write(file, files, shape)
    return ImageSet(images=_mapped(path, shape), labels=labels)


def _key(files: Files, folder: Path, image_size: int) -> str:
    """Changes whenever a file was added, removed, renamed or touched."""
    digest = hashlib.sha256(f"{_VERSION} {image_size}\n".encode())
    for path, _ in files:
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"{path} holds {images.dtype} {images.shape}")
    return images


def _write(file: BinaryIO, files: Files, shape: tuple[int, ...]) -> None:
    """Appends, rather than maps, so that a full disk is an error and not a crash."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for _, window in _windows(files, shape[2]):
        file.write(np.stack(window).tobytes())


def _windows(files: Files, image_size: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Decode on all cores, a bounded number of images at a time: (first index, images)."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _WINDOW):
            paths = [path for path, _ in files[start : start + _WINDOW]]
            yield start, list(pool.map(lambda path: decode(path, image_size), paths))


def decode(path: Path, image_size: int) -> np.ndarray:
    """Read one image: turned upright, shorter side scaled to `image_size` (bicubic), centre cropped.

    Returns
    -------
    (3, image_size, image_size) uint8, RGB.

    Raises
    ------
    DataError : the file is broken, or has more than 8 bits per channel.
    """
    side = (image_size, image_size)
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * image_size, 2 * image_size))  # large JPEGs are scaled while they are read
            if image.mode[0] in "IF":
                raise DataError(f"image {path} has mode {image.mode} but must have 8 bits per channel: convert it")
            upright = ImageOps.exif_transpose(image)
            plain = upright.convert("RGBA").convert("RGB") if upright.mode == "P" else upright.convert("RGB")
            return np.asarray(ImageOps.fit(plain, side, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image {path}: {error}: mend or remove it") from error
