"""Pictures that are arrays of pixels already: 8 or 16 bits a number, grey, colours, or colours with transparency."""

import math

import numpy as np

from modeltree.errors import DataError
from modeltree.preprocessing import Box, Channels, Preprocessing
from runtime.images.pillow import installed, resized_by_pillow
from runtime.images.resampling import resized

_KNOWN = (1, 3, 4)
_RED, _GREEN, _BLUE = 19595, 38470, 7471
"""Shares of the colours in grey, of 65536, as Pillow has them."""


def pixels_of_array(array: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """A picture of any size as the network's pixels.

    Parameters
    ----------
    array : uint8 or uint16 (whose upper eight bits count), (height, width), (height, width, c) or (c, height, width)
        with c of 1 (grey), 3 (red, green, blue) or 4 (their transparency last, which is passed over). Where both ends
        could be the channels, the last is.

    Returns
    -------
    (channels, height, width) uint8.

    Raises
    ------
    DataError : another type or shape, or no pixel at all.
    """
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[-1] not in _KNOWN and array.shape[0] in _KNOWN:
        array = np.moveaxis(array, 0, -1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in _KNOWN or not array.size:
        raise DataError(
            f"the image is {array.dtype} {array.shape}: an array must be uint8 or uint16, (height, width), (height, "
            "width, c) or (c, height, width) with c of 1, 3 or 4; or float32 "
            f"{preprocessing.shape}, normalised already. Several at a time are a list of them"
        )
    return scaled(coloured(array, preprocessing.rule.channels), preprocessing)


def coloured(pixels: np.ndarray, channels: Channels) -> np.ndarray:
    """(h, w, 1, 3 or 4) uint8 as (h, w, 1) where the network takes grey, else (h, w, 3)."""
    if pixels.shape[-1] == 4:
        pixels = pixels[..., :3]
    if channels != "L":
        return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
    grey = (red * _RED + green * _GREEN + blue * _BLUE + 0x8000) >> 16
    return grey.astype(np.uint8)[..., None]


def scaled(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """(h, w, 1 or 3) uint8, red first, cut and scaled by the rule: (channels, height, width), in the rule's order."""
    height, width = preprocessing.height, preprocessing.width
    box = preprocessing.box(pixels.shape[1], pixels.shape[0])
    if pixels.shape[:2] != (height, width) or box != (0, 0, width, height):
        rows, box = _needed(box, pixels.shape[0], height)
        scale = resized_by_pillow if installed() else resized
        pixels = scale(pixels[rows], height, width, box, preprocessing.rule.filter)
    if preprocessing.rule.channels == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _needed(box: Box, rows: int, height: int) -> tuple[slice, Box]:
    """The rows that any filter can reach from a box that becomes so high, and the box as it lies in them."""
    left, upper, right, lower = box
    reach = 4 * max(1.0, (lower - upper) / height)
    first, last = max(0, math.floor(upper - reach)), min(rows, math.ceil(lower + reach))
    return slice(first, last), (left, upper - first, right, lower - first)
