"""What a JPEG or WebP file says of itself, read without a decoder: before one takes memory, its size must be known."""

import struct
from typing import Literal, NamedTuple

from modeltree.errors import DataError

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END = 0xDA, 0xD9
_ANIMATED = 0x02


class FileSize(NamedTuple):
    """Format and size in pixels that a file claims.

    scans : that a decoder goes over the whole picture, as many as a JPEG can have at most; usual progressive ones have
    about ten, but a small file may have thousands, which would keep a decoder busy for minutes.
    """

    format: Literal["JPEG", "WEBP"]
    width: int
    height: int
    scans: int = 1


def claimed_size(data: bytes | memoryview) -> FileSize:
    """What a JPEG or WebP file claims to be; touches a few bytes of it.

    Raises
    ------
    DataError : it is neither, broken before its size, or animated.
    """
    view = memoryview(data)
    if view[:3] == b"\xff\xd8\xff":
        return _jpeg(view)
    if view[:4] == b"RIFF" and view[8:12] == b"WEBP":
        return _webp(view)
    raise DataError(f"the picture begins with {bytes(view[:4])!r}: it must be a JPEG or WebP file, send one of these")


def _jpeg(view: memoryview) -> FileSize:
    at = 2
    while at + 4 <= len(view):
        if view[at] != 0xFF:
            break
        marker = view[at + 1]
        if marker == 0xFF or marker in _ALONE:  # fill bytes, or a marker without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_START_OF_SCAN, _END):
            break
        length = int.from_bytes(view[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            if length < 8 or at + 9 > len(view):
                break
            height, width = struct.unpack_from(">HH", view, at + 5)
            return _sound("JPEG", width, height, bytes(view[at:]).count(b"\xff\xda"))
        if length < 2:
            break
        at += 2 + length
    raise DataError("the JPEG is broken before it says its size: send it whole")


def _webp(view: memoryview) -> FileSize:
    kind, body = bytes(view[12:16]), view[20:30]
    if len(body) == 10:
        if kind == b"VP8X":
            if body[0] & _ANIMATED:
                raise DataError("the WebP is animated: send a still picture")
            width, height = (1 + int.from_bytes(body[i : i + 3], "little") for i in (4, 7))
            return _sound("WEBP", width, height)
        if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", body, 6)
            return _sound("WEBP", width & 0x3FFF, height & 0x3FFF)
        if kind == b"VP8L" and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            return _sound("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    raise DataError("the WebP is broken before it says its size: send it whole")


def _sound(kind: Literal["JPEG", "WEBP"], width: int, height: int, scans: int = 1) -> FileSize:
    if not width or not height:
        raise DataError(f"the {kind} says that it is {width} x {height} pixels: it must have some")
    return FileSize(kind, width, height, max(1, scans))
