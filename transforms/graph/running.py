"""A frozen network run part by part: what its nodes give, or what crosses at its places. THE one way to do that.

Nodes run one by one on the network's own graph, so that numbers are those of the network as a whole. Nothing is
differentiated; to train a part, take it out with `Network.between`.
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import fx

from modeltree.errors import GraphError
from transforms.graph.network import Network


def values_at(network: Network, x: torch.Tensor, places: Iterable[int], *, start: int = 0) -> dict[int, torch.Tensor]:
    """What crosses at some places.

    Parameters
    ----------
    x : (n, *shape) what crosses at place `start`; normalised images (n, c, h, w) unless said.
    places : from `start` on; nothing behind the last of them is computed.

    Returns
    -------
    {place: (n, *shape of the place)}, in the order of the places.

    Raises
    ------
    GraphError : a place lies before `start`, or there is none of that number.
    """
    spec, wanted = network.spec, sorted(set(places))
    if wanted and not start <= wanted[0] <= wanted[-1] < len(spec.places):
        raise GraphError(f"places are {wanted}: they must lie from {start} to {len(spec.places) - 1}")
    between = range(start, wanted[-1] if wanted else start)
    names = {name for s in between for i in spec.segments[s] for name in network.item_nodes[i]}
    part = _Part(network.graph, names, {spec.places[place].after for place in wanted}, spec.places[start].after, x)
    found = part.values()
    return {place: found[spec.places[place].after] for place in wanted}


def node_values(network: Network, images: torch.Tensor, nodes: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
    """What nodes of the graph give for normalised images (n, c, h, w): {name: (n, *shape)}.

    nodes : names; all that give a tensor with the batch in front unless said.
    """
    known = {node.name: node for node in network.graph.graph.nodes if node.op not in ("output", "get_attr")}
    if nodes is None:
        nodes = [name for name, node in known.items() if node.meta.get("batch_first")]
    return _Part(network.graph, set(known), set(nodes), network.spec.places[0].after, images).values()


class _Part(fx.Interpreter):
    """Runs the nodes of `names` alone; `x` is what node `entry` gives."""

    def __init__(
        self, graph: fx.GraphModule, names: Collection[str], wanted: Collection[str], entry: str, x: torch.Tensor
    ) -> None:
        super().__init__(graph)
        self.names, self.wanted, self.entry, self.x = names, wanted, entry, x
        self.kept: dict[str, torch.Tensor] = {}

    def values(self) -> dict[str, torch.Tensor]:
        """What the wanted nodes give."""
        with torch.no_grad():
            self.run(enable_io_processing=False)
        return self.kept

    def run_node(self, node: fx.Node) -> Any:
        """The node's value; None if it lies outside the part, where nobody asks for it."""
        if node.name == self.entry:
            value = self.x
        elif node.op == "get_attr" or node.name in self.names:
            value = super().run_node(node)
        else:
            return None
        if node.name in self.wanted:
            self.kept[node.name] = value
        return value
