"""An operator graph with the nodes that share a processor drawn together, as arrays for the planners.

Three rules draw nodes together [Tarnawski 2020, sec. 5 and app. B]: one colour class; a circle between classes (their
members would wait for each other across processors); and in training graphs a backward node follows the forward nodes
of its class. Backward nodes whose class has no forward node get a place in the forward order by mirrored edges.

A **net** is the output of one node: the group that makes it and the groups that read it. A processor that holds some of
a net's groups but not all of them pays the net's cost once, whether it sends or receives.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx
import numpy as np

from nas.decisions.placement.graphs.graph_file import OperatorGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Groups of nodes in an order they can run in.

    members : ids of the nodes of each group.
    edges : pairs of groups; (a, b) says that b reads from a, always a < b.
    accelerator_time, cpu_time, size : (groups,). A group that accelerators do not support is larger than any of them.
    nets : groups of each net with its cost; nets inside one group and nets that cost nothing are left out.
    """

    graph: OperatorGraph
    members: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int], ...]
    accelerator_time: np.ndarray
    cpu_time: np.ndarray
    size: np.ndarray
    supported: np.ndarray
    nets: tuple[tuple[tuple[int, ...], float], ...]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def group_of(self) -> dict[int, int]:
        """The group of every node, by id."""
        return {node: index for index, group in enumerate(self.members) for node in group}

    def spread(self, devices: Iterable[int]) -> dict[int, int]:
        """A device a group as a device a node id."""
        return {node: int(device) for group, device in zip(self.members, devices, strict=True) for node in group}


def contract(graph: OperatorGraph, *, fuse_circles: bool = True) -> Groups:
    """Draw together what has to share a processor.

    fuse_circles : also groups on a circle; without it `edges` need not be an order, and groups stay as coloured.
    """
    color = _colors(graph)
    order = nx.DiGraph()
    order.add_nodes_from(color[node.id] for node in graph.nodes)
    order.add_edges_from(_forward_edges(graph, color))
    condensed = nx.condensation(order)
    sequence = list(nx.lexicographical_topological_sort(condensed))
    if fuse_circles:
        parts = [sorted(condensed.nodes[part]["members"]) for part in sequence]
    else:
        parts = [[one] for part in sequence for one in sorted(condensed.nodes[part]["members"])]
    index = {one: position for position, part in enumerate(parts) for one in part}
    return _arrays(graph, {node.id: index[color[node.id]] for node in graph.nodes}, len(parts), order, index)


def _colors(graph: OperatorGraph) -> dict[int, int]:
    fresh = 1 + max((node.color for node in graph.nodes if node.color is not None), default=0)
    return {node.id: fresh + place if node.color is None else node.color for place, node in enumerate(graph.nodes)}


def _forward_edges(graph: OperatorGraph, color: dict[int, int]) -> set[tuple[int, int]]:
    """Edges between classes that the forward order must respect; those of orphaned backward nodes mirrored."""
    backward = {node.id: bool(node.backward) for node in graph.nodes}
    forward_colors = {color[node.id] for node in graph.nodes if not node.backward}
    edges = set()
    for edge in graph.edges:
        a, b = color[edge.source], color[edge.target]
        if a == b:
            continue
        if not backward[edge.source] and not backward[edge.target]:
            edges.add((a, b))
        elif backward[edge.source] and backward[edge.target] and not {a, b} <= forward_colors:
            edges.add((b, a))
    return edges


def _arrays(
    graph: OperatorGraph, group: dict[int, int], count: int, order: nx.DiGraph, index: dict[int, int]
) -> Groups:
    members: list[list[int]] = [[] for _ in range(count)]
    accelerator, cpu, size = np.zeros(count), np.zeros(count), np.zeros(count)
    supported = np.ones(count, bool)
    for node in graph.nodes:
        at = group[node.id]
        members[at].append(node.id)
        accelerator[at] += node.accelerator_time
        cpu[at] += node.cpu_time
        size[at] += node.size
        supported[at] &= bool(node.supported)
    edges = {(index[a], index[b]) for a, b in order.edges if index[a] != index[b]}
    return Groups(
        graph=graph,
        members=tuple(tuple(ids) for ids in members),
        edges=tuple(sorted(edges)),
        accelerator_time=accelerator,
        cpu_time=cpu,
        size=size,
        supported=supported,
        nets=tuple(_nets(graph, group)),
    )


def _nets(graph: OperatorGraph, group: dict[int, int]) -> list[tuple[tuple[int, ...], float]]:
    readers: dict[int, set[int]] = {}
    for edge in graph.edges:
        readers.setdefault(edge.source, {group[edge.source]}).add(group[edge.target])
    merged: dict[tuple[int, ...], float] = {}
    costs = graph.transfer_cost
    for source, touched in readers.items():
        if len(touched) > 1 and costs[source] > 0:
            key = tuple(sorted(touched))
            merged[key] = merged.get(key, 0.0) + costs[source]
    return sorted(merged.items())
