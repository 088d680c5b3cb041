"""Weights without the padding of channels: as many numbers as the layer has, whatever fills up its vectors."""

import numpy as np
import pytest

from compile.formats import format_of
from compile.graph.layouts import Layout
from compile.graph.stages import Convolution, Value
from compile.schedules.packing import Depth, Packing, dense, depth_of, groups_a_vector, own_groups, ranges
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
    ("channels", "groups", "numbers_at_once", "expected"),
    [
        (48, 6, 1, 2), (104, 13, 1, 2), (32, 8, 1, 4), (32, 8, 4, 4), (32, 16, 4, 1), (48, 48, 1, 16), (32, 2, 1, 1),
        (64, 2, 1, 1), (48, 4, 1, 1), (48, 1, 1, 1),
    ],
)  # fmt: skip
def test_groups_narrower_than_a_vector_are_found(channels, groups, numbers_at_once, expected):
    stage = grouped(channels, groups)
    assert groups_a_vector(stage, layout(channels), layout(channels), numbers_at_once) == expected


def test_lanes_of_another_order_read_all():
    stage, apart = grouped(32, 4), layout(8, 24)
    assert groups_a_vector(stage, layout(32), layout(32), 1) == 2
    assert groups_a_vector(stage, apart, layout(32), 1) == groups_a_vector(stage, apart, apart, 1) == 1


@pytest.mark.parametrize(("channels", "groups"), [(48, 6), (104, 13), (32, 8)])
def test_of_several_groups_in_a_vector_each_lane_reads_its_own(channels, groups):
    stage, width = grouped(channels, groups), channels // groups
    source = layout(channels)
    first, in_blocks = ranges(stage, source, source)
    assert (in_blocks, list(first)) == (1, list(range(source.blocks)))
    weights = own_groups(dense(stage, source, source, first, in_blocks), LANES // width)
    packing = Packing(Depth(repeats=1, runs=((1, width),)), source, 9, F32)
    packed = packing.packed(F32.packed(weights)[0])
    assert packed.size == packing.numbers == stage.weight.size + -channels % LANES
    blocks = [range(b * LANES, min((b + 1) * LANES, channels)) for b in range(source.blocks)]
    expected = [
        stage.weight[o, c, i, j]
        for outs in blocks
        for i in range(3)
        for j in range(3)
        for c in range(width)
        for o in outs
    ]
    np.testing.assert_array_equal(packed[: stage.weight.size], expected)


def grouped(channels: int, groups: int) -> Convolution:
    weight = np.random.default_rng(0).standard_normal((channels, channels // groups, 3, 3)).astype(np.float32)
    x, y = Value("x", (1, channels, 5, 5)), Value("y", (1, channels, 3, 3))
    return Convolution(x=x, out=y, weight=weight, groups=groups)
