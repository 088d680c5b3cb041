"""Placement inputs: graphs of operators with a time on two kinds of processor, a size and a transfer cost.

The JSON of the public collection of [Tarnawski 2020] ("Efficient algorithms for device placement of DNN graph
operators"), where an accelerator is called FPGA:

    maxSizePerFPGA   bytes an accelerator can hold          maxFPGAs, maxCPUs   how many of each there are
    nodes            id, supportedOnFpga, cpuLatency, fpgaLatency, and optionally size, colorClass (nodes of one class
                     share a processor) and isBackwardNode (training graphs)
    edges            sourceId, destId, cost: what moving the source's output between an accelerator and main memory
                     takes; the same for every edge out of one node

Whatever else such a file holds (names, layers, sizes of edges) is ignored. Times may have any one unit.
"""

from pathlib import Path
from typing import Any

import msgspec

from modeltree.errors import FormatError

_SAME_COST = 1e-6


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An operator. `size` is in bytes; times have the unit of the file."""

    id: int
    supported: bool | int = msgspec.field(name="supportedOnFpga", default=True)
    cpu_time: float = msgspec.field(name="cpuLatency")
    accelerator_time: float = msgspec.field(name="fpgaLatency")
    backward: bool | int = msgspec.field(name="isBackwardNode", default=False)
    color: int | None = msgspec.field(name="colorClass", default=None)
    size: float = 0.0


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `source` is an input of `target`; moving it costs `cost`."""

    source: int = msgspec.field(name="sourceId")
    target: int = msgspec.field(name="destId")
    cost: float = 0.0


class OperatorGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A placement input as its file says it."""

    accelerator_bytes: float = msgspec.field(name="maxSizePerFPGA")
    accelerators: int = msgspec.field(name="maxFPGAs")
    cpus: int = msgspec.field(name="maxCPUs")
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()

    @property
    def transfer_cost(self) -> dict[int, float]:
        """What moving the output of each node costs; nodes without consumers have none."""
        return {edge.source: edge.cost for edge in self.edges}


def read_graph(path: Path) -> OperatorGraph:
    """Read and check a placement input.

    Raises
    ------
    FormatError : the file is no such JSON, names a node twice, or an edge names no node or has a cost of its own.
    """
    try:
        graph = msgspec.json.decode(path.read_bytes(), type=OperatorGraph, strict=False)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}): pass a placement input") from error
    except msgspec.MsgspecError as error:
        raise FormatError(f"{path}: is no placement input: {error}") from error
    check_graph(graph, path)
    return graph


def check_graph(graph: OperatorGraph, where: Any = "the graph") -> None:
    """Refuse a graph that contradicts itself; `where` begins the message."""
    ids = [node.id for node in graph.nodes]
    known = set(ids)
    if not ids or len(known) != len(ids):
        raise FormatError(f"{where}: {len(ids)} nodes with {len(known)} ids: every node needs an id of its own")
    costs: dict[int, float] = {}
    for edge in graph.edges:
        if edge.source not in known or edge.target not in known or edge.source == edge.target:
            raise FormatError(f"{where}: edge {edge.source} -> {edge.target} must join two nodes of the graph")
        if abs(costs.setdefault(edge.source, edge.cost) - edge.cost) > _SAME_COST:
            raise FormatError(f"{where}: node {edge.source} has edges of different costs: one output has one cost")
    values = [x for node in graph.nodes for x in (node.cpu_time, node.accelerator_time, node.size)]
    if min([*values, *costs.values(), graph.accelerators, graph.cpus, graph.accelerator_bytes]) < 0:
        raise FormatError(f"{where}: holds a negative time, size, cost or count: none may be below 0")
    if graph.accelerators + graph.cpus == 0:
        raise FormatError(f"{where}: has no processor: maxFPGAs or maxCPUs must be at least 1")
