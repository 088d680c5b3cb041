"""Weights without the padding of channels: as many numbers as the layer has, whatever fills up its vectors."""

import numpy as np
import pytest

from compile.formats import format_of
from compile.graph.layouts import Layout
from compile.graph.stages import Convolution, Value
from compile.schedules.packing import (
    Depth,
    Packing,
    dense,
    depth_of,
    groups_a_vector,
    own_channels,
    own_weights,
    ranges,
)
from compile.targets import host

LANES = 16
F32 = format_of("f32", host())


def layout(*parts: int) -> Layout:
    """Maps of 5x5 in blocks of 16, their parts one after the other, each filled up."""
    slots, first = [], 0
    for part in parts:
        room = -(-part // LANES) * LANES
        slots += [first + i if i < part else -1 for i in range(room)]
        first += part
    return Layout(tuple(slots), LANES, 5, 5)


@pytest.mark.parametrize(
    ("parts", "repeats", "runs"),
    [
        ((48,), 1, ((3, 16),)),
        ((58,), 1, ((3, 16), (1, 10))),
        ((58, 58), 2, ((3, 16), (1, 10))),
        ((12, 12, 12), 1, ((3, 12),)),
        ((16, 5, 19), 1, ((1, 16), (1, 5), (1, 16), (1, 3))),
        ((1, 2, 3, 4, 5), 1, ((5, 16),)),
    ],
)
def test_only_slots_up_to_a_blocks_last_channel_are_read(parts, repeats, runs):
    depth = depth_of(layout(*parts), layout(*parts).blocks, 1)
    assert (depth.repeats, depth.runs) == (repeats, runs)


def test_groups_of_channels_are_read_whole():
    assert depth_of(layout(58), 4, 4).runs == ((3, 16), (1, 12))


@pytest.mark.parametrize(("inside", "outside"), [((58,), 58), ((58, 58), 116), ((3,), 10), ((64,), 32)])
def test_packed_weights_are_the_layers_own_in_the_order_they_are_read(inside, outside):
    source, result = layout(*inside), layout(outside)
    weight = np.random.default_rng(0).standard_normal((outside, sum(inside), 3, 3)).astype(np.float32)
    x, y = Value("x", (1, sum(inside), 5, 5)), Value("y", (1, outside, 3, 3))
    stage = Convolution(x=x, out=y, weight=weight)
    first, in_blocks = ranges(stage, source, result)
    packing = Packing(depth_of(source, in_blocks, 1), result, 9, F32)
    packed = packing.packed(F32.packed(dense(stage, source, result, first, in_blocks))[0])
    beyond = -outside % LANES
    assert packed.size == packing.numbers == weight.size + beyond
    assert not packed[weight.size :].any()
    expected: list[float] = []
    for block in range(result.blocks):
        outs = range(block * LANES, min((block + 1) * LANES, outside))
        for part in range(source.blocks):
            ins = [c for c in source.channels[part * LANES : (part + 1) * LANES] if c >= 0]
            expected += [weight[o, c, i, j] for i in range(3) for j in range(3) for c in ins for o in outs]
    np.testing.assert_array_equal(packed[: weight.size], expected)


@pytest.mark.parametrize(
    ("channels", "groups", "outs", "numbers_at_once", "expected"),
    [
        (48, 6, 48, 1, 2), (104, 13, 104, 1, 2), (32, 8, 32, 1, 4), (32, 8, 32, 4, 4), (32, 16, 32, 4, 1),
        (48, 48, 48, 1, 16), (48, 48, 96, 1, 8), (20, 10, 40, 1, 4), (20, 10, 20, 1, 8), (20, 10, 10, 1, 1),
        (32, 2, 32, 1, 1), (60, 30, 90, 1, 1), (48, 4, 48, 1, 1), (48, 1, 48, 1, 1),
    ],
)  # fmt: skip
def test_groups_narrower_than_a_vector_are_found(channels, groups, outs, numbers_at_once, expected):
    stage = grouped(channels, groups, outs)
    assert groups_a_vector(stage, layout(channels), layout(outs), numbers_at_once) == expected


def test_channels_of_another_order_are_read_with_zeros():
    stage, apart = grouped(32, 4, 32), layout(8, 24)
    assert groups_a_vector(stage, layout(32), layout(32), 1) == 2
    assert groups_a_vector(stage, apart, layout(32), 1) == groups_a_vector(stage, apart, apart, 1) == 1


@pytest.mark.parametrize(
    ("channels", "groups", "outs"), [(48, 6, 48), (104, 13, 104), (32, 8, 32), (48, 48, 96), (20, 10, 40)]
)
def test_of_several_groups_in_a_vector_each_lane_reads_its_own(channels, groups, outs):
    stage, width = grouped(channels, groups, outs), channels // groups
    result, per_vector = layout(outs), groups_a_vector(stage, layout(channels), layout(outs), 1)
    starts = own_channels(stage, result, per_vector)
    for block, start in enumerate(starts):
        lanes = [o for o in result.channels[block * LANES : (block + 1) * LANES] if o >= 0]
        read = {o // (outs // groups) * width + i for o in lanes for i in range(width)}
        assert start == min(read)
        assert len({channel // LANES for channel in read}) == 1
    packing = Packing(Depth(repeats=1, runs=((1, width),)), result, 9, F32)
    packed = packing.packed(F32.packed(own_weights(stage, result))[0])
    assert packed.size == packing.numbers == stage.weight.size + -outs % LANES
    blocks = [range(b * LANES, min((b + 1) * LANES, outs)) for b in range(result.blocks)]
    expected = [
        stage.weight[o, c, i, j]
        for here in blocks
        for i in range(3)
        for j in range(3)
        for c in range(width)
        for o in here
    ]
    np.testing.assert_array_equal(packed[: stage.weight.size], expected)


def grouped(channels: int, groups: int, outs: int) -> Convolution:
    weight = np.random.default_rng(0).standard_normal((outs, channels // groups, 3, 3)).astype(np.float32)
    x, y = Value("x", (1, channels, 5, 5)), Value("y", (1, outs, 3, 3))
    return Convolution(x=x, out=y, weight=weight, groups=groups)
