"""A picture on its way to a server as a file, coded no sooner than it is sent, so that coding is timed as coding."""

from collections.abc import Callable
from dataclasses import dataclass

from runtime.wire.frames import encode_picture


@dataclass(frozen=True, kw_only=True)
class PictureToSend:
    """One picture.

    shape : (channels, height, width) of what the server makes of it. whole : whether the file is as it came, see
    `frames.encode_picture`. likely_bytes : of the file, before it is there. made : gives the file.
    """

    shape: tuple[int, ...]
    whole: bool
    likely_bytes: int
    made: Callable[[], bytes]

    def frame(self) -> bytes:
        """As it crosses."""
        return encode_picture(self.made(), self.shape, whole=self.whole)
