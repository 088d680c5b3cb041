"""A lifted network divided into units that can be compressed and segments that can be cut apart.

A *unit* is a convolution or linear layer together with the chain that follows it channel by channel (activation,
pooling, dropout) and, for a linear layer, the flattening in front: one tensor in, one tensor out, so that a variant can
be plugged in its place. Everything else (additions, concatenations, free-standing pools) is glue.

A *legal cut* is a place where exactly one tensor is alive: a dominator of the output, found on the graph.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import networkx
import torch
from torch import fx, nn

from modeltree.errors import GraphError
from modeltree.layers import LayerSpec
from modeltree.network import FLOAT_BYTES, Item, NetworkSpec, Place
from transforms.graph.bodies import Body, Layer, bodies
from transforms.graph.describe import call_spec, layer_spec
from transforms.graph.lifting import aten, lift
from transforms.graph.subgraph import subgraph

_CHANNELWISE = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.hardswish.default, aten.hardswish_.default, aten.hardsigmoid.default, aten.silu.default, aten.silu_.default,
    aten.gelu.default, aten.sigmoid.default, aten.tanh.default, aten.leaky_relu.default, aten.leaky_relu_.default,
    aten.elu.default, aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default,
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
}  # fmt: skip
_FLATTENING = {
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.dropout.default,
    aten.squeeze.dims,
}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A layer with weights and what belongs to it. Shapes are per image, without the batch.

    nodes : names of the graph nodes it covers; `source` feeds the first, the last makes the unit's output.
    op : the layer itself; `head` runs before it (flattening), `tail` after it (activation, pooling, dropout).
    following : index of the unit that alone, and directly, reads this one's output; None if there is none.
    fc_span : how many units from here to the network's output, if all that is left are linear layers; else 0.
    fc_macs : multiply-accumulates of these.
    classes : length of the network's output.
    bodies : stretches of several units that begin with this one, and that one variant may replace whole.
    """

    index: int
    name: str
    nodes: tuple[str, ...]
    source: str
    op: nn.Conv2d | nn.Linear
    head: nn.Module
    tail: nn.Module
    in_shape: tuple[int, ...]
    core_in_shape: tuple[int, ...]
    core_out_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    following: int | None
    fc_span: int
    classes: int
    fc_macs: int = 0
    bodies: tuple[Body, ...] = ()

    @property
    def output(self) -> str:
        """Name of the node that makes the unit's output."""
        return self.nodes[-1]

    def module(self) -> nn.Module:
        """The unit as it is in the base network."""
        return nn.Sequential(self.head, self.op, self.tail)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A base network ready to be cut and changed. `graph` is never modified."""

    graph: fx.GraphModule
    spec: NetworkSpec
    units: tuple[Unit, ...]
    item_nodes: tuple[tuple[str, ...], ...]

    def units_between(self, start: int, stop: int) -> list[Unit]:
        """Units between place `start` and place `stop`, in order."""
        indices = [self.spec.items[i].unit for s in range(start, stop) for i in self.spec.segments[s]]
        return [self.units[u] for u in indices if u is not None]

    def shape_of(self, node: str) -> tuple[int, ...]:
        """Shape, per image, of what a node of the graph gives."""
        return next(_shape(one) for one in self.graph.graph.nodes if one.name == node)

    def between(self, start: int, stop: int, variants: dict[int, nn.Module] | None = None) -> fx.GraphModule:
        """The part between two places as a module of its own, sharing the base's weights.

        variants : unit index -> module to plug in instead; one that covers several units is given for the first. Those
            of units outside the part are left aside.

        Raises
        ------
        GraphError : a variant ends the network, but the part ends before.
        """
        inside = self.units_between(start, stop)
        for unit in inside:
            body = getattr((variants or {}).get(unit.index), "body", None)
            if body is not None and not set(body.units) <= {one.index for one in inside}:
                raise GraphError(
                    f"the variant of {unit.name} takes the place of {len(body.units)} units but the part ends at place "
                    f"{stop}: take the part up to a place behind {body.output}"
                )
            ends = getattr((variants or {}).get(unit.index), "ends_network", False)
            if ends and stop != len(self.spec.segments):
                raise GraphError(
                    f"the variant of {unit.name} ends the network but the part ends at place {stop}: "
                    f"take the part up to place {len(self.spec.segments)}"
                )
        order = [node for s in range(start, stop) for i in self.spec.segments[s] for node in self.item_nodes[i]]
        plugged = {self._replaced(u, module): module for u, module in (variants or {}).items()}
        return subgraph(self.graph, order, self.spec.places[start].after, self.spec.places[stop].after, plugged)

    def _replaced(self, unit: int, module: nn.Module) -> tuple[str, ...]:
        body: Body | None = getattr(module, "body", None)
        return self.units[unit].nodes if body is None else body.nodes


def analyse(program: torch.export.ExportedProgram) -> Network:
    """Find the units and legal cuts of an exported network (`transforms.export`).

    Raises
    ------
    GraphError : it has several inputs or outputs, a fixed batch size, or no layer with weights.
    """
    graph = lift(program)
    order = [node for node in graph.graph.nodes if node.op not in ("get_attr", "output")]
    regions = list(_regions(order))
    if not any(region.op is not None for region in regions[1:]):
        raise GraphError("the network has no convolution and no linear layer: there is nothing to compress or cut")
    position = {node: i for i, region in enumerate(regions) for node in region.nodes}
    result = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    places = _legal_cuts(regions, position, position[result])
    units = _with_bodies(_units(graph, regions, position, _elements(result)), graph, regions)
    items = [
        Item(
            name=region.nodes[-1].name,
            inputs=tuple(sorted({regions[i].nodes[-1].name for i in region.inputs(position)})),
            layers=tuple(_layers(region, graph)),
            out_shape=_shape(region.nodes[-1]),
            unit=region.unit,
        )
        for region in regions
    ]
    spec = NetworkSpec(
        input_shape=items[places[0]].out_shape,
        items=tuple(items),
        places=tuple(_place(index, items[i], index == 0) for index, i in enumerate(places)),
        segments=tuple(tuple(range(a + 1, b + 1)) for a, b in itertools.pairwise(places)),
    )
    names = tuple(tuple(node.name for node in region.nodes) for region in regions)
    return Network(graph=graph, spec=spec, units=units, item_nodes=names)


@dataclass
class _Region:
    """Nodes that belong together: the input, a unit, or one glue node."""

    nodes: list[fx.Node]
    op: fx.Node | None = None
    unit: int | None = None

    def inputs(self, position: dict[fx.Node, int]) -> set[int]:
        own = set(self.nodes)
        return {position[n] for node in self.nodes for n in node.all_input_nodes if n not in own and n in position}


def _regions(order: list[fx.Node]) -> Iterator[_Region]:
    """Units and glue in an order in which they can run: a region stands where its last node stood."""
    taken: dict[fx.Node, _Region] = {}
    count = 0
    for node in order:
        if node.op != "call_module" or not _is_per_image(node):
            continue
        region = _Region(nodes=[node], op=node, unit=count)
        count += 1
        _grow_back(region, taken)
        _grow_forward(region)
        taken.update(dict.fromkeys(region.nodes, region))
    for node in order:
        if node not in taken:
            yield _Region(nodes=[node])
        elif taken[node].nodes[-1] is node:
            yield taken[node]


def _grow_back(region: _Region, taken: dict[fx.Node, _Region]) -> None:
    assert region.op is not None
    if len(region.op.meta["val"].shape) != 2:
        return
    node: Any = region.op.args[0]
    while _is_flattening(node) and len(node.users) == 1 and node not in taken:
        region.nodes.insert(0, node)
        sizes = [n for n in node.all_input_nodes if n.target is aten.sym_size.int and n.args[0] is node.args[0]]
        for size in sizes:
            region.nodes.insert(0, size)
        node = node.args[0]


def _is_flattening(node: Any) -> bool:
    return node.target in _FLATTENING and node.all_input_nodes[0].meta.get("batch_first", False)


def _is_per_image(node: fx.Node) -> bool:
    """Whether a layer reads and makes tensors with the batch in front; elsewhere (windows, frames) it is glue."""
    return bool(node.meta["batch_first"] and node.all_input_nodes[0].meta.get("batch_first"))


def _grow_forward(region: _Region) -> None:
    node = region.nodes[-1]
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.target not in _CHANNELWISE:
            return
        region.nodes.append(user)
        node = user


def _legal_cuts(regions: list[_Region], position: dict[fx.Node, int], last: int) -> list[int]:
    """Positions of the regions whose output is the one tensor alive behind them; input first, output last."""
    flow = networkx.DiGraph()
    flow.add_nodes_from(range(len(regions)))
    for i, region in enumerate(regions):
        flow.add_edges_from((j, i) for j in region.inputs(position))
    sources = [i for i, region in enumerate(regions) if region.nodes[0].op == "placeholder"]
    dominator = networkx.immediate_dominators(flow, sources[0])
    chain = [last]
    while chain[-1] != sources[0]:
        chain.append(dominator[chain[-1]])
    chain = [i for i in reversed(chain) if regions[i].nodes[-1].meta["batch_first"]]
    kept = []
    for here, following in zip(chain, [*chain[1:], None]):
        if here != sources[0] and following is not None and _pointless(regions, here, following):
            continue
        kept.append(here)
    return kept


def _pointless(regions: list[_Region], here: int, following: int) -> bool:
    """Whether cutting one glue node later is never worse: nothing with weights between, and no more bytes."""
    between = regions[here + 1 : following + 1]
    if any(node.op == "call_module" for region in between for node in region.nodes):
        return False
    return _elements(regions[following].nodes[-1]) <= _elements(regions[here].nodes[-1])


def _units(
    graph: fx.GraphModule, regions: list[_Region], position: dict[fx.Node, int], classes: int
) -> tuple[Unit, ...]:
    units: list[Unit] = []
    compressible = [region for region in regions if region.op is not None]
    span = fc_macs = 0
    for region in reversed(compressible):
        op = region.op
        assert op is not None
        assert region.unit is not None
        module = graph.get_submodule(str(op.target))
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        source = next(n for n in region.nodes[0].all_input_nodes if n.op != "get_attr")
        users = {position[user] for user in region.nodes[-1].users if user.op != "output"}
        following = regions[next(iter(users))].unit if len(users) == 1 else None
        is_last = not users
        continues = is_last or (following is not None and span > 0)
        span = span + 1 if isinstance(module, nn.Linear) and len(_shape(op)) == 1 and continues else 0
        fc_macs = fc_macs + module.weight.numel() if span else 0
        cut = region.nodes.index(op)
        names = [node.name for node in region.nodes]
        units.append(
            Unit(
                index=region.unit,
                name=op.name,
                nodes=tuple(names),
                source=source.name,
                op=module,
                head=subgraph(graph, names[:cut], source.name, names[cut - 1]) if cut else nn.Identity(),
                tail=subgraph(graph, names[cut + 1 :], op.name, names[-1]) if names[cut + 1 :] else nn.Identity(),
                in_shape=_shape(source),
                core_in_shape=_shape(op.args[0]),  # type: ignore[arg-type]
                core_out_shape=_shape(op),
                out_shape=_shape(region.nodes[-1]),
                following=following,
                fc_span=span,
                fc_macs=fc_macs,
                classes=classes,
            )
        )
    return tuple(sorted(units, key=lambda unit: unit.index))


def _with_bodies(units: tuple[Unit, ...], graph: fx.GraphModule, regions: list[_Region]) -> tuple[Unit, ...]:
    layers = [
        Layer(region.unit, tuple(node.name for node in region.nodes), region.op.name)
        for region in regions
        if region.op is not None and region.unit is not None
    ]
    known = bodies(graph, [node.name for region in regions for node in region.nodes], layers)
    return tuple(replace(unit, bodies=tuple(b for b in known if b.units[0] == unit.index)) for unit in units)


def _layers(region: _Region, graph: fx.GraphModule) -> Iterator[LayerSpec]:
    for node in region.nodes:
        if node.op == "call_module":
            yield _layer(node, graph.get_submodule(str(node.target)))
        elif node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            read = [n.meta["val"].shape for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
            yield call_spec(node.target, _shape(node), read)


def _layer(node: fx.Node, module: nn.Module) -> LayerSpec:
    """A layer with weights, by the shape that it really makes."""
    sides = node.meta["val"].shape[-2:] if isinstance(module, nn.Conv2d) else None
    return layer_spec(module, _shape(node), sides and (int(sides[0]), int(sides[1])))


def _place(index: int, item: Item, is_input: bool) -> Place:
    size = item.out_bytes // FLOAT_BYTES if is_input else item.out_bytes
    return Place(index=index, after=item.name, shape=item.out_shape, bytes=size)


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = node.meta["image_shape"]
    return shape


def _elements(node: fx.Node) -> int:
    return int(torch.Size(_shape(node)).numel())
