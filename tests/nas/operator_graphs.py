"""Small operator graphs for tests, and the best split by trying every assignment."""

import itertools
from collections.abc import Iterator

import networkx as nx
import numpy as np

from nas.decisions.placement.graphs.cost import loads, violations
from nas.decisions.placement.graphs.graph_file import Edge, Node, OperatorGraph


def random_graph(seed: int, *, nodes: int = 6, training: bool = False, accelerators: int = 2) -> OperatorGraph:
    """A DAG with random times; with `training` every node has a backward twin of its class."""
    rng = np.random.default_rng(seed)
    forward = [
        Node(
            id=i, supported=bool(rng.random() < 0.85), cpu_time=float(rng.integers(1, 30)),
            accelerator_time=float(rng.integers(0, 6)), size=float(rng.integers(1, 5)), color=i - (rng.random() < 0.15),
        )
        for i in range(nodes)
    ]  # fmt: skip
    cost = rng.integers(0, 4, 2 * nodes).astype(float).tolist()
    pairs = [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if rng.random() < 0.4]
    edges = [Edge(source=a, target=b, cost=cost[a]) for a, b in pairs]
    twins: list[Node] = []
    if training:
        for node in forward:
            twins.append(Node(id=nodes + node.id, backward=True, color=node.color, supported=node.supported,
                              cpu_time=2.0, accelerator_time=float(rng.integers(0, 4)), size=1.0))  # fmt: skip
        edges += [Edge(source=nodes + b, target=nodes + a, cost=cost[nodes + b]) for a, b in pairs]
        edges += [Edge(source=a, target=nodes + a, cost=cost[a]) for a in range(nodes)]
    return OperatorGraph(
        accelerator_bytes=float(4 + 2 * nodes), accelerators=accelerators, cpus=1, nodes=(*forward, *twins),
        edges=tuple(edges),
    )  # fmt: skip


def assignments(graph: OperatorGraph, *, contiguous: bool) -> Iterator[dict[int, int]]:
    """Every placement that breaks no rule; contiguous: devices can be put in an order that all forward edges follow."""
    colors = sorted({node.color for node in graph.nodes if node.color is not None})
    for devices in itertools.product(range(graph.accelerators + graph.cpus), repeat=len(colors)):
        on = dict(zip(colors, devices, strict=True))
        device_of = {node.id: on[node.color] for node in graph.nodes if node.color is not None}
        if violations(graph, device_of, contiguous=contiguous):
            continue
        if contiguous and not _ordered(graph, device_of):
            continue
        yield device_of


def _ordered(graph: OperatorGraph, device_of: dict[int, int]) -> bool:
    backward = {node.id for node in graph.nodes if node.backward}
    flow = nx.DiGraph()
    flow.add_edges_from(
        (device_of[e.source], device_of[e.target])
        for e in graph.edges
        if e.source not in backward and e.target not in backward and device_of[e.source] != device_of[e.target]
    )
    return nx.is_directed_acyclic_graph(flow)


def best_load(graph: OperatorGraph, *, contiguous: bool) -> float:
    """The smallest largest load of all placements; infinite if there is none."""
    values = (max(loads(graph, one).values()) for one in assignments(graph, contiguous=contiguous))
    return min(values, default=float("inf"))
