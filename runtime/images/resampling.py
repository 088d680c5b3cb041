"""Scaling of 8-bit pixels in numpy, to the bit as Pillow scales them: for devices without Pillow.

Pillow's own is used where it is there, for it is several times faster; a test holds the two together. The numbers are
those of its `Resample.c`: weights with 22 bits behind the point, columns first, rounded to 8 bits, then rows.
"""

import math
from collections.abc import Callable

import numpy as np

from modeltree.preprocessing import Box, Filter

_BITS = 22


def resized(pixels: np.ndarray, height: int, width: int, box: Box, kind: Filter) -> np.ndarray:
    """Scale a part of a picture.

    Parameters
    ----------
    pixels : (h, w, channels) uint8.
    box : left, upper, right and lower edge of the part, within the picture; what lies beyond them still counts where
        the filter reaches over them.

    Returns
    -------
    (height, width, channels) uint8.
    """
    left, upper, right, lower = (np.float32(edge) for edge in box)
    rows, columns = pixels.shape[:2]
    if width != columns or left != 0 or right != columns:
        pixels = _scaled(pixels, _weights(columns, left, right, width, kind), axis=1)
    if height != rows or upper != 0 or lower != rows:
        pixels = _scaled(pixels, _weights(rows, upper, lower, height, kind), axis=0)
    return pixels


def _scaled(pixels: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Products of integers below 2**53 are exact in float64, and matrices of it are multiplied quickly."""
    reached = np.flatnonzero(weights.any(axis=0))
    first, last = int(reached[0]), int(reached[-1]) + 1
    moved = np.ascontiguousarray(np.moveaxis(pixels, axis, -1)[..., first:last], np.float64)
    sums = moved.reshape(-1, last - first) @ weights[:, first:last].T + (1 << (_BITS - 1))
    levels = np.clip(np.floor(sums / (1 << _BITS)), 0, 255).astype(np.uint8).reshape(*moved.shape[:-1], -1)
    return np.ascontiguousarray(np.moveaxis(levels, -1, axis))


def _weights(size: int, start: np.float32, stop: np.float32, wanted: int, kind: Filter) -> np.ndarray:
    """(wanted, size) whole numbers in float64: what each old pixel gives to each new one, times 2**22."""
    reach, curve = _CURVES[kind]
    scale = float(stop - start) / wanted
    wide = max(scale, 1.0)
    weights = np.zeros((wanted, size))
    for new in range(wanted):
        centre = float(start) + (new + 0.5) * scale
        first = max(int(centre - reach * wide + 0.5), 0)
        last = min(int(centre + reach * wide + 0.5), size)
        row = [curve((old - centre + 0.5) * (1.0 / wide)) for old in range(first, last)]
        total = sum(row)
        for old, weight in zip(range(first, last), row):
            share = weight / total if total else weight
            weights[new, old] = math.trunc(share * (1 << _BITS) + math.copysign(0.5, share))
    return weights


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _bicubic(x: float) -> float:
    """[Keys 1981] with a = -1/2."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    if not -3.0 <= x < 3.0:
        return 0.0
    return 1.0 if x == 0.0 else _sinc(x) * _sinc(x / 3.0)


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(math.pi * x) / (math.pi * x)


_CURVES: dict[Filter, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
"""How far a filter reaches, in new pixels, and its curve."""
