"""Splits that need not be contiguous."""

import math

import numpy as np
import pytest
from operator_graphs import best_load, random_graph

from nas.decisions.placement.graphs.contraction import contract
from nas.decisions.placement.graphs.cost import loads, violations
from nas.decisions.placement.graphs.scattered import Loads
from nas.decisions.placement.graphs.solve import solve


@pytest.mark.parametrize("seed", range(6))
def test_small_graphs_are_solved_and_proved(seed):
    graph = random_graph(seed, nodes=5)
    best = best_load(graph, contiguous=False)
    if math.isinf(best):
        pytest.skip("this graph fits no memory")
    solution = solve(graph, objective="load", contiguous=False, seconds=1)
    assert violations(graph, solution.device_of, contiguous=False) == []
    assert solution.objective == pytest.approx(best)
    assert solution.bound <= best + 1e-6


def test_loads_after_moves_are_those_counted_anew():
    graph = random_graph(3, nodes=8, accelerators=3)
    groups = contract(graph, fuse_circles=False)
    rng = np.random.default_rng(0)
    state = Loads(groups, np.zeros(len(groups), int))
    for _ in range(200):
        state.move_(int(rng.integers(len(groups))), int(rng.integers(4)))
    anew = loads(graph, groups.spread(state.device))
    assert [anew.get(device, 0.0) for device in range(4)] == pytest.approx(state.load)
