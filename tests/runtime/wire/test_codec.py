"""Codes and their bytes: what comes back is within half a step, and bytes that lie are refused."""

import zlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modeltree.errors import ConfigError, DataError
from runtime.wire.codec import FrameError, Packing, dequantise, pack, packed_bytes, quantise, unpack

WIDTHS = range(1, 17)
LARGEST = np.finfo(np.float32).max
SMALLEST = np.float32(1.4e-45)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=6)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def tensors(elements=FLOATS):
    return arrays.arrays(np.float32, SHAPES, elements=elements)


def f32(*values):
    return np.array(values, np.float32)


def assert_close(x, bits):
    """Within half a step, and 2**-20 of the largest magnitude for what float32 rounds."""
    codes = quantise(x, bits)
    back = dequantise(codes)
    assert back.dtype == np.float32
    assert back.shape == x.shape
    assert codes.q.max() <= 2**bits - 1
    error = np.abs(back.astype(np.float64) - x.astype(np.float64)).max()
    assert error <= codes.step.astype(np.float64) / 2 + 2.0**-20 * np.abs(x.astype(np.float64)).max()


def test_codes_are_those_of_the_equation():
    codes = quantise(f32(-1, 0.1, 0.4, 1), 2)  # 3 (x + 1) / 2 = 0, 1.65, 2.1, 3
    assert codes.q.tolist() == [0, 2, 2, 3]
    assert codes.q.dtype == np.uint8
    assert codes.lo == -1
    assert codes.step == np.float32(2 / 3)


@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_follow_the_equation_at_every_width(bits):
    x = np.random.default_rng(bits).normal(3, 2, (8, 5, 5)).astype(np.float32)
    wide = x.astype(np.float64)
    exact = (2**bits - 1) * (wide - wide.min()) / (wide.max() - wide.min())
    codes = quantise(x, bits)
    assert np.abs(codes.q - exact).max() <= 0.5 + 2.0**-6  # the step is rounded up by 2**-23 of itself at most
    assert (codes.q.min(), codes.q.max()) == (0, 2**bits - 1)
    assert codes.q.dtype == (np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_what_lies_on_the_steps_comes_back_as_it_was(bits):
    steps = np.unique(np.linspace(0, 2**bits - 1, 50).round()).astype(np.float32)
    x = f32(-7) + steps / 4
    assert (dequantise(quantise(x, bits)) == x).all()


@given(x=tensors(), bits=st.integers(2, 16))
def test_what_comes_back_is_within_half_a_step(x, bits):
    assert_close(x, bits)


@given(x=tensors(st.floats(-(2.0**126), 2.0**126, width=32)))
def test_one_bit_is_within_half_a_step_too(x):
    assert_close(x, 1)


@given(x=tensors(st.floats(-(2.0**-130), 2.0**-130, width=32)), bits=st.integers(1, 16))
def test_denormals_are_within_half_a_step(x, bits):
    codes = quantise(x, bits)
    error = np.abs(dequantise(codes).astype(np.float64) - x).max()
    assert error <= max(np.float64(codes.step) / 2, np.float64(SMALLEST) / 2)


@given(x=tensors(st.floats(1e6, 1e6 + 1, width=32)), bits=st.integers(1, 16))
def test_a_small_range_far_from_zero_is_within_half_a_step(x, bits):
    assert_close(x, bits)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("value", [0, -0.0, 1, -2.5, LARGEST, -LARGEST, SMALLEST])
def test_a_constant_tensor_comes_back_as_it_was(bits, value):
    for x in (np.full((3, 4), value, np.float32), f32(value)):
        codes = quantise(x, bits)
        assert codes.step == 0
        assert not codes.q.any()
        assert (dequantise(codes) == x).all()


@pytest.mark.parametrize("bits", range(2, 17))
def test_the_whole_range_of_float32_survives(bits):
    x = f32(-LARGEST, -1, 0, 1, LARGEST)
    assert_close(x, bits)
    assert np.isfinite(dequantise(quantise(x, bits))).all()


def test_one_bit_refuses_a_range_that_it_cannot_step():
    with pytest.raises(DataError, match=r"spans 6.81e\+38, which 1 bit cannot"):
        quantise(f32(-LARGEST, LARGEST), 1)


@pytest.mark.parametrize(("bad", "named"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_what_is_not_finite_is_refused_with_its_place(bad, named):
    x = np.zeros((2, 3, 4), np.float32)
    x[1, 0, 2] = bad
    with pytest.raises(DataError, match=rf"has {named} at \(1, 0, 2\): it must be finite"):
        quantise(x, 8)


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros(3, np.int32), np.zeros(0, np.float32), np.zeros((2, 0), "f4")])
def test_what_is_no_feature_map_is_refused(x):
    with pytest.raises(DataError, match="must be float32 and not empty"):
        quantise(x, 8)


@pytest.mark.parametrize("bits", [-1, 0, 17, 32])
def test_a_width_outside_is_refused(bits):
    with pytest.raises(ConfigError, match=f"bits is {bits}: it must be within 1..16"):
        quantise(f32(0, 1), bits)


def test_the_input_is_left_alone_and_any_strides_do():
    whole = np.random.default_rng(0).normal(size=(4, 6, 6)).astype(np.float32)
    kept = whole.copy()
    for x in (whole[::2, ::-1, 1::2], whole.transpose(2, 0, 1), np.asfortranarray(whole)):
        codes, plain = quantise(x, 8), quantise(np.ascontiguousarray(x), 8)
        assert (codes.q == plain.q).all()
        assert codes.q.flags.c_contiguous
    assert (whole == kept).all()


@given(x=tensors(), bits=st.integers(2, 16))
def test_the_step_is_never_less_than_the_equations(x, bits):
    codes = quantise(x, bits)
    exact = (float(x.max()) - float(x.min())) / (2**bits - 1)
    assert exact <= float(codes.step) <= exact * (1 + 2.0**-22) + float(SMALLEST)


def test_a_signalling_nan_is_refused_like_any():
    x = np.array([0, 0x7FA00000, 0], np.uint32).view(np.float32)
    with pytest.raises(DataError, match="has nan at"):
        quantise(x, 8)


def test_a_zero_at_the_bottom_has_no_sign():
    for x in (f32(-0.0, 0.0, 1), f32(0.0, -0.0, 1), f32(-0.0, -0.0, 1)):
        assert not np.signbit(quantise(x, 8).lo)


def codes_of(count, bits, seed, skewed=True):
    """Codes as feature maps have them (mostly small), or evenly spread."""
    rng = np.random.default_rng(seed)
    share = rng.exponential(0.05, count).clip(0, 1) if skewed else rng.random(count)
    return (share * (2**bits - 1)).round().astype(np.uint8 if bits <= 8 else np.uint16)


@given(count=st.integers(1, 300), bits=st.integers(1, 16), seed=st.integers(0, 2**32), skewed=st.booleans())
@settings(max_examples=500)
def test_codes_come_back_as_they_were(count, bits, seed, skewed):
    q = codes_of(count, bits, seed, skewed)
    method, payload = pack(q, bits)
    back = unpack(memoryview(payload), method, bits, count)
    assert back.dtype == q.dtype
    assert (back == q).all()
    assert len(payload) <= packed_bytes(count, bits)
    assert (method is Packing.PACKED) == (len(payload) == packed_bytes(count, bits))


@pytest.mark.parametrize("bits", WIDTHS)
def test_large_skewed_codes_are_coded_and_come_back(bits):
    q = codes_of(50_000, bits, 1)
    method, payload = pack(q, bits)
    assert method is not Packing.PACKED
    assert (unpack(memoryview(payload), method, bits, q.size) == q).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_even_codes_take_exactly_their_bits(bits):
    q = codes_of(4001, bits, 2, skewed=False)
    _, payload = pack(q, bits)
    assert len(payload) <= -(-4001 * bits // 8) + 1  # above 8 bits the two planes each end at a whole byte
    if bits in (8, 16):
        even = np.arange(256, dtype=q.dtype) * (1 if bits == 8 else 257)
        assert pack(even, bits)[0] is Packing.PACKED


@pytest.mark.parametrize(
    ("bits", "codes", "payload"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], "b1 80"),  # 10110001 1(0000000)
        (3, [1, 2, 3], "29 80"),  # 001 010 01|1 (0000000)
        (4, [1, 2, 15], "12 f0"),
        (5, [31, 0, 1], "f8 02"),  # 11111 000|00 00001 (0)
        (8, [1, 255], "01 ff"),
        (12, [0x123, 0xFED], "1f 23 ed"),  # high plane: 1, f; low plane: 23, ed
        (16, [0x1234, 0xFEDC], "12 fe 34 dc"),
    ],
)
def test_packed_bytes_are_those_of_the_specification(bits, codes, payload):
    q = np.array(codes, np.uint8 if bits <= 8 else np.uint16)
    assert pack(q, bits) == (Packing.PACKED, bytes.fromhex(payload))
    assert unpack(memoryview(bytes.fromhex(payload)), Packing.PACKED, bits, len(codes)).tolist() == codes


def inflated(payload):
    return zlib.decompress(payload, -15)


@pytest.mark.parametrize(
    ("bits", "byte"),
    [(1, 0b11111111), (2, 0b11111111), (3, 0b00111111), (4, 0b11111111), (5, 0b11111), (7, 0b1111111), (8, 0b11111111)],
)
def test_small_codes_share_a_byte_of_the_deflated_plane(bits, byte):
    plane = deflated(bytes([byte]) * (960 // (8 // bits)))
    assert unpack(memoryview(plane), Packing.DEFLATED, bits, 960).tolist() == [2**bits - 1] * 960


def test_what_no_model_fits_is_deflated():
    q = np.resize(np.array([0, 15, 3], np.uint8), 3000)  # in 4 bits: three bytes, again and again
    method, payload = pack(q, 4)
    assert method is Packing.DEFLATED
    assert inflated(payload) == bytes.fromhex("0f 30 f3") * 500


def test_the_high_plane_goes_first_and_shares_bytes_too():
    method, payload = pack(np.full(960, 0x3AB, np.uint16), 10)
    assert method is Packing.DEFLATED
    assert inflated(payload) == b"\xff" * 240 + b"\xab" * 960


def zero_order_bytes(q):
    counts = np.unique(q, return_counts=True)[1]
    return float(-(counts * np.log2(counts / q.size)).sum() / 8)


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_coding_comes_close_to_the_entropy(bits):
    q = codes_of(16384, bits, 3)
    assert len(pack(q, bits)[1]) <= 1.03 * zero_order_bytes(q)


def deflated(data):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


PACKED, DEFLATED = Packing.PACKED, Packing.DEFLATED


@pytest.mark.parametrize(
    ("method", "bits", "count", "payload", "why"),
    [
        (PACKED, 8, 3, b"12", "is 2 bytes of codes: it must be 3"),
        (PACKED, 8, 3, b"1234", "is 4 bytes of codes: it must be 3"),
        (PACKED, 4, 3, b"\x12\x3f", "belong to no 4-bit code"),
        (PACKED, 3, 1, b"\x01", "belong to no 3-bit code"),
        (PACKED, 12, 1, b"\x01\x00", "belong to no 4-bit code"),
        (DEFLATED, 3, 2, deflated(b"\x40"), "belong to no 3-bit code"),
        (DEFLATED, 3, 1, deflated(b"\x01"), "belong to no 3-bit code"),
        (DEFLATED, 5, 2, deflated(b"\x01\x20"), "belong to no 5-bit code"),
        (DEFLATED, 13, 1, deflated(b"\x20\x00"), "belong to no 5-bit code"),
        (DEFLATED, 8, 3, deflated(b"12"), "is 2 bytes of codes: it must be 3"),
        (DEFLATED, 8, 3, deflated(b"1234"), "inflates to more than 3 bytes"),
        (DEFLATED, 8, 3, deflated(b"123")[:-1], "stops before the end"),
        (DEFLATED, 8, 3, deflated(b"123") + b"x", "goes on behind the end"),
        (DEFLATED, 8, 3, b"", "stops before the end"),
        (DEFLATED, 8, 3, b"\xff\xff\xff", "is no deflate stream"),
    ],
)
def test_bytes_that_are_no_codes_are_refused(method, bits, count, payload, why):
    with pytest.raises(FrameError, match=why) as refused:
        unpack(memoryview(payload), method, bits, count)
    assert refused.value.reason == "payload"


@given(data=st.binary(max_size=40), bits=st.integers(1, 16), method=st.sampled_from(Packing), count=st.integers(1, 40))
def test_any_bytes_are_codes_or_are_refused(data, bits, method, count):
    try:
        q = unpack(memoryview(data), method, bits, count)
    except FrameError:
        return
    assert q.shape == (count,)
    assert q.max() < 2**bits
    again = pack(q, bits)
    assume(again[0] is method is Packing.PACKED)
    assert again[1] == data
