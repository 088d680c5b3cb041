"""Movement of data in loops: they reach every number once, and tables hold what has no strides, and no more."""

import itertools

import numpy as np
import pytest
import torch
from operator_cases import Of, conv1, conv3
from stage_programs import fused_from, planned_from
from torch import nn

from compile.graph.kernels import Constant
from compile.schedules.row_major.gathering import nested


def places(columns: np.ndarray) -> set[tuple[int, ...]]:
    """All rows that the loops of `nested` go through."""
    first, loops = nested(columns)
    turns = itertools.product(first.tolist(), *(range(count) for count, _ in loops))
    return {
        tuple(start + sum(i * steps[c] for i, (_, steps) in zip(at, loops)) for c, start in enumerate(begin))
        for begin, *at in turns
    }


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        (np.arange(24), 1),
        (np.arange(4)[:, None] * 100 + np.arange(3), 1),
        (np.arange(5)[:, None] * 50 + [0, 1, 4, 9], 4),
        (np.arange(3)[:, None, None] * 90 + np.array([0, 7, 8])[:, None] + np.arange(2) * 30, 3),
        (np.array([0, 1, 5, 6, 8]), 5),
    ],
    ids=["one loop", "two loops", "a table in a loop", "a loop in a table in a loop", "a table"],
)
def test_loops_and_what_is_left_go_through_every_place(columns, left):
    column = columns.reshape(-1)
    rows = np.stack([np.arange(len(column)), column], 1)
    assert len(nested(rows)[0]) == left
    assert places(rows) == set(map(tuple, rows.tolist()))


def shuffled(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("side", [6, 24])
def test_a_shuffle_of_channels_takes_a_table_of_channels_however_large_the_map(side):
    """22 channels in blocks of 4, two parts of 11: two numbers a channel, and the vectors of the halo."""
    network = Of(
        lambda x, a, b, c: c(shuffled(torch.cat([a(x), b(x)], 1))), a=conv1(20, 11), b=conv1(20, 11), c=conv3(22, 8)
    )
    _, kernels, _ = planned_from(fused_from(network, (20, side, side)))
    (gather,) = (kernel for kernel in kernels if kernel.name == "gather")
    tables = [argument.array.size for argument in gather.arguments if isinstance(argument, Constant)]
    assert sum(tables) <= 2 * 22 + 4 * (side + 1)


def test_a_slice_that_takes_all_moves_nothing():
    network = Of(lambda x, a: a(x)[:, :8] + x, a=lambda: nn.Conv2d(8, 8, 3, padding=1))
    _, kernels, _ = planned_from(fused_from(network, (8, 5, 5)))
    assert "gather" not in [kernel.name for kernel in kernels]
