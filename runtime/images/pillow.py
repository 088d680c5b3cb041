"""What Pillow is asked for: reading pictures and scaling them, with one boundary that makes its errors ours."""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modeltree.errors import ConfigError, DataError, NasError
from modeltree.preprocessing import Box, Filter, Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
"""What is read; Pillow knows far more, each with a parser of its own."""

_LARGEST_PIXELS = 2**26
"""What is decoded at most, 268 MB as Pillow keeps it; a JPEG counts as what it is read at."""

_ORIENTATION = 0x0112


def installed() -> bool:
    """Whether Pillow is there."""
    return importlib.util.find_spec("PIL") is not None


def is_picture(thing: object) -> bool:
    """Whether this is one of Pillow's images; asks without importing it."""
    return any(f"{kind.__module__}.{kind.__name__}" == "PIL.Image.Image" for kind in type(thing).__mro__)


def read_file(
    source: Path | bytes, preprocessing: Preprocessing, name: str, formats: tuple[str, ...] = FORMATS
) -> np.ndarray:
    """Decode a file, or its bytes, to (h, w, 1 or 3) uint8, red first and upright, for `scaled`.

    A JPEG far larger than needed is read at a half, a quarter or an eighth, at least twice as large as needed.

    formats : which are read, of `FORMATS`.

    Raises
    ------
    DataError : it cannot be read. ConfigError : Pillow is not installed.
    """
    with _boundary(name):
        from PIL import Image

        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as picture:
            side = round(2 * max(preprocessing.height, preprocessing.width) / preprocessing.rule.crop)
            picture.draft(None, (side, side))
            return _plain(_upright(picture, name), preprocessing, name)


def read_picture(picture: "Image", preprocessing: Preprocessing) -> np.ndarray:
    """The same of an image of Pillow's, which is left as it is.

    Raises
    ------
    DataError : it cannot be read.
    """
    name = str(getattr(picture, "filename", "")) or "of Pillow"
    with _boundary(name):
        return _plain(_upright(picture, name), preprocessing, name)


def resized_by_pillow(pixels: np.ndarray, height: int, width: int, box: Box, kind: Filter) -> np.ndarray:
    """As `resampling.resized`."""
    from PIL import Image

    filters = {
        "box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }  # fmt: skip
    left, upper, right, lower = box
    grey = pixels.shape[-1] == 1
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    # two steps, columns first: which of them one step would begin with, and so the rounding, differs by version
    picture = picture.resize((width, picture.height), filters[kind], box=(left, 0, right, picture.height))
    scaled = np.asarray(picture.resize((width, height), filters[kind], box=(0, upper, width, lower)))
    return scaled[..., None] if grey else scaled


@contextmanager
def _boundary(name: str) -> Iterator[None]:
    """Whatever a parser falls over is the picture's fault, and said so."""
    try:
        yield
    except NasError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Pillow is not installed and reads image files: pip install 'nas-modeltree[images]', or pass arrays"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"cannot read image {name}: {reason}: mend or remove it") from error


def _upright(picture: "Image", name: str) -> "Image":
    """Turned as its EXIF says; an orientation that there is not counts as upright."""
    from PIL.Image import Transpose

    width, height = picture.size
    if width * height > _LARGEST_PIXELS:
        raise DataError(f"image {name} is {width} x {height}: at most {_LARGEST_PIXELS} pixels are read, scale it down")
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    said: Any = picture.getexif().get(_ORIENTATION)
    turn = turns.get(said) if isinstance(said, int) else None
    return picture if turn is None else picture.transpose(turn)


def _plain(picture: "Image", preprocessing: Preprocessing, name: str) -> np.ndarray:
    """8 bits a channel: (h, w, 1) where the network takes grey, else (h, w, 3).

    Of 16 bits the upper eight count. Transparency is passed over: the colours below it are taken as they stand.
    """
    if picture.mode.startswith("I;16"):
        from PIL.Image import fromarray

        picture = fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise DataError(f"image {name} has mode {picture.mode}: it must have 8 or 16 bits per channel, convert it")
    grey = preprocessing.rule.channels == "L"
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    if not (grey and picture.mode in ("1", "L", "LA")):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture.convert("L") if grey else picture)
    return pixels[..., None] if grey else pixels
