"""A frame: one tensor on its way from device to cloud, as self-describing bytes. docs/wire.md specifies every one.

    header ── sizes of the tensor ── payload ── CRC-32

The receiver says what it expects before it looks, so that a frame never decides how much memory is taken. A checksum
tells damage, not malice: everything behind it is checked as well.
"""

import enum
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from modeltree.errors import ConfigError, DataError
from runtime.wire.codec import (
    FLOAT_BITS,
    MODELLED_BITS,
    Codes,
    FrameError,
    Packing,
    dequantise,
    extremes,
    pack,
    packed_bytes,
    quantise,
    unpack,
)

__all__ = [
    "FRAME_VERSION", "FrameError", "Header", "decode", "encode", "encode_picture", "largest_frame_bytes", "picture_in",
    "read_header",
]  # fmt: skip

FRAME_VERSION = 1
MAX_NUMBERS = 2**28
MAX_RANK = 8
PIXEL_BITS = 8
MAX_PICTURE_BYTES = 2**25
_MAGIC = b"NMF"
_FIXED = struct.Struct("<3sBBBBBffI")
_CHECKSUM = struct.Struct("<I")


class Kind(enum.IntEnum):
    """What a frame holds: float32; uint8 pixels; a picture's file, as it came; a file of the network's own pixels."""

    FEATURES = 0
    PIXELS = 1
    PICTURE = 2
    CUT_PICTURE = 3


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a frame says of itself.

    shape : sizes, batch first; of a picture, what it becomes. bits : of a number, 32 where floats are as they are.
    lo, step : a number is `lo + step * code`; 0 and 1 for pixels, pictures and 32 bits.
    """

    shape: tuple[int, ...]
    kind: Kind
    method: Packing
    bits: int
    lo: float
    step: float
    payload_bytes: int

    @property
    def pixels(self) -> bool:
        """Whether it holds uint8 pixels."""
        return self.kind is Kind.PIXELS

    @property
    def picture(self) -> bool:
        """Whether it holds a picture's file."""
        return self.kind in (Kind.PICTURE, Kind.CUT_PICTURE)

    @property
    def size_bytes(self) -> int:
        """Of header and sizes; the payload begins here."""
        return _FIXED.size + 4 * len(self.shape)

    def encoded(self) -> bytes:
        fixed = _FIXED.pack(
            _MAGIC, FRAME_VERSION, self.kind, self.method, self.bits, len(self.shape), self.lo, self.step,
            self.payload_bytes,
        )  # fmt: skip
        return fixed + struct.pack(f"<{len(self.shape)}I", *self.shape)


def encode(x: np.ndarray, bits: int) -> bytes:
    """A tensor as a frame. The same tensor gives the same bytes (for one version of zlib).

    Parameters
    ----------
    x : (batch, ...), float32 features or uint8 pixels; 1 to 8 dimensions, any strides.
    bits : of a number on the wire: 1 to 16 quantises, 32 does not; 8 for pixels.

    Raises
    ------
    ConfigError : `bits` does not go with `x`. DataError : `x` has another type or more numbers than a frame takes, or
        holds NaN or infinity.
    """
    if not 1 <= x.ndim <= MAX_RANK or not 1 <= x.size <= MAX_NUMBERS:
        raise DataError(
            f"tensor is {x.shape}: it must have 1 to {MAX_RANK} dimensions and 1 to {MAX_NUMBERS} numbers; reshape it"
        )
    pixels, lo, step = x.dtype == np.uint8, 0.0, 1.0
    payload: bytes | memoryview
    if pixels:
        if bits != PIXEL_BITS:
            raise ConfigError(f"bits is {bits}: uint8 pixels must have {PIXEL_BITS}; pass that, or float32")
        method, payload = pack(x, bits)
    elif bits == FLOAT_BITS:
        extremes(x)
        method, payload = Packing.PACKED, np.ascontiguousarray(x, "<f4").reshape(-1).view(np.uint8).data
    else:
        codes = quantise(x, bits)
        lo, step = float(codes.lo), float(codes.step)
        method, payload = pack(codes.q, bits)
    kind = Kind.PIXELS if pixels else Kind.FEATURES
    return _whole(
        Header(shape=x.shape, kind=kind, method=method, bits=bits, lo=lo, step=step, payload_bytes=len(payload)),
        payload,
    )


def encode_picture(file: bytes, shape: Sequence[int], *, whole: bool) -> bytes:
    """A picture's file as a frame.

    Parameters
    ----------
    file : JPEG or WebP. shape : (channels, height, width) of the pixels that the receiver makes of it.
    whole : whether it is as it came, so that the receiver cuts and scales by the picture rule; else it was cut already.

    Raises
    ------
    DataError : the file is empty or larger than a frame takes.
    """
    if not 1 <= len(file) <= MAX_PICTURE_BYTES:
        raise DataError(f"the picture has {len(file)} bytes: it must have 1 to {MAX_PICTURE_BYTES}; code it smaller")
    kind = Kind.PICTURE if whole else Kind.CUT_PICTURE
    header = Header(
        shape=(1, *shape), kind=kind, method=Packing.PACKED, bits=PIXEL_BITS, lo=0.0, step=1.0, payload_bytes=len(file)
    )
    return _whole(header, file)


def picture_in(frame: bytes | bytearray | memoryview, header: Header) -> memoryview:
    """The file in a frame that `read_header` found to hold one; not looked into."""
    return memoryview(frame).cast("B")[header.size_bytes : -_CHECKSUM.size]


def _whole(header: Header, payload: bytes | memoryview) -> bytes:
    front = header.encoded()
    return b"".join([front, payload, _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(front)))])


def decode(frame: bytes | bytearray | memoryview, *, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """The tensor in a frame; a new array, every number finite.

    Takes at most 12 bytes a number and 64 KiB beside the result, whatever the frame says of itself.

    Parameters
    ----------
    shape : that the receiver expects, batch first. dtype : likewise; float32 features or uint8 pixels.

    Raises
    ------
    FrameError : the frame is not whole, not of this version, holds another tensor than expected, or contradicts
        itself; `reason` says which. ConfigError : no frame has such a shape or type.
    """
    limit = largest_frame_bytes(shape, dtype)
    view = memoryview(frame).cast("B")
    if len(view) > limit:
        raise FrameError(
            f"frame has {len(view)} bytes: one of {tuple(shape)} has {limit} at most; encode what is asked for",
            reason="length",
        )
    header = read_header(view)
    if header.picture:
        raise FrameError("frame holds a picture's file: numbers are expected here; send those", reason="shape")
    found, wanted = np.dtype(np.uint8 if header.pixels else np.float32), np.dtype(dtype)
    if header.shape != tuple(shape) or found != wanted:
        raise FrameError(
            f"frame holds {found} {header.shape}: {wanted} {tuple(shape)} is expected; hand over at the place agreed",
            reason="shape",
        )
    payload = view[header.size_bytes : -_CHECKSUM.size]
    if header.bits == FLOAT_BITS:
        return _floats(payload).reshape(header.shape)
    q = unpack(payload, header.method, header.bits, math.prod(header.shape)).reshape(header.shape)
    if header.pixels:
        return q.copy()
    return dequantise(Codes(q=q, lo=np.float32(header.lo), step=np.float32(header.step), bits=header.bits))


def read_header(frame: bytes | bytearray | memoryview) -> Header:
    """What a whole, undamaged frame says of itself. Takes no memory to speak of; the payload is not looked into.

    Raises
    ------
    FrameError : see `decode`.
    """
    header = _parsed(memoryview(frame).cast("B"))
    _check(header)
    return header


def largest_frame_bytes(shape: Sequence[int], dtype: DTypeLike = np.float32) -> int:
    """The most bytes that a frame with such a tensor has: where a transport may stop reading.

    Raises
    ------
    ConfigError : no frame has such a shape or type.
    """
    numbers, kind = math.prod(shape), np.dtype(dtype)
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1 or numbers > MAX_NUMBERS:
        raise ConfigError(
            f"shape is {tuple(shape)}: it must be 1 to {MAX_RANK} sizes of 1 or more, {MAX_NUMBERS} numbers at most"
        )
    if kind not in (np.float32, np.uint8):
        raise ConfigError(f"type is {kind}: a frame holds float32 or uint8; pass one of them")
    return _FIXED.size + 4 * len(shape) + kind.itemsize * numbers + _CHECKSUM.size


def _parsed(frame: memoryview) -> Header:
    """The header of a frame that is as long as it says and has its checksum."""
    least = _FIXED.size + _CHECKSUM.size
    if len(frame) < least:
        raise FrameError(f"frame has {len(frame)} bytes: it must have {least} or more; send it whole", reason="length")
    magic, version, kind, method, bits, rank, lo, step, payload_bytes = _FIXED.unpack_from(frame)
    if magic != _MAGIC:
        raise FrameError(f"frame begins with {magic!r}: it must begin with {_MAGIC!r}; send a frame", reason="magic")
    if version != FRAME_VERSION:
        raise FrameError(
            f"frame has version {version}: {FRAME_VERSION} is read here; use the same release on both ends",
            reason="version",
        )
    whole = least + 4 * rank + payload_bytes
    if len(frame) != whole:
        raise FrameError(f"frame has {len(frame)} bytes: it says {whole}; send it whole, alone", reason="length")
    if zlib.crc32(frame[: -_CHECKSUM.size]) != _CHECKSUM.unpack(frame[-_CHECKSUM.size :])[0]:
        raise FrameError("frame has another checksum than its bytes: it was damaged; send it again", reason="checksum")
    if kind not in tuple(Kind) or method not in tuple(Packing) or not 1 <= rank <= MAX_RANK:
        raise FrameError(
            f"frame has kind {kind}, method {method}, {rank} dimensions: they must be 0..3, 0..2, 1..{MAX_RANK}; "
            "encode it again",
            reason="header",
        )
    return Header(
        shape=struct.unpack_from(f"<{rank}I", frame, _FIXED.size), kind=Kind(kind), method=Packing(method),
        bits=bits, lo=lo, step=step, payload_bytes=payload_bytes,
    )  # fmt: skip


def _check(header: Header) -> None:
    """Whether a header agrees with itself.

    Raises
    ------
    FrameError : it does not.
    """
    numbers, bits = math.prod(header.shape), header.bits
    if min(header.shape) < 1 or numbers > MAX_NUMBERS:
        raise _wrong(f"shape {header.shape}", f"sizes of 1 or more, {MAX_NUMBERS} numbers at most")
    eights = header.pixels or header.picture
    plain = eights or bits == FLOAT_BITS
    if not (bits == PIXEL_BITS if eights else bits == FLOAT_BITS or 1 <= bits <= 16):
        raise _wrong(f"bits {bits}", f"{PIXEL_BITS} for pixels and pictures, 1..16 or {FLOAT_BITS} for features")
    if plain and (header.lo, header.step) != (0, 1):
        raise _wrong(f"lo {header.lo} and step {header.step}", "0 and 1, since it is not quantised")
    if not (math.isfinite(header.lo) and math.isfinite(header.step) and header.step >= 0):
        raise _wrong(f"lo {header.lo} and step {header.step}", "finite, and step not negative")
    if header.picture:
        return _check_picture(header)
    most = 4 * numbers if bits == FLOAT_BITS else packed_bytes(numbers, bits)
    if header.method is Packing.DEFLATED and (bits == FLOAT_BITS or header.payload_bytes >= most):
        raise _wrong(f"{header.payload_bytes} deflated bytes of {bits} bits", f"packed, or fewer than {most}")
    if header.method is Packing.MODELLED and (bits > MODELLED_BITS or header.payload_bytes >= most):
        raise _wrong(f"{header.payload_bytes} modelled bytes of {bits} bits", f"fewer than {most}, of 1..8 bits")
    if header.method is Packing.PACKED and header.payload_bytes != most:
        raise _wrong(f"{header.payload_bytes} packed bytes of {bits} bits", str(most))


def _check_picture(header: Header) -> None:
    if len(header.shape) != 4 or header.shape[0] != 1:
        raise _wrong(f"a picture of shape {header.shape}", "one, (1, channels, height, width)")
    if header.method is not Packing.PACKED or not 1 <= header.payload_bytes <= MAX_PICTURE_BYTES:
        raise _wrong(
            f"a picture of {header.payload_bytes} bytes, method {header.method}", f"1 to {MAX_PICTURE_BYTES}, method 0"
        )


def _wrong(what: str, must: str) -> FrameError:
    return FrameError(f"frame has {what}: it must be {must}; encode it again", reason="header")


def _floats(payload: memoryview) -> np.ndarray:
    x = np.frombuffer(payload, "<f4").astype(np.float32)
    try:
        extremes(x)
    except DataError as error:
        raise FrameError(f"frame holds what none may: {error}") from error
    return x
