"""Integer codes for the tensor that crosses the network, and as few bytes for them as we find.

Pure numpy, so device and cloud share it; torch never enters `runtime`. What the bytes mean is in docs/wire.md.
Symbols follow [Niu 2022, sec. III-A].

    float32 ── quantise ──▶ codes ── pack ──▶ bytes ── unpack ──▶ codes ── dequantise ──▶ float32
"""

import enum
import math
import zlib
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError
from runtime.wire.modelled import HEAD_BYTES, modelled, unmodelled

MODELLED_BITS = 8
"""The widest codes for which there are models."""
FLOAT_BITS = 32
"""The width that stands for float32 as it is."""

_LARGEST = float(np.finfo(np.float32).max)


class FrameError(FormatError):
    """Bytes from the wire that are refused.

    reason : `length`, `magic`, `version`, `checksum`, `header`, `shape` or `payload`; for counting, as in metrics.
    """

    def __init__(self, message: str, *, reason: str = "payload") -> None:
        super().__init__(message)
        self.reason = reason


class Packing(enum.IntEnum):
    """How codes become bytes: bit by bit, through deflate, or by Huffman codes that both ends know."""

    PACKED = 0
    DEFLATED = 1
    MODELLED = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """A quantised tensor: `lo + step * q`.

    q : integers of the tensor's shape, uint8 up to 8 bits, uint16 above.
    lo, step : float32; `step` is 0 where all numbers are `lo`.
    bits : code width, 1 to 16.
    """

    q: np.ndarray
    lo: np.float32
    step: np.float32
    bits: int


def quantise(x: np.ndarray, bits: int) -> Codes:
    """Map a feature map to integer codes evenly spaced between its extremes.

    [Niu 2022, eq. 4]:  q = round((c - 1) (x - min x) / (max x - min x)),  c = 2**bits.

    The step (max x - min x) / (c - 1) is rounded up to float32 first, since it is what the receiver multiplies by.

    Parameters
    ----------
    x : float32, finite, not empty; any shape and strides.
    bits : code width, 1 to 16.

    Returns
    -------
    Codes : integers of `x`'s shape plus `lo` and `step`; `dequantise` lies within `step / 2` of `x`, and what float32
        rounds: at most 2**-20 of the largest magnitude.

    Raises
    ------
    ConfigError : `bits` is outside 1..16. DataError : `x` is not float32, is empty, holds NaN or infinity, or its
        range needs a step beyond float32 (1 bit only).
    """
    if not 1 <= bits <= 16:
        raise ConfigError(f"bits is {bits}: it must be within 1..16 ({FLOAT_BITS} is for frames: numbers as they are)")
    lo, hi = extremes(x)
    span = hi - lo
    step = _rounded_up(span / (2**bits - 1))
    code, low = np.uint8 if bits <= 8 else np.uint16, np.float32(lo)
    if step == 0:
        return Codes(q=np.zeros(x.shape, code), lo=low, step=step, bits=bits)
    if not np.isfinite(step):
        raise DataError(f"feature map spans {span:.3g}, which 1 bit cannot: it must stay below {_LARGEST:.3g}; use 2")
    scaled = np.subtract(x, low, dtype=np.float32 if span <= _LARGEST else np.float64, order="C")
    np.divide(scaled, step, out=scaled)
    np.rint(scaled, out=scaled)
    return Codes(q=scaled.astype(code), lo=low, step=step, bits=bits)


def dequantise(codes: Codes) -> np.ndarray:
    """`lo + step * q` as float32, in the shape of the codes; what exceeds float32 becomes its largest number."""
    if abs(float(codes.lo)) + float(codes.step) * (2**codes.bits - 1) <= _LARGEST:
        x = np.multiply(codes.q, codes.step, dtype=np.float32)
        return np.add(x, codes.lo, out=x)
    wide = np.multiply(codes.q, codes.step, dtype=np.float64)
    wide += codes.lo
    return wide.clip(-_LARGEST, _LARGEST, out=wide).astype(np.float32)


def extremes(x: np.ndarray) -> tuple[float, float]:
    """Smallest and largest number, a zero without its sign (which of -0 and 0 is found depends on the machine).

    x : of any shape.

    Raises
    ------
    DataError : `x` is not float32, is empty, or holds NaN or infinity; says where.
    """
    if x.dtype != np.float32 or x.size == 0:
        raise DataError(f"feature map is {x.dtype} {x.shape}: it must be float32 and not empty; convert it")
    lo, hi = float(x.min()) + 0.0, float(x.max()) + 0.0
    if not (math.isfinite(lo) and math.isfinite(hi)):
        where = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
        raise DataError(f"feature map has {x[where]} at {where}: it must be finite; check the image and the weights")
    return lo, hi


def packed_bytes(count: int, bits: int) -> int:
    """Size of so many codes as `Packing.PACKED`: the most that any payload may have."""
    return sum(_ceiling(count * width, 8) for width in _widths(bits))


def pack(q: np.ndarray, bits: int) -> tuple[Packing, bytes]:
    """Codes, of any shape, as bytes, by the method that makes them fewest.

    Up to four-bit planes put several codes into a byte, which also lets Huffman spend less than a bit on each.
    """
    planes = _planes(q.reshape(-1), bits)
    deflated = _deflated([_gathered(plane, width, 8 // width, 1) for plane, width in planes])
    least = min(len(deflated), packed_bytes(q.size, bits))
    if bits <= MODELLED_BITS and (coded := modelled(planes[0][0], bits, least)) is not None:
        return Packing.MODELLED, coded
    if len(deflated) < packed_bytes(q.size, bits):
        return Packing.DEFLATED, deflated
    packed = (_gathered(plane, width, 8, width).tobytes()[: _ceiling(q.size * width, 8)] for plane, width in planes)
    return Packing.PACKED, b"".join(packed)


def unpack(payload: memoryview, method: Packing, bits: int, count: int) -> np.ndarray:
    """The codes, (count,), that `pack` made `payload` of. Never makes more than was asked for, whatever comes in.

    Raises
    ------
    FrameError : it holds more or fewer codes, codes of more bits, bits set where none belong, or is no deflate stream.
    """
    if method is Packing.MODELLED:
        return _unmodelled(payload, bits, count)
    widths = _widths(bits)
    if method is Packing.PACKED:
        layouts = [(width, 8, width) for width in widths]
        sizes = [_ceiling(count * width, 8) for width in widths]
        data = payload
    else:
        layouts = [(width, 8 // width, 1) for width in widths]
        sizes = [_ceiling(count, per_byte) for _, per_byte, _ in layouts]
        data = memoryview(_inflated(payload, sum(sizes)))
    if len(data) != sum(sizes):
        raise FrameError(f"payload is {len(data)} bytes of codes: it must be {sum(sizes)}; encode the frame again")
    planes = []
    for layout, size in zip(layouts, sizes, strict=True):
        planes.append(_scattered(data[:size], *layout, count))
        data = data[size:]
    return planes[0] if len(planes) == 1 else planes[0].astype(np.uint16) << 8 | planes[1]


def _unmodelled(payload: memoryview, bits: int, count: int) -> np.ndarray:
    if bits > MODELLED_BITS or len(payload) < HEAD_BYTES:
        raise FrameError(
            f"payload has {len(payload)} modelled bytes of {bits} bits: from {HEAD_BYTES} on, of 1..8 bits"
        )
    try:
        return unmodelled(payload, bits, count)
    except ValueError as error:
        raise FrameError(f"payload {error}: encode the frame again") from error


def _widths(bits: int) -> tuple[int, ...]:
    """Bits of each plane: codes of more than 8 bits are split into what is above the low byte, and the low byte."""
    return (bits,) if bits <= 8 else (bits - 8, 8)


def _planes(q: np.ndarray, bits: int) -> list[tuple[np.ndarray, int]]:
    parts = [q] if bits <= 8 else [(q >> 8).astype(np.uint8), q.astype(np.uint8)]
    return list(zip(parts, _widths(bits), strict=True))


def _gathered(plane: np.ndarray, width: int, per_group: int, group_bytes: int) -> np.ndarray:
    """So many codes to every so many bytes, the first code in the highest bits; zeros behind the last code."""
    if width == 8 or per_group == 1:
        return plane
    word = np.uint8 if group_bytes == 1 else np.uint64
    codes = np.zeros((_ceiling(plane.size, per_group), per_group), word)
    codes.reshape(-1)[: plane.size] = plane
    words = codes[:, 0]
    for i in range(1, per_group):
        words = words << word(width) | codes[:, i]
    return words if group_bytes == 1 else words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - group_bytes :]


def _scattered(data: memoryview, width: int, per_group: int, group_bytes: int, count: int) -> np.ndarray:
    """What `_gathered` took, (count,), uint8."""
    if width == 8:
        return np.frombuffer(data, np.uint8)
    groups, word = _ceiling(count, per_group), np.uint8 if group_bytes == 1 else np.uint64
    words = np.frombuffer(data, np.uint8) if group_bytes == 1 else _words(data, groups, group_bytes)
    codes = np.empty((groups, per_group), np.uint8)
    for i in range(per_group):
        codes[:, i] = words >> word(width * (per_group - 1 - i)) & word(2**width - 1)
    used_bits = width * per_group
    if codes.reshape(-1)[count:].any() or (used_bits < 8 and (words >> word(used_bits)).any()):
        raise FrameError(f"payload sets bits that belong to no {width}-bit code: they must be 0; encode it again")
    return codes.reshape(-1)[:count]


def _words(data: memoryview, groups: int, group_bytes: int) -> np.ndarray:
    """Groups of bytes, the first highest, as numbers; the last group may be cut short."""
    padded = np.zeros(groups * group_bytes, np.uint8)
    padded[: len(data)] = data
    wide = np.zeros((groups, 8), np.uint8)
    wide[:, 8 - group_bytes :] = padded.reshape(groups, group_bytes)
    return wide.view(">u8")[:, 0].astype(np.uint64)


def _deflated(planes: list[np.ndarray]) -> bytes:
    """One raw deflate stream over all planes, each in blocks of its own and so with Huffman tables of its own."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_HUFFMAN_ONLY)
    parts = []
    for i, plane in enumerate(planes):
        if i:
            parts.append(stream.flush(zlib.Z_BLOCK))
        parts.append(stream.compress(np.ascontiguousarray(plane).data))
    return b"".join([*parts, stream.flush()])


def _inflated(payload: memoryview, size: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(payload, size + 1)
    except zlib.error as error:
        raise FrameError(f"payload is no deflate stream ({error}): encode the frame again") from error
    if len(data) > size:
        raise FrameError(f"payload inflates to more than {size} bytes: it must be exactly that; encode it again")
    if not stream.eof or stream.unused_data:
        where = "goes on behind" if stream.eof else "stops before"
        raise FrameError(f"payload {where} the end of its deflate stream: it must end there; send the whole frame")
    return data


def _ceiling(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _rounded_up(number: float) -> np.float32:
    """The smallest float32 that is no less; infinity where there is none."""
    with np.errstate(over="ignore"):
        near = np.float32(number)
    return near if float(near) >= number else np.nextafter(near, np.float32(np.inf))
