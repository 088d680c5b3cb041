"""The time of one sample, by hand, and the planner against every assignment."""

import pytest
from operator_graphs import assignments, random_graph

from nas.decisions.placement.graphs.graph_file import Edge, Node, OperatorGraph
from nas.decisions.placement.graphs.latency import Timing, latency_bound, short_latency


def _chain(*costs: float) -> OperatorGraph:
    nodes = tuple(Node(id=i, cpu_time=10.0, accelerator_time=1.0, size=1.0) for i in range(len(costs) + 1))
    edges = tuple(Edge(source=i, target=i + 1, cost=cost) for i, cost in enumerate(costs))
    return OperatorGraph(accelerator_bytes=2.0, accelerators=2, cpus=1, nodes=nodes, edges=edges)


def test_latency_of_a_chain_by_hand():
    timing = Timing(_chain(3.0, 4.0, 5.0))
    assert timing.latency({0: 0, 1: 0, 2: 1, 3: 1}) == 2 + 4 + 4 + 2
    assert timing.latency({0: 0, 1: 0, 2: 2, 3: 2}) == 2 + 4 + 20
    assert timing.latency({0: 0, 1: 1, 2: 0, 3: 2}) == (1 + 3) + (3 + 1 + 4) + (4 + 1 + 5) + 10
    assert not timing.is_contiguous({0: 0, 1: 1, 2: 0, 3: 2})


def test_branches_run_side_by_side():
    nodes = tuple(Node(id=i, cpu_time=10.0, accelerator_time=10.0) for i in range(4))
    edges = tuple(Edge(source=a, target=b, cost=0.0) for a, b in ((0, 1), (0, 2), (1, 3), (2, 3)))
    graph = OperatorGraph(accelerator_bytes=0.0, accelerators=2, cpus=1, nodes=nodes, edges=edges)
    assert Timing(graph).latency({0: 2, 1: 0, 2: 1, 3: 2}) == 30.0
    assert Timing(graph).latency(dict.fromkeys(range(4), 0)) == 40.0
    assert Timing(graph).latency(short_latency(graph, contiguous=True, seconds=5)) == 30.0


def test_pieces_that_wait_for_each_other_never_end():
    nodes = tuple(Node(id=i, cpu_time=1.0, accelerator_time=1.0) for i in range(4))
    edges = (Edge(source=0, target=1), Edge(source=2, target=3))
    graph = OperatorGraph(accelerator_bytes=0.0, accelerators=2, cpus=1, nodes=nodes, edges=edges)
    assert Timing(graph).latency({0: 0, 1: 1, 2: 1, 3: 0}) == float("inf")


@pytest.mark.parametrize("seed", range(8))
def test_the_planner_is_close_to_the_best_assignment(seed):
    graph = random_graph(seed)
    timing = Timing(graph)
    best = min(timing.latency(one) for one in assignments(graph, contiguous=False) if timing.is_contiguous(one))
    planned = timing.latency(short_latency(graph, contiguous=True, seconds=2))
    assert best - 1e-9 <= planned <= best * 1.1
    assert latency_bound(graph) <= best + 1e-9
