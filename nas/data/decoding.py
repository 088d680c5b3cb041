"""Image files as one array of pixels, decoded on all cores and kept in the cache."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from modeltree.errors import DataError
from modeltree.files import write_bytes, written_whole
from modeltree.preprocessing import PictureRule, Preprocessing
from nas.data.broken import warn_of_broken
from nas.data.dataset import ImageSet
from runtime.images import pixels_of

Files = list[tuple[Path, int]]
"""Images with their labels."""

_VERSION = 2
_WINDOW = 2048
_MOST_BROKEN = 0.5

_Broken = dict[int, str]
"""Why an image cannot be read, by its position."""


def decoded(
    files: Files, *, folder: Path, height: int, width: int, rule: PictureRule, cache: Path | None,
    whole: bool = True,
) -> ImageSet:  # fmt: skip
    """All files that can be read, with their labels; mapped from the cache if there is one.

    folder : above all of them; what they are called in the cache's key begins there.
    whole : whether every label must keep an image.

    Raises
    ------
    DataError : more than half of them cannot be read, or all of one class.
    """
    preprocessing = pixels_alone(height, width, rule)
    if cache is None:
        images = np.empty((len(files), *preprocessing.shape), np.uint8)
        broken: _Broken = {}
        count = 0
        for window in _windows(files, preprocessing, broken):
            images[count : count + len(window)] = window
            count += len(window)
        images = images[:count]
    else:
        images, broken = _cached(files, folder, preprocessing, cache)
    _check(files, broken, folder, whole)
    labels = [label for position, (_, label) in enumerate(files) if position not in broken]
    return ImageSet(images=images, labels=np.array(labels, np.int64))


def pixels_alone(height: int, width: int, rule: PictureRule) -> Preprocessing:
    """The way to pixels where mean and deviation are not known yet: they become numbers of 0..1."""
    return Preprocessing(height=height, width=width, mean=(0.0,) * rule.count, std=(1.0,) * rule.count, rule=rule)


def _check(files: Files, broken: _Broken, folder: Path, whole: bool) -> None:
    if not broken:
        return
    first = next(iter(broken.values()))
    left = {label for position, (_, label) in enumerate(files) if position not in broken}
    if len(broken) > _MOST_BROKEN * len(files) or (whole and left != {label for _, label in files}):
        raise DataError(f"{len(broken)} of {len(files)} images in {folder} are lost, or a whole class: {first}")
    warn_of_broken(list(broken.values()), len(files), folder)


def _cached(files: Files, folder: Path, preprocessing: Preprocessing, cache: Path) -> tuple[np.ndarray, _Broken]:
    key = _key(files, folder, preprocessing)
    path, beside = cache / f"images-{key}.npy", cache / f"images-{key}.json"
    try:
        return _mapped(path, beside, len(files), preprocessing.shape)
    except (OSError, ValueError, EOFError):  # not there yet, or spoilt by someone: decode again
        broken: _Broken = {}
        with written_whole(path) as temporary, temporary.open("wb") as file:
            _write(file, files, preprocessing, broken)
        write_bytes(beside, msgspec.json.encode(broken))
    return _mapped(path, beside, len(files), preprocessing.shape)


def _key(files: Files, folder: Path, preprocessing: Preprocessing) -> str:
    """Changes whenever a file was added, removed, renamed or touched."""
    digest = hashlib.sha256(f"{_VERSION} ".encode() + msgspec.json.encode(preprocessing) + b"\n")
    for path, _ in files:
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _mapped(path: Path, beside: Path, count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, _Broken]:
    broken = msgspec.json.decode(beside.read_bytes(), type=_Broken)
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.shape != (count - len(broken), *shape) or images.dtype != np.uint8:
        raise ValueError(f"{path} holds {images.dtype} {images.shape}")
    return images, broken


def _write(file: BinaryIO, files: Files, preprocessing: Preprocessing, broken: _Broken) -> None:
    """Appends, rather than maps, so that a full disk is an error and not a crash; the header leaves room for its
    count, which is known at the end."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *preprocessing.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    for window in _windows(files, preprocessing, broken):
        if window:
            file.write(np.stack(window).tobytes())
    file.seek(0)
    header["shape"] = (len(files) - len(broken), *preprocessing.shape)
    np.lib.format.write_array_header_1_0(file, header)


def _windows(files: Files, preprocessing: Preprocessing, broken: _Broken) -> Iterator[list[np.ndarray]]:
    """Decode on all cores, a bounded number of images at a time; those that cannot be read go into `broken`."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _WINDOW):
            window = files[start : start + _WINDOW]
            read = list(pool.map(lambda file: _read(file[0], preprocessing), window))
            broken.update({start + i: str(one) for i, one in enumerate(read) if isinstance(one, DataError)})
            yield [one for one in read if not isinstance(one, DataError)]


def _read(path: Path, preprocessing: Preprocessing) -> np.ndarray | DataError:
    try:
        return pixels_of(path, preprocessing)
    except DataError as error:
        return error


def read_all(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[np.ndarray, list[int], list[str]]:
    """The files that can be read, (n, channels, height, width) uint8, their positions, and why the others cannot."""
    read = [_read(path, preprocessing) for path in files]
    sound = [position for position, one in enumerate(read) if not isinstance(one, DataError)]
    images = [one for one in read if not isinstance(one, DataError)]
    reasons = [str(one) for one in read if isinstance(one, DataError)]
    return np.stack(images) if images else np.empty((0, *preprocessing.shape), np.uint8), sound, reasons
