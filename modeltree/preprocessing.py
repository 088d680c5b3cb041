"""What happens to a picture before a network sees it: one value, which training, evaluation and devices share.

A tree says the rule beside its input's shape, mean and deviation; `runtime.images` does what it says. No Pillow here.
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from modeltree.errors import ConfigError, DataError, FormatError

if TYPE_CHECKING:
    import numpy as np

Channels = Literal["RGB", "BGR", "L"]
Resize = Literal["shorter-side", "stretch"]
Filter = Literal["box", "bilinear", "bicubic", "lanczos"]

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels; may lie between them."""


class ImageSize(NamedTuple):
    """Of what a network takes, in pixels."""

    height: int
    width: int


def image_size(size: int | str) -> ImageSize:
    """A size from one number, of a square, or from text: `32`, or `160x120`, width first as cameras and screens say it.

    Raises
    ------
    ConfigError : it is neither, or a side is below 1.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", str(size).strip())
    if match is None:
        raise ConfigError(
            f"image size is {size!r}: it must be at least 1, a number of pixels or WIDTHxHEIGHT such as 160x120"
        )
    width = int(match[1])
    return ImageSize(height=int(match[2] or width), width=width)


class PictureRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture of any size becomes the network's pixels. The default is what every tree without a rule was
    trained with.

    channels : what the network takes: colours in this order, or grey, `L` (0.299 R + 0.587 G + 0.114 B).
    resize : `shorter-side` keeps the picture's proportions and cuts off what is too much, the same on both sides;
        `stretch` keeps all of it and bends the proportions.
    crop : the share of what would remain, in both directions, that does remain, about the centre. Within 0..1.
    filter : of the scaling, wide enough to count every pixel where the picture shrinks, as Pillow has them.
    """

    channels: Channels = "RGB"
    resize: Resize = "shorter-side"
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise FormatError(f"a picture is cropped to {self.crop} of itself: it must be within 0..1, 1 for all of it")

    @property
    def count(self) -> int:
        """How many channels a picture becomes."""
        return len(self.channels)


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From a picture to the numbers that a network takes.

    A picture is turned upright as its EXIF says, brought to 8 bits a channel and to `rule.channels`, cut and scaled to
    `height` x `width` by the rule, and normalised: (pixel / 255 - mean) / std, per channel.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: PictureRule = PictureRule()

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise FormatError(f"pictures become {self.height} x {self.width} pixels: both must be at least 1")
        check_channels(self.mean, self.std, self.rule.count)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network takes."""
        return self.rule.count, self.height, self.width

    def box(self, width: int, height: int) -> Box:
        """The part of an upright picture of this size that is scaled to what the network takes."""
        kept_width, kept_height = float(width), float(height)
        if self.rule.resize == "shorter-side":
            if width * self.height > height * self.width:
                kept_width = height * self.width / self.height
            else:
                kept_height = width * self.height / self.width
        kept_width, kept_height = self.rule.crop * kept_width, self.rule.crop * kept_height
        left, upper = (width - kept_width) / 2, (height - kept_height) / 2
        return left, upper, left + kept_width, upper + kept_height

    def normalised(self, pixels: "np.ndarray") -> "np.ndarray":
        """(..., channels, height, width) float32 of uint8 of that shape; any height and width.

        Raises
        ------
        DataError : pixels of another type, or with other channels.
        """
        if pixels.dtype != "uint8" or pixels.ndim < 3 or pixels.shape[-3] != len(self.mean):
            raise DataError(f"pixels are {pixels.dtype} {pixels.shape} but must be uint8 (..., {len(self.mean)}, h, w)")
        return normalised(pixels, self.mean, self.std)


def normalised(pixels: "np.ndarray", mean: Sequence[float], std: Sequence[float]) -> "np.ndarray":
    """(pixel / 255 - mean) / std of (..., channels, height, width) uint8, as float32."""
    import numpy as np  # a config is made without it

    middle, scale = (np.array(values, np.float32)[:, None, None] * np.float32(255) for values in (mean, std))
    return (pixels - middle) / scale


def check_channels(mean: Sequence[float], std: Sequence[float], count: int) -> None:
    """Raises FormatError unless mean and deviation have one usable number for each of `count` channels."""
    sound = all(map(math.isfinite, (*mean, *std))) and all(value > 0 for value in std)
    if len(mean) != count or len(std) != count or not sound:
        raise FormatError(f"mean {mean} and std {std} must have {count} numbers each, finite, std above 0")
