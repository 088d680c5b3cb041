"""The contiguous planner against every assignment there is."""

import math

import pytest
from operator_graphs import best_load, random_graph

from modeltree.errors import GraphError
from nas.decisions.placement.graphs.contiguous import lower_bound, smallest_load
from nas.decisions.placement.graphs.contraction import contract
from nas.decisions.placement.graphs.cost import loads, violations
from nas.decisions.placement.graphs.graph_file import Edge, Node, OperatorGraph


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_contiguous_split_is_the_best_of_all_assignments(seed, training):
    graph = random_graph(seed, training=training)
    best = best_load(graph, contiguous=True)
    if math.isinf(best):
        with pytest.raises(GraphError, match="no contiguous placement"):
            smallest_load(graph)
        return
    placement = smallest_load(graph)
    assert violations(graph, placement, contiguous=True) == []
    assert max(loads(graph, placement).values()) == pytest.approx(best)
    assert lower_bound(contract(graph)) <= best + 1e-9


def test_an_output_read_twice_is_moved_once():
    nodes = tuple(Node(id=i, cpu_time=100.0, accelerator_time=1.0) for i in range(3))
    edges = (Edge(source=0, target=1, cost=0.5), Edge(source=0, target=2, cost=0.5))
    graph = OperatorGraph(accelerator_bytes=1.0, accelerators=2, cpus=0, nodes=nodes, edges=edges)
    assert loads(graph, {0: 0, 1: 1, 2: 1}) == {0: 1.5, 1: 2.5}
    assert max(loads(graph, smallest_load(graph)).values()) == 2.5


def test_memory_moves_work_to_the_cpu():
    nodes = tuple(Node(id=i, cpu_time=5.0, accelerator_time=1.0, size=2.0) for i in range(2))
    graph = OperatorGraph(accelerator_bytes=2.0, accelerators=1, cpus=1, nodes=nodes)
    assert max(loads(graph, smallest_load(graph)).values()) == 5.0


def test_backward_nodes_without_a_forward_twin_keep_their_mirrored_order():
    forward = (Node(id=0, cpu_time=9.0, accelerator_time=1.0, color=0),)
    backward = tuple(
        Node(id=i, cpu_time=9.0, accelerator_time=1.0, color=10 + i, backward=True, size=1.0) for i in (1, 2, 3)
    )
    edges = (Edge(source=1, target=2, cost=0.25), Edge(source=2, target=3, cost=0.25))
    graph = OperatorGraph(accelerator_bytes=2.0, accelerators=2, cpus=0, nodes=forward + backward, edges=edges)
    placement = smallest_load(graph)
    assert len({placement[1], placement[3]}) == 2
    assert max(loads(graph, placement).values()) == pytest.approx(2.25)
