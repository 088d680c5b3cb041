"""Pictures that cross as files: coding one on the device, reading a stranger's on the server."""

import functools
import io
import os
from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import DataError
from modeltree.image_codes import CAME_ELSE, ImageCode
from modeltree.preprocessing import Channels, Preprocessing
from runtime.images.arrays import scaled
from runtime.images.headers import FileSize, claimed_size
from runtime.images.inputs import Picture
from runtime.images.pillow import installed, read_file, resized_by_pillow

LARGEST_PIXELS = 2**24
"""Of a picture that a server decodes, before it is scaled: 16.8 million. It takes up to 12 bytes for each."""

MOST_WORK = 2**25
"""Pixels that a decoder goes over at most, for one picture. A JPEG of one scan may have `LARGEST_PIXELS`, a progressive
one of ten scans 3.3 million, a WebP 8.4 million: that bounds the time before a decoder begins (`benchmarks/hostile.py`
has the worst there is)."""

WEBP_WORK = 4
"""What a pixel of a WebP counts, as many as it takes times a JPEG's."""

SCAN_WORK = 2**14
"""What each of several scans counts at least, however small the picture: it must be begun."""

CODED_PIXELS = 4
"""Times the network's pixels that a picture may have which a device coded for it."""

LARGEST_FILE_BYTES = 8 * 2**20
"""Of a file that is sent as it came; a larger one is coded first."""

_WEBP_METHOD = 2
"""Of 0 (quick) to 6 (small)."""


@functools.cache
def can_code() -> bool:
    """Whether there is what codes pictures here: Pillow."""
    return installed()


def coded(pixels: np.ndarray, code: ImageCode, channels: Channels) -> bytes:
    """A picture as a file.

    Parameters
    ----------
    pixels : (channels, height, width) uint8, in the order of `channels`.
    code : a `jpeg` or `webp`; `came` codes as `CAME_ELSE`, since pixels came as no file.
    """
    from PIL import Image

    code = CAME_ELSE if code.kind == "came" else code
    shown = pixels[::-1] if channels == "BGR" else pixels
    image = np.ascontiguousarray(shown.transpose(1, 2, 0))
    if code.side:
        height, width = code.sides(*image.shape[:2])
        image = resized_by_pillow(image, height, width, (0, 0, image.shape[1], image.shape[0]), "bicubic")
    file = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if code.kind == "webp":
        picture.save(file, "WEBP", quality=code.quality, method=_WEBP_METHOD)
    else:
        picture.save(file, "JPEG", quality=code.quality)
    return file.getvalue()


def received(
    data: bytes | memoryview, preprocessing: Preprocessing, *, whole: bool, most_pixels: int = LARGEST_PIXELS
) -> np.ndarray:
    """The network's pixels from a JPEG or WebP file of someone we need not trust: (channels, height, width) uint8.

    Memory and time are bounded by what the file claims, which is held against `most_pixels` and `MOST_WORK` before a
    decoder sees it. A picture that was coded for this network has no more than `CODED_PIXELS` times its pixels.

    Parameters
    ----------
    whole : the picture as it came, to which the rule applies; else what the rule made of it, which is only scaled.

    Raises
    ------
    DataError : it is no such file, too large, or cannot be decoded. ConfigError : Pillow is not installed.
    """
    size = claimed_size(data)
    if not whole:
        most_pixels = min(most_pixels, CODED_PIXELS * preprocessing.height * preprocessing.width)
    if size.width * size.height > most_pixels:
        raise DataError(
            f"the picture is {size.width} x {size.height}: {most_pixels} pixels at most are decoded, scale it down"
        )
    if _work(size) > MOST_WORK:
        raise DataError(
            f"the {size.format} of {size.width} x {size.height} with {size.scans} scans is too much work: scale it "
            "down, or code it as a JPEG of one scan"
        )
    rule = preprocessing if whole else _only_scaled(preprocessing)
    return scaled(read_file(bytes(data), rule, "received", formats=(size.format,)), rule)


def sendable_file(picture: Picture) -> bytes | None:
    """The bytes of a JPEG or WebP file, for sending them as they are; None for anything else.

    None, too, for one that a server would refuse for its size, or that cannot be read.
    """
    try:
        if isinstance(picture, str | os.PathLike):
            path = Path(picture)
            picture = path.read_bytes() if path.stat().st_size <= LARGEST_FILE_BYTES else b""
        if not isinstance(picture, bytes | bytearray | memoryview) or len(picture) > LARGEST_FILE_BYTES:
            return None
        data = bytes(picture)
        size = claimed_size(data)
    except (OSError, ValueError, DataError):
        return None
    return data if size.width * size.height <= LARGEST_PIXELS and _work(size) <= MOST_WORK else None


def _work(size: FileSize) -> int:
    """Pixels that a decoder goes over."""
    pixels = size.width * size.height
    return WEBP_WORK * pixels if size.format == "WEBP" else size.scans * max(pixels, SCAN_WORK if size.scans > 1 else 0)


@functools.lru_cache(16)
def _only_scaled(preprocessing: Preprocessing) -> Preprocessing:
    """The same for a picture that was cut by the rule already."""
    rule = msgspec.structs.replace(preprocessing.rule, crop=1.0, resize="stretch")
    return msgspec.structs.replace(preprocessing, rule=rule)
