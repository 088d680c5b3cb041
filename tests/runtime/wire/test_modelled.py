"""Codes by Huffman codes that both ends know: as docs/wire.md says it, close to the entropy, and safe to read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.wire.codec import FrameError, Packing, pack, unpack
from runtime.wire.modelled import DECAYS, HEAD_BYTES, SHARES, distance_table, mask_table, modelled, unmodelled

ENDLESS = 10**9


def sparse(count, bits, share=0.3, step=0.2, seed=0):
    """Codes of which a share is not 0 and falls off like a geometric law."""
    rng = np.random.default_rng(seed)
    values = np.minimum(rng.exponential(step * 2**bits, count).astype(int) + 1, 2**bits - 1)
    return np.where(rng.random(count) < share, values, 0).astype(np.uint8)


def entropy_bytes(q):
    counts = np.unique(q, return_counts=True)[1]
    return (counts * np.log2(q.size / counts)).sum() / 8


def read_by_the_specification(payload, bits, count):
    """docs/wire.md, bit by bit; from our code only the lengths of the two Huffman codes."""
    centre, share, decay = payload[:3]
    by_distance = sorted(range(2**bits), key=lambda code: (abs(code - centre), code < centre))

    def symbols(data, lengths, number):
        words, code = {}, 0
        for length in range(1, 16):
            for symbol in range(len(lengths)):
                if lengths[symbol] == length:
                    words[f"{code:0{length}b}"] = symbol
                    code += 1
            code *= 2
        stream = iter("".join(f"{byte:08b}"[::-1] for byte in data))
        for _ in range(number):
            word = ""
            while word not in words:
                word += next(stream)
            yield words[word]

    masks = symbols(payload[3:], mask_table(share).lengths, -(-count // 8))
    mask = "".join(f"{byte:08b}" for byte in masks)[:count]
    others = symbols(payload[:2:-1], distance_table(decay, bits).lengths, mask.count("1"))
    return [by_distance[next(others) + 1] if one == "1" else centre for one in mask]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ["sparse", "two-sided", "even", "constant"])
def test_codes_come_back_and_are_what_the_specification_says(bits, kind):
    rng = np.random.default_rng(bits)
    q = {
        "sparse": lambda: sparse(203, bits),
        "two-sided": lambda: rng.normal(2 ** (bits - 1), 2**bits / 10, 203).clip(0, 2**bits - 1).astype(np.uint8),
        "even": lambda: rng.integers(0, 2**bits, 203, dtype=np.uint8),
        "constant": lambda: np.full(203, 2**bits - 1, np.uint8),
    }[kind]()
    payload = modelled(q, bits, ENDLESS)
    assert read_by_the_specification(payload, bits, q.size) == q.tolist()
    np.testing.assert_array_equal(unmodelled(memoryview(payload), bits, q.size), q)


def test_two_codes_by_hand():
    """Weights 2^30, 2^29, 2^28 and 1 for the end of a block: 1, 2, 3 and 3 bits, the first bit lowest."""
    table = distance_table(0, 2)
    assert table.lengths.tolist() == [1, 2, 3, *[0] * 253]
    assert table.words[:3].tolist() == [0b0, 0b01, 0b011]
    # numbers 0 2 0 1 3 of 2 bits; the mask 01011000 is a byte of three that are off; then 1, 0, 2: 10, 0, 110
    payload = modelled(np.array([0, 2, 0, 1, 3], np.uint8), 2, ENDLESS)
    assert payload[-1] == 0b011_0_01


@pytest.mark.parametrize("table", [*map(mask_table, range(SHARES)), *(distance_table(one, 8) for one in range(DECAYS))])
def test_every_table_is_a_whole_code_but_for_the_end_of_a_block(table):
    used = table.lengths[table.lengths > 0]
    spent = sum(2.0 ** -int(one) for one in used)
    assert 1 - 2**-8 <= spent < 1
    assert used.max() <= 15


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("share", [0.15, 0.4, 0.9])
def test_sparse_maps_come_within_three_percent_of_their_entropy(bits, share):
    q = sparse(8192, bits, share, step=0.1)
    method, payload = pack(q, bits)
    assert len(payload) <= 1.03 * entropy_bytes(q)
    assert method is Packing.MODELLED or len(payload) <= len(modelled(q, bits, ENDLESS))


def test_small_maps_need_no_table():
    q = sparse(1024, 4)
    method, payload = pack(q, 4)
    assert method is Packing.MODELLED
    assert len(payload) <= 1.03 * entropy_bytes(q) + HEAD_BYTES


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "from 3 on"),
        (b"\x10\x00\x00", "has model 16, 0, 0"),
        (b"\x00\x20\x00", "has model 0, 32, 0"),
        (b"\x00\x00\x28", "has model 0, 0, 40"),
        (b"\x00\x00\x00", "holds 0 symbols where 2 must be"),
        (modelled(sparse(16, 4), 4, ENDLESS)[:-1], "must be|take"),
        (modelled(sparse(16, 4), 4, ENDLESS) + b"\0", "take"),
        (b"\x00\x00\x00" + b"\xff" * 9, "symbols|take|no codes"),
    ],
)
def test_what_is_none_is_refused(payload, why):
    with pytest.raises(FrameError, match=why):
        unpack(memoryview(payload), Packing.MODELLED, 4, 16)


def test_numbers_behind_the_last_are_refused():
    payload = modelled(np.array([0, 0, 0, 0, 3, 0, 0, 0], np.uint8), 4, ENDLESS)
    with pytest.raises(ValueError, match="behind the last"):
        unmodelled(memoryview(payload), 4, 4)


def test_wide_codes_have_no_model():
    with pytest.raises(FrameError, match="of 9 bits"):
        unpack(memoryview(bytes(10)), Packing.MODELLED, 9, 4)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(min_size=3, max_size=60), bits=st.integers(1, 8), count=st.integers(1, 200))
def test_any_bytes_are_codes_or_are_refused(data, bits, count):
    data = bytes((data[0] % 2**bits, data[1] % SHARES, data[2] % DECAYS)) + data[3:]
    try:
        q = unpack(memoryview(data), Packing.MODELLED, bits, count)
    except FrameError:
        return
    assert q.shape == (count,)
    assert q.max() < 2**bits
    assert read_by_the_specification(data, bits, count) == q.tolist()
