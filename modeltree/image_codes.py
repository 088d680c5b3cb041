"""How a picture crosses to a server before any layer has run: as pixels, as the file it came as, or as one we code.

As text, in trees and options: `raw`, `came`, `jpeg:75`, `webp:50`, and with a smaller side `jpeg:75@160`.
"""

import math
import re
from typing import Literal, NamedTuple, cast

from modeltree.errors import ConfigError

Kind = Literal["raw", "came", "jpeg", "webp"]

_CODED = re.compile(r"(jpeg|webp):([1-9][0-9]?)(?:@([1-9][0-9]{0,3}))?")

BASELINE = "jpeg:75"
"""What one would try first."""


class ImageCode(NamedTuple):
    """A way to send a picture.

    kind : `raw` pixels; `came`, the camera's own JPEG or WebP file, unchanged; `jpeg` or `webp`, coded on the device.
    quality : of a coded one, 1 to 95, as Pillow counts. side : of what is coded, its shorter one in pixels; 0 for as
    many as the network takes. The server scales it up again.
    """

    kind: Kind
    quality: int = 0
    side: int = 0

    @property
    def text(self) -> str:
        """As `image_code` reads it."""
        if not self.quality:
            return self.kind
        return f"{self.kind}:{self.quality}" + (f"@{self.side}" if self.side else "")

    @property
    def title(self) -> str:
        """For a reader: `a JPEG of quality 75 at 160 pixels`."""
        if not self.quality:
            return {"raw": "raw pixels", "came": "the file as it came"}[self.kind]
        name = {"jpeg": "JPEG", "webp": "WebP"}[self.kind]
        return f"a {name} of quality {self.quality}" + (f" at {self.side} pixels" if self.side else "")

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that are coded of a picture of this size; its proportions stay."""
        if not self.side:
            return height, width
        shorter = min(height, width)
        return max(1, round(height * self.side / shorter)), max(1, round(width * self.side / shorter))

    def pixels(self, height: int, width: int) -> int:
        """How many are coded of a picture of this size."""
        return math.prod(self.sides(height, width))


CAME_ELSE = ImageCode("jpeg", 90)
"""What a picture is sent as that should cross as it came, and came as no file."""


def image_code(text: str) -> ImageCode:
    """Read a code from text.

    Raises
    ------
    ConfigError : it is none.
    """
    if text in ("raw", "came"):
        return ImageCode(cast(Kind, text))
    match = _CODED.fullmatch(text)
    if match is None or int(match[2]) > 95:
        raise ConfigError(
            f"image code is {text[:40]!r}: it must be raw, came, jpeg:Q or webp:Q with a quality Q of 1..95, and may "
            "end in @SIDE, such as jpeg:75@160"
        )
    return ImageCode(cast(Kind, match[1]), int(match[2]), int(match[3] or 0))
