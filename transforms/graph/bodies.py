"""Stretches of several units with one tensor in and one out, which one variant may replace whole.

Two kinds are found on the graph. An *inner* body runs from a dense layer to the next dense layer that all of its output
must pass, so that the channels between them are nobody else's: the inverted residual (expand, depthwise, squeeze and
excitation, project), the two layers of a transformer's MLP, its attention from queries to projection. A *residual* body
is what a sum adds to its own input, with the sum.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import networkx
from torch import fx, nn

from transforms.graph.lifting import aten
from transforms.graph.subgraph import subgraph

INNER, ATTENTION, RESIDUAL = "inner", "attention", "residual"

_SUMS = {aten.add.Tensor, aten.add_.Tensor}


@dataclass(frozen=True, kw_only=True)
class Body:
    """A stretch of a network.

    kind : `inner`, `attention` (an inner one in which tokens look at each other), or `residual`.
    nodes : names of the graph nodes it covers, in an order in which they can run; `source` feeds it, the last makes its
        output. units : the units among them, in order: a variant is given for the first.
    first, last : names of the layers that make and that read the inner channels; empty in a residual body.
    module : the stretch as it is in the base network, sharing its weights.
    in_shape, out_shape : per image.
    """

    kind: str
    nodes: tuple[str, ...]
    units: tuple[int, ...]
    source: str
    first: str
    last: str
    module: fx.GraphModule
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def __deepcopy__(self, memo: object) -> "Body":
        """A value: variants that are copied keep the same one."""
        return self

    @property
    def output(self) -> str:
        """Name of the node that makes the body's output."""
        return self.nodes[-1]


class Layer(NamedTuple):
    """A unit as bodies are found from it: its number, its nodes, and the one among them that is the layer."""

    unit: int
    nodes: tuple[str, ...]
    op: str


def bodies(graph: fx.GraphModule, order: Sequence[str], layers: Sequence[Layer]) -> list[Body]:
    """All bodies of a lifted network.

    Parameters
    ----------
    order : names of all its nodes in an order in which they can run, those of a unit next to each other.
    layers : its units, in that order.
    """
    finder = _Finder(graph, order, layers)
    every = [*finder.inner(), *finder.residual()]
    return [body for body in every if body is not None]


class _Finder:
    def __init__(self, graph: fx.GraphModule, order: Sequence[str], layers: Sequence[Layer]) -> None:
        self.graph, self.order, self.layers = graph, order, layers
        self.nodes = {node.name: node for node in graph.graph.nodes}
        self.by_op = {layer.op: layer for layer in layers}
        self.rank = {layer.unit: i for i, layer in enumerate(layers)}
        self.owner = {name: layer.unit for layer in layers for name in layer.nodes}
        self.behind = self._behind()

    def _behind(self) -> dict[fx.Node, fx.Node]:
        """The next node that everything a node makes must pass."""
        flow = networkx.DiGraph()
        result = next(node for node in self.graph.graph.nodes if node.op == "output")
        for node in self.graph.graph.nodes:
            flow.add_edges_from((user, node) for user in node.users)
        dominators: dict[fx.Node, fx.Node] = networkx.immediate_dominators(flow, result)
        return dominators

    def inner(self) -> Iterator[Body | None]:
        """From every dense layer to the next that reads nothing else."""
        for layer in self.layers:
            end = self._reader(layer)
            if end is None:
                continue
            start, stop = self.nodes[layer.nodes[0]], self.nodes[end.nodes[-1]]
            region = _between(start, stop)
            names = {node.name for node in region}
            if any(node.op == "call_module" and node.name not in self.by_op for node in region):
                continue
            attends = any(node.target is aten.scaled_dot_product_attention.default for node in region)
            source = self._source(layer)
            if source is None or not self._is_closed(names, source, readers={layer.op}):
                continue
            yield self._body(ATTENTION if attends else INNER, names, source, layer.op, end.op)

    def _reader(self, layer: Layer) -> Layer | None:
        """The dense layer that closes the body which a dense layer opens; None where there is none, or where they are
        neighbours on maps: filter pruning folds there."""
        opening = self.graph.get_submodule(layer.op)
        if not _is_dense(opening) or layer.nodes[0] != layer.op:
            return None
        if isinstance(opening, nn.Linear) and len(self.nodes[layer.op].meta["image_shape"]) < 2:
            return None
        node = self.nodes[layer.nodes[-1]]
        passed = 0
        while (node := self.behind[node]).op != "output":
            passed += 1
            end = self.by_op.get(node.name)
            if end is not None and _is_dense(self.graph.get_submodule(end.op)):
                alike = type(opening) is type(self.graph.get_submodule(end.op)) and end.nodes[0] == end.op
                direct = passed == 1 and isinstance(opening, nn.Conv2d)
                return end if alike and not direct else None
        return None

    def residual(self) -> Iterator[Body | None]:
        """Whatever a sum adds to its own input."""
        for name in self.order:
            node = self.nodes[name]
            if node.target not in _SUMS or len(node.all_input_nodes) != 2 or node.kwargs:
                continue
            for source, branch in (node.all_input_nodes, node.all_input_nodes[::-1]):
                if source.meta.get("image_shape") != node.meta.get("image_shape"):
                    continue
                region = _between(source, branch) - {source} | {node}
                names = {one.name for one in region}
                if len(region) > 1 and source not in region and self._is_closed(names, source.name):
                    yield self._body(RESIDUAL, names, source.name, "", "")
                    break

    def _source(self, layer: Layer) -> str | None:
        sources = [n.name for n in self.nodes[layer.nodes[0]].all_input_nodes if n.op != "get_attr"]
        return sources[0] if len(sources) == 1 else None

    def _is_closed(self, names: set[str], source: str, readers: Iterable[str] | None = None) -> bool:
        """Whether nothing enters but `source` (into `readers` alone, if given), and nothing but the last leaves."""
        inside = [self.nodes[name] for name in self.order if name in names]
        for node in inside:
            entering = {n.name for n in node.all_input_nodes if n.op != "get_attr" and n.name not in names}
            if entering - {source} or (entering and readers is not None and node.name not in readers):
                return False
            if node is not inside[-1] and any(user.name not in names for user in node.users):
                return False
        return len(inside) == len(names)

    def _body(self, kind: str, names: set[str], source: str, first: str, last: str) -> Body | None:
        """The body of some nodes; None where it takes a unit in part, or units that do not follow each other."""
        nodes = tuple(name for name in self.order if name in names)
        units = tuple(dict.fromkeys(self.owner[name] for name in nodes if name in self.owner))
        whole = all(set(self.layers[self.rank[unit]].nodes) <= names for unit in units)
        ranks = [self.rank[unit] for unit in units]
        if not units or not whole or ranks != list(range(ranks[0], ranks[0] + len(ranks))):
            return None
        begins = next(n.name for n in self.nodes[nodes[0]].all_input_nodes if n.op != "get_attr")
        if begins != source or not self.nodes[source].meta.get("batch_first"):
            return None
        return Body(
            kind=kind, nodes=nodes, units=units, source=source, first=first, last=last,
            module=subgraph(self.graph, nodes, source, nodes[-1]), in_shape=self.nodes[source].meta["image_shape"],
            out_shape=self.nodes[nodes[-1]].meta["image_shape"],
        )  # fmt: skip


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _between(start: fx.Node, stop: fx.Node) -> set[fx.Node]:
    """Nodes on some way from `start` to `stop`, both included, and what tells them sizes; empty if there is no way."""
    forward: set[fx.Node] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node in forward:
            continue
        forward.add(node)
        if node is not stop:
            waiting += node.users
    if stop not in forward:
        return set()
    region: set[fx.Node] = set()
    waiting = [stop]
    while waiting:
        node = waiting.pop()
        if node in region or node not in forward:
            continue
        region.add(node)
        if node is not start:
            waiting += node.all_input_nodes
    return region
