"""From what people have to what a network takes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from modeltree.errors import DataError
from modeltree.preprocessing import Preprocessing
from runtime.images.arrays import pixels_of_array, scaled
from runtime.images.pillow import is_picture, read_file, read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Union[str, os.PathLike[str], bytes, bytearray, memoryview, np.ndarray, "Image"]
"""A file's name, the bytes of a JPEG, PNG, WebP, BMP or PPM, an array of pixels, or an image of Pillow's."""

Pictures = list[Picture] | tuple[Picture, ...]
"""Several at a time."""


def pixels_of(picture: Picture, preprocessing: Preprocessing, *, name: str = "") -> np.ndarray:
    """A picture as the network's pixels: upright, cut and scaled by the rule, its channels in the network's order.

    Parameters
    ----------
    picture : see `Picture`. An array that has exactly the network's shape, (channels, height, width), is what comes
        out of here already and taken as it is; others see `pixels_of_array`.
    name : of the picture, for errors; its file's name unless given.

    Returns
    -------
    (channels, height, width) uint8.

    Raises
    ------
    DataError : it cannot be read, or is no picture. ConfigError : it needs Pillow, which is not installed.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype == np.uint8 and picture.shape == preprocessing.shape:
            return np.ascontiguousarray(picture)
        return pixels_of_array(picture, preprocessing)
    if isinstance(picture, bytes | bytearray | memoryview):
        return scaled(read_file(bytes(picture), preprocessing, name or "in memory"), preprocessing)
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        return scaled(read_file(path, preprocessing, name or str(path)), preprocessing)
    if is_picture(picture):
        return scaled(read_picture(picture, preprocessing), preprocessing)
    raise DataError(
        f"an image is a {type(picture).__name__}: it must be a file's name, the bytes of a JPEG or PNG, an array or an "
        "image of Pillow's"
    )


def entering(picture: Picture, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture as a network takes it, and its pixels where it has any.

    Parameters
    ----------
    picture : as for `pixels_of`, or float32 (channels, height, width), normalised already.

    Returns
    -------
    (x, pixels) : (1, channels, height, width) float32; (channels, height, width) uint8, or None.

    Raises
    ------
    DataError, ConfigError : as for `pixels_of`, or a number that is not finite.
    """
    if isinstance(picture, np.ndarray) and picture.dtype == np.float32 and picture.shape == preprocessing.shape:
        if not np.isfinite(picture).all():
            raise DataError("the image holds a number that is not finite: check what was read")
        return picture[None], None
    pixels = pixels_of(picture, preprocessing)
    return preprocessing.normalised(pixels)[None], pixels
