"""Codes of feature maps by Huffman codes that both ends know, so that no table crosses: the frame's method 2.

A feature map has a centre (0 behind a ReLU) at which many numbers lie, and ever fewer farther off. Three bytes say
which centre, how many numbers lie elsewhere, and how fast they get fewer; the codes follow by whole-number arithmetic.

    codes ── folded about the centre ──▶ which are not at the centre, eight to a byte ──▶ Huffman codes, from the front
                                    └──▶ the others' distance from it, less one       ──▶ Huffman codes, from the back

Receiving is zlib's work: the bits are those of a deflate block whose head the receiver makes itself. docs/wire.md says
it bit by bit.
"""

import functools
import heapq
import itertools
import zlib
from dataclasses import dataclass

import numpy as np

HEAD_BYTES = 3
SHARES, DECAYS = 32, 40
"""How many kinds of masks there are, and of distances."""
_MOST_BITS = 15
_END = 256
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
"""In which deflate says how long the codes of lengths are."""
_FIXED_EMPTY, _FIXED_EMPTY_BITS = 0b010, 10
_START = 2**30
_RATIOS = tuple(round(2**32 * 2.0 ** -(2.0 ** (-level / 4))) for level in range(DECAYS))
"""2^32 times what a distance is less likely than the one before: 2^-1 (level 0), a root of it 2^(1/4) higher each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A Huffman code of bytes. lengths, words : (256,); a word's bits in the order in which they are sent, the first
    lowest; 0 where there is no code. head : a deflate block with this code, up to its first symbol, in whole bytes.
    skipped : symbols of those in `head`."""

    lengths: np.ndarray
    words: np.ndarray
    head: bytes
    skipped: int


def modelled(q: np.ndarray, bits: int, most: int) -> bytes | None:
    """Codes as bytes; None where that would take `most` or more.

    q : (count,), uint8. bits : of a code, 1 to 8.
    """
    counts = np.bincount(q, minlength=2**bits)
    middle = int(np.searchsorted(counts.cumsum(), (q.size + 1) // 2))
    size, centre, decay = min(_estimated(counts, one, bits) for one in sorted({0, int(counts.argmax()), middle}))
    if size >= most:
        return None
    symbols = _folds(centre, bits)[q]
    mask = symbols != 0
    others = symbols[mask] - np.uint8(1)
    share = min(SHARES - 1, others.size * SHARES // q.size)
    front = _written(np.packbits(mask), mask_table(share))
    back = _written(others, distance_table(decay, bits))
    packed = b"".join([bytes((centre, share, decay)), front, back[::-1]])
    return packed if len(packed) < most else None


def unmodelled(payload: memoryview, bits: int, count: int) -> np.ndarray:
    """The codes, (count,), uint8, that `modelled` made `payload` of; never makes more, whatever comes in.

    Raises
    ------
    ValueError : it holds something else; says what.
    """
    centre, share, decay = payload[:HEAD_BYTES]
    if centre >= 2**bits or share >= SHARES or decay >= DECAYS:
        raise ValueError(f"has model {centre}, {share}, {decay}: below {2**bits}, {SHARES}, {DECAYS} there are some")
    data = bytes(payload[HEAD_BYTES:])
    masks, distances = mask_table(share), distance_table(decay, bits)
    packed = _read(data, masks, -(-count // 8))
    mask = np.unpackbits(packed, count=count).view(bool)
    if np.unpackbits(packed)[count:].any():
        raise ValueError("says that numbers behind the last are off the centre")
    others = _read(data[::-1], distances, int(mask.sum()))
    sizes = [-(-int(table.lengths[part].sum()) // 8) for table, part in ((masks, packed), (distances, others))]
    if sum(sizes) != len(data):
        raise ValueError(f"has {len(data)} bytes of codes: these take {sum(sizes)}")
    symbols = np.zeros(count, np.uint8)
    symbols[mask] = others + np.uint8(1)
    return _codes(centre, bits)[symbols]


@functools.cache
def mask_table(share: int) -> Table:
    """For eight numbers of which `share` + 1/2 thirty-seconds lie off the centre, each for itself."""
    off, on = 2 * share + 1, 2 * SHARES - 1 - 2 * share
    return _table([off ** byte.bit_count() * on ** (8 - byte.bit_count()) for byte in range(256)])


@functools.cache
def distance_table(decay: int, bits: int) -> Table:
    """For distances, less one, each `_RATIOS[decay]` as likely as the one before, or 2^-12 of the first."""
    return _table(_weights(decay, bits))


def _weights(decay: int, bits: int) -> list[int]:
    weights = [_START]
    for _ in range(2**bits - 2):
        weights.append(weights[-1] * _RATIOS[decay] >> 32)
    return [max(weight, _START >> 12) for weight in weights]


def _estimated(counts: np.ndarray, centre: int, bits: int) -> tuple[int, int, int]:
    """Bytes with a centre, about; the centre, and the best decay for it."""
    folded = np.zeros(2**bits, np.int64)
    folded[_folds(centre, bits)] = counts
    total, others = int(counts.sum()), folded[1:]
    share = others.sum() / total
    unsure = 0.0 if share in (0, 1) else -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    costs = _costs(bits) @ others
    decay = int(costs.argmin())
    return HEAD_BYTES + int(total * unsure + costs[decay]) // 8, centre, decay


@functools.cache
def _costs(bits: int) -> np.ndarray:
    """(DECAYS, 2**bits - 1), float64: bits that a distance, less one, is worth with every decay."""
    weights = np.array([_weights(decay, bits) for decay in range(DECAYS)], np.float64)
    return np.log2(weights.sum(1, keepdims=True) / weights)


@functools.cache
def _codes(centre: int, bits: int) -> np.ndarray:
    """(2**bits,), uint8: the code of every symbol: 0 the centre, then by distance, above before below."""
    return np.array(sorted(range(2**bits), key=lambda code: (abs(code - centre), code < centre)), np.uint8)


@functools.cache
def _folds(centre: int, bits: int) -> np.ndarray:
    """(2**bits,), uint8: the symbol of every code."""
    return np.argsort(_codes(centre, bits)).astype(np.uint8)


def _table(weights: list[int]) -> Table:
    lengths = _lengths([*weights, *[0] * (_END - len(weights)), 1])
    words = _words(lengths)
    head, skipped = _head(lengths, words)
    return Table(lengths=np.array(lengths[:_END], np.uint8), words=np.array(words[:_END], np.uint32), head=head,
                 skipped=skipped)  # fmt: skip


def _lengths(weights: list[int], most: int = _MOST_BITS) -> list[int]:
    """Of Huffman codes, `most` bits at most; 0 where the weight is 0.

    The two lightest nodes are joined first; of two that weigh the same, the one of the lower number: a symbol's own, or
    for what was joined the next that is free.
    """
    while True:
        heap = [(weight, symbol) for symbol, weight in enumerate(weights) if weight]
        heapq.heapify(heap)
        parents: dict[int, int] = {}
        for made in itertools.count(len(weights)):
            if len(heap) == 1:
                break
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            parents[first[1]] = parents[second[1]] = made
            heapq.heappush(heap, (first[0] + second[0], made))
        depths = [_depth(symbol, parents) if weight else 0 for symbol, weight in enumerate(weights)]
        if max(depths) <= most:
            return depths
        weights = [(weight + 1) // 2 for weight in weights]


def _depth(node: int, parents: dict[int, int]) -> int:
    depth = 0
    while node in parents:
        node, depth = parents[node], depth + 1
    return depth


def _words(lengths: list[int]) -> list[int]:
    """Deflate's codes of these lengths (RFC 1951, 3.2.2), the first bit lowest."""
    words, code = [0] * len(lengths), 0
    for length in range(1, max(lengths) + 1):
        for symbol, one in enumerate(lengths):
            if one == length:
                words[symbol] = int(f"{code:0{length}b}"[::-1], 2)
                code += 1
        code <<= 1
    return words


def _head(lengths: list[int], words: list[int]) -> tuple[bytes, int]:
    """A block's head (RFC 1951, 3.2.7) without distances, in front of it empty blocks, behind it symbols to be skipped,
    so that it ends with a byte; and how many symbols these are."""
    of_lengths = _lengths([lengths.count(length) + (length == 0) for length in range(19)], 7)
    codes = _words(of_lengths)
    plain = [(1, 1), (2, 2), (_END + 1 - 257, 5), (0, 5), (15, 4)]
    plain += [(of_lengths[one], 3) for one in _ORDER]
    plain += [(codes[one], of_lengths[one]) for one in (*lengths, 0)]
    bits = sum(size for _, size in plain)
    odd = next((symbol for symbol in range(_END) if lengths[symbol] % 2), None)
    skip = [] if bits % 2 == 0 else [odd]
    if skip == [None]:
        raise AssertionError("no code has an odd length")
    plain += [(words[symbol], lengths[symbol]) for symbol in skip if symbol is not None]
    bits = sum(size for _, size in plain)
    before = next(n for n in range(8) if (bits + n * _FIXED_EMPTY_BITS) % 8 == 0)
    number = at = 0
    for value, size in [(_FIXED_EMPTY, _FIXED_EMPTY_BITS)] * before + plain:
        number |= value << at
        at += size
    return number.to_bytes(at // 8, "little"), len(skip)


def _written(symbols: np.ndarray, table: Table) -> bytes:
    """The symbols' words one after the other, zeros up to the next byte."""
    if not symbols.size:
        return b""
    lengths, words = table.lengths[symbols], table.words[symbols]
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    # each word lies in the 16 bits where it starts and the 16 behind; no two share a bit, so that a sum is an or
    sums = np.bincount(starts >> 4, words.astype(np.uint64) << (starts & 15).astype(np.uint64)).astype(np.uint64)
    halves = np.zeros(sums.size + 1, np.uint64)
    halves[:-1] = sums & np.uint64(0xFFFF)
    halves[1:] += sums >> np.uint64(16)
    return halves.astype("<u2").tobytes()[: -(-int(ends[-1]) // 8)]


def _read(data: bytes, table: Table, count: int) -> np.ndarray:
    """So many symbols from the front of `data`, (count,), uint8."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = stream.decompress(table.head + data, count + table.skipped) if count else b""
    except zlib.error as error:
        raise ValueError(f"holds no codes of its model ({error})") from error
    symbols = np.frombuffer(unpacked, np.uint8)[table.skipped :]
    if symbols.size != count:
        raise ValueError(f"holds {symbols.size} symbols where {count} must be")
    return symbols
