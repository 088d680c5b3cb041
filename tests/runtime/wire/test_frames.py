"""Frames: what went in comes out, and whatever else arrives is refused without taking memory."""

import math
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modeltree.errors import ConfigError, DataError, FormatError
from runtime.wire.codec import Packing
from runtime.wire.frames import FrameError, decode, encode, largest_frame_bytes, read_header

ALL_BITS = [*range(1, 17), 32]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=8, max_side=4)
KB = 1024


def features(shape=(2, 8, 6, 6), seed=0):
    """As after a ReLU: half zeros, the rest small."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32).clip(0)


def pixels(shape=(1, 3, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def frame_of(**said):
    """A frame with a right checksum that says what it is told to, true or not."""
    fields = {
        "magic": b"NMF", "version": 1, "kind": 0, "method": 0, "bits": 8, "rank": None, "lo": 0.0, "step": 1.0,
        "length": None, "shape": (2, 3), "payload": bytes(range(6)),
    } | said  # fmt: skip
    shape, payload = fields["shape"], fields["payload"]
    rank = len(shape) if fields["rank"] is None else fields["rank"]
    length = len(payload) if fields["length"] is None else fields["length"]
    names = ("magic", "version", "kind", "method", "bits")
    head = struct.pack("<3s5BffI", *(fields[name] for name in names), rank, fields["lo"], fields["step"], length)
    return checked(head + struct.pack(f"<{len(shape)}I", *shape) + payload)


def checked(body):
    return body + struct.pack("<I", zlib.crc32(body))


def deflated(data):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


@given(
    x=arrays.arrays(np.float32, SHAPES, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    bits=st.sampled_from(ALL_BITS),
)
@settings(max_examples=300)
def test_features_come_back_within_half_a_step(x, bits):
    frame = encode(x, bits)
    back = decode(frame, shape=x.shape)
    header = read_header(frame)
    assert back.dtype == np.float32
    assert back.shape == x.shape
    assert (header.shape, header.bits, header.pixels) == (x.shape, bits, False)
    assert len(frame) <= largest_frame_bytes(x.shape)
    if bits == 32:
        assert back.tobytes() == x.tobytes()
    else:
        wide = x.astype(np.float64)
        assert np.abs(back - wide).max() <= header.step / 2 + 2.0**-20 * np.abs(wide).max()


@given(x=arrays.arrays(np.uint8, SHAPES))
def test_pixels_come_back_as_they_were(x):
    frame = encode(x, 8)
    back = decode(frame, shape=x.shape, dtype=np.uint8)
    assert back.dtype == np.uint8
    assert (back == x).all()
    assert read_header(frame).pixels
    assert len(frame) <= largest_frame_bytes(x.shape, np.uint8)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_what_comes_out_is_the_receivers_own(bits):
    x = features()
    frame = bytearray(encode(x, bits))
    back = decode(frame, shape=x.shape)
    kept = back.copy()
    frame[:] = bytes(len(frame))
    assert back.flags.writeable
    assert (back == kept).all()


@pytest.mark.parametrize("x", [pixels((1, 3, 2, 2)), np.zeros((1, 3, 32, 32), np.uint8)])
def test_pixels_that_come_out_are_the_receivers_own(x):
    frame = bytearray(encode(x, 8))
    back = decode(frame, shape=x.shape, dtype=np.uint8)
    frame[:] = b"\xff" * len(frame)
    back[0, 0, 0, 0] = x[0, 0, 0, 0]
    assert (back == x).all()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_equal_tensors_give_equal_bytes_whatever_their_strides(bits):
    x = features()
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    assert encode(x, bits) == encode(x.copy(), bits) == encode(turned, bits)


def test_pixels_of_any_strides_come_back():
    x = pixels((2, 8, 8, 3)).transpose(0, 3, 1, 2)
    assert (decode(encode(x, 8), shape=x.shape, dtype=np.uint8) == x).all()


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda frame: memoryview(b"ab" + frame + b"c")[2:-1]])
def test_any_buffer_is_read(wrap):
    x = features()
    for bits in (3, 8, 12, 32):
        assert (decode(wrap(encode(x, bits)), shape=x.shape) == decode(encode(x, bits), shape=x.shape)).all()


def test_the_frame_of_the_specification_has_the_bytes_printed_there():
    text = (Path(__file__).parents[3] / "docs/wire.md").read_text(encoding="utf-8")
    rows = text.split("```hex\n")[1].split("```")[0].splitlines()
    printed = bytes.fromhex("".join(row[:29] for row in rows))
    x = np.array([[[[0, 0.25, 1], [1.5, 2, 3.75]]]], np.float32)
    assert encode(x, 4) == printed
    assert (decode(printed, shape=(1, 1, 2, 3)) == x).all()


@pytest.mark.parametrize("bits", [-1, 0, 17, 31, 33])
def test_a_width_that_no_frame_has_is_refused(bits):
    with pytest.raises(ConfigError, match=f"bits is {bits}"):
        encode(features(), bits)


def test_pixels_have_eight_bits():
    with pytest.raises(ConfigError, match="uint8 pixels must have 8"):
        encode(pixels(), 4)


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_sent(bits, bad):
    x = features()
    x[1, 2, 3, 4] = bad
    with pytest.raises(DataError, match=rf"has {bad} at \(1, 2, 3, 4\)"):
        encode(x, bits)


@pytest.mark.parametrize("x", [np.float32(1), np.zeros((1,) * 9, np.float32), np.zeros((2, 0), np.float32)])
def test_a_shape_that_no_frame_has_is_not_sent(x):
    with pytest.raises(DataError, match="must have 1 to 8 dimensions"):
        encode(np.asarray(x), 8)


def test_another_type_is_not_sent():
    with pytest.raises(DataError, match=r"float64 .* must be float32"):
        encode(features().astype(np.float64), 8)


def test_what_is_too_large_for_a_frame_is_not_sent():
    huge = np.broadcast_to(np.float32(0), (2**15, 2**14))
    with pytest.raises(DataError, match="268435456 numbers; reshape it"):
        encode(huge, 8)


@pytest.mark.parametrize("shape", [(), (0, 3), (2**15, 2**14), (1,) * 9, (-1, 3)])
def test_a_receiver_that_expects_what_no_frame_has_is_told(shape):
    with pytest.raises(ConfigError, match="shape is"):
        decode(encode(features(), 8), shape=shape)


def test_a_receiver_that_expects_another_type_is_told():
    with pytest.raises(ConfigError, match="type is float64"):
        decode(encode(features(), 8), shape=(2, 8, 6, 6), dtype=np.float64)


# ---------------------------------------------------------------------------------------------- damage and malice

SMALL = {
    "packed": (encode(features((1, 2, 2, 2)), 5), (1, 2, 2, 2), np.float32),
    "modelled": (encode(features((1, 16, 5, 5)) ** 4, 4), (1, 16, 5, 5), np.float32),
    "deflated": (encode(np.resize(np.float32([0, 15, 3]), (1, 300)), 4), (1, 300), np.float32),
    "two planes": (encode(features((1, 4, 8, 8)).round(), 12), (1, 4, 8, 8), np.float32),
    "floats": (encode(features((1, 3, 2, 2)), 32), (1, 3, 2, 2), np.float32),
    "pixels": (encode(pixels((1, 3, 2, 2)), 8), (1, 3, 2, 2), np.uint8),
}


def test_the_small_frames_are_of_every_kind():
    assert [read_header(SMALL[name][0]).method for name in SMALL] == [
        Packing.PACKED, Packing.MODELLED, Packing.DEFLATED, Packing.DEFLATED, Packing.PACKED, Packing.PACKED,
    ]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_every_flipped_bit_is_noticed(name):
    frame, shape, dtype = SMALL[name]
    for bit in range(8 * len(frame)):
        spoilt = bytearray(frame)
        spoilt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            decode(spoilt, shape=shape, dtype=dtype)


@pytest.mark.parametrize("name", SMALL)
def test_every_cut_is_noticed(name):
    frame, shape, dtype = SMALL[name]
    for length in range(len(frame)):
        for spoilt in (frame[:length], frame[len(frame) - length :]):
            with pytest.raises(FrameError):
                decode(spoilt, shape=shape, dtype=dtype)


@given(name=st.sampled_from(list(SMALL)), more=st.binary(min_size=1, max_size=50))
def test_every_addition_is_noticed(name, more):
    frame, shape, dtype = SMALL[name]
    for spoilt in (frame + more, more + frame):
        with pytest.raises(FrameError):
            decode(spoilt, shape=shape, dtype=dtype)


@given(data=st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises(FrameError):
        decode(data, shape=(2, 3))


LIES = {
    "magic": ({"magic": b"PNG"}, "magic", "begins with b'PNG': it must begin with b'NMF'"),
    "version": ({"version": 2}, "version", "has version 2: 1 is read here"),
    "longer than it is": ({"length": 7}, "length", "has 38 bytes: it says 39"),
    "shorter than it is": ({"length": 5}, "length", "has 38 bytes: it says 37"),
    "kind": ({"kind": 4}, "header", "kind 4"),
    "a picture of two": ({"kind": 2, "bits": 8}, "header", "a picture of shape"),
    "method": ({"method": 3}, "header", "method 3"),
    "modelled, but no smaller": ({"method": 2}, "header", "modelled bytes of 8 bits"),
    "no dimensions": ({"shape": (), "payload": b"1"}, "header", "0 dimensions"),
    "a size of nothing": ({"shape": (0, 3), "payload": b""}, "header", r"shape \(0, 3\)"),
    "sizes beyond measure": ({"shape": (2**32 - 1,) * 2}, "header", "numbers at most"),
    "0 bits": ({"bits": 0}, "header", "bits 0"),
    "17 bits": ({"bits": 17}, "header", "bits 17"),
    "pixels of 4 bits": ({"kind": 1, "bits": 4}, "header", "bits 4"),
    "pixels of 32 bits": ({"kind": 1, "bits": 32}, "header", "bits 32"),
    "pixels with a step": ({"kind": 1, "step": 2.0}, "header", "0 and 1, since it is not quantised"),
    "floats with a lo": ({"bits": 32, "lo": 1.0, "payload": bytes(24)}, "header", "0 and 1, since"),
    "a step that is nan": ({"step": math.nan}, "header", "step nan: it must be finite"),
    "a lo without end": ({"lo": -math.inf}, "header", "lo -inf"),
    "a step backwards": ({"step": -1.0}, "header", "step not negative"),
    "deflated floats": ({"bits": 32, "method": 1}, "header", "deflated bytes of 32 bits: it must be packed"),
    "deflated for nothing": ({"method": 1, "payload": bytes(6)}, "header", "packed, or fewer than 6"),
    "too few codes": ({"payload": bytes(5)}, "header", "5 packed bytes of 8 bits: it must be 6"),
    "too many codes": ({"payload": bytes(7)}, "header", "7 packed bytes of 8 bits: it must be 6"),
    "another shape": ({"shape": (3, 2)}, "shape", r"holds float32 \(3, 2\): float32 \(2, 3\) is expected"),
    "the batch left out": ({"shape": (6,)}, "shape", "is expected"),
    "pixels": ({"kind": 1}, "shape", r"holds uint8 \(2, 3\)"),
    "a float that is nan": ({"bits": 32, "payload": struct.pack("<6f", 0, 1, math.nan, 0, 0, 0)}, "payload", "has nan"),
    "not deflated": ({"method": 1, "payload": b"\xff\xff"}, "payload", "no deflate stream"),
    "larger than any": ({"shape": (2, 3), "payload": bytes(40)}, "length", "has 56 at most"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_lies_is_refused_with_a_reason(lie):
    said, reason, why = LIES[lie]
    with pytest.raises(FrameError, match=why) as refused:
        decode(frame_of(**said), shape=(2, 3))
    assert refused.value.reason == reason
    assert isinstance(refused.value, FormatError)


def test_nine_dimensions_are_refused():
    with pytest.raises(FrameError, match="9 dimensions: they must be"):
        read_header(frame_of(shape=(1,) * 9, payload=b"1"))


def test_a_frame_that_tells_the_truth_is_read():
    assert (decode(frame_of(), shape=(2, 3)) == np.arange(6).reshape(2, 3)).all()


def test_damage_is_told_from_lies():
    with pytest.raises(FrameError, match="was damaged") as refused:
        decode(frame_of()[:-1] + b"\x00", shape=(2, 3))
    assert refused.value.reason == "checksum"


@pytest.mark.parametrize(("lo", "step"), [(3.4e38, 3.4e38), (-3.4e38, 3.4e38), (3.4e38, 0.0)])
def test_numbers_beyond_float32_stop_at_the_largest(lo, step):
    assert np.isfinite(decode(frame_of(lo=lo, step=step), shape=(2, 3))).all()


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(frame, **expected):
    with pytest.raises(FrameError) as found:
        decode(frame, **expected)
    return found.value.reason


def test_a_decompression_bomb_goes_off_nowhere():
    bomb = deflated(bytes(200 * KB * KB))
    assert len(bomb) > 190 * KB
    shape = (1, 64, 64, 64)  # room for the bomb's bytes, but not for what is in it
    frame = frame_of(method=1, shape=shape, payload=bomb)
    assert len(frame) < largest_frame_bytes(shape)
    peak = peak_bytes(lambda: refused(frame, shape=shape))
    assert refused(frame, shape=shape) == "payload"
    assert peak < 3 * math.prod(shape)


def test_a_frame_that_says_it_is_huge_takes_nothing():
    frame = frame_of(shape=(2**14, 2**14), payload=b"")
    assert peak_bytes(lambda: refused(frame, shape=(2, 3))) < 64 * KB


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("even", [True, False])
def test_decoding_takes_no_more_than_it_says(bits, even):
    shape = (1, 64, 32, 32)
    x = np.random.default_rng(0).random(shape, np.float32) if even else features(shape)
    frame = encode(x, bits)
    assert peak_bytes(lambda: decode(frame, shape=shape)) <= (4 + 12) * x.size + 64 * KB


@pytest.mark.parametrize(("bits", "bytes_each"), [(8, 1), (16, 2)])
def test_numbers_beyond_float32_take_no_more_either(bits, bytes_each):
    shape = (1, 64, 32, 32)
    payload = b"\xff" * math.prod(shape) * bytes_each
    frame = frame_of(bits=bits, lo=-3e38, step=3e38, shape=shape, payload=payload)
    assert peak_bytes(lambda: decode(frame, shape=shape)) <= (4 + 12) * math.prod(shape) + 64 * KB


def mutated(frame, rng):
    """A frame with something done to it; half of them with a checksum that is right again."""
    body = bytearray(frame[:-4] if (mended := rng.random() < 0.5) else frame)
    for _ in range(rng.choice((1, 1, 2, 5))):
        where, what = rng.randrange(len(body)), rng.randrange(7)
        if what <= 1:
            body[where] = rng.randrange(256)
        elif what == 2:
            body[where] ^= 1 << rng.randrange(8)
        elif what == 3:
            body[where : where + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        elif what == 4:
            body[rng.randrange(3, 8)] = rng.choice((0, 1, 2, 8, 12, 32, 255))
        elif what == 5:
            at = rng.choice((8, 12, 16, 20, 24))
            body[at : at + 4] = rng.choice((b"\x00" * 4, b"\xff" * 4, b"\x00\x00\xc0\x7f", b"\x01\x00\x00\x00"))
        else:
            del body[max(24, where) :]
        if mended and len(body) >= 36:
            struct.pack_into("<I", body, 16, len(body) - 36)
    return checked(bytes(body)) if mended else bytes(body)


def decode_mutations(count, rng):
    """Decode so many mutated frames; how many were refused for which reason, and how many were taken."""
    found = {}
    names = list(SMALL)
    for _ in range(count):
        frame, shape, dtype = SMALL[rng.choice(names)]
        spoilt = mutated(frame, rng)
        try:
            x = decode(spoilt, shape=shape, dtype=dtype)
        except FrameError as error:
            found[error.reason] = found.get(error.reason, 0) + 1
            continue
        assert x.shape == shape
        assert x.dtype == dtype
        assert np.isfinite(x).all()
        found["taken"] = found.get("taken", 0) + 1
    return found


def test_a_hundred_thousand_mutations_are_refused_or_harmless():
    found = decode_mutations(100_000, random.Random(0))
    assert sum(found.values()) == 100_000
    # each of the doors was knocked at, those behind the checksum too
    assert set(found) == {"length", "magic", "version", "checksum", "header", "shape", "payload", "taken"}
    assert found["payload"] > 500


def test_mutations_take_no_memory():
    rng = random.Random(1)
    decode_mutations(200, rng)  # imports and caches
    assert peak_bytes(lambda: decode_mutations(3000, rng)) < 256 * KB
