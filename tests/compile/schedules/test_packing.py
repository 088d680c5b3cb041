"""Weights without the padding of channels: as many numbers as the layer has, whatever fills up its vectors."""

import numpy as np
import pytest

from compile.formats import format_of
from compile.graph.layouts import Layout
from compile.graph.stages import Convolution, Value
from compile.schedules.packing import Packing, dense, depth_of, ranges
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
    packing = Packing(source, result, in_blocks, 9, F32)
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
