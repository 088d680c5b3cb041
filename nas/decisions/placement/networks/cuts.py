"""The cuts of a real network, and what lies before each: time on every host, weights, bytes alive.

A cut is an ideal of the network's graph. At a *place* one tensor is alive, and that is what servers can hand on; with
`every=True` the cuts through branches count too, where several tensors cross together.
"""

from dataclasses import dataclass

import numpy as np

from modeltree.network import NetworkSpec
from modeltree.profiles import DeviceProfile
from nas.decisions.placement.graphs.contraction import contract
from nas.decisions.placement.graphs.graph_file import Edge, Node, OperatorGraph
from nas.decisions.placement.graphs.ideals import TooManyIdeals, enumerate_ideals, sample_ideals


@dataclass(frozen=True, kw_only=True, eq=False)
class Cuts:
    """Cuts in an order that runs: the input first, the output last.

    items : (cuts, items), bool; the items of the network before each cut.
    inside : (cuts, cuts), bool; whether one cut lies before another.
    time_ms : (hosts, cuts), of everything before. weight_bytes, alive_bytes : (cuts,); before it, and across it.
    place : the place's index, or -1.
    complete : whether these are all the cuts that were asked for.
    """

    items: np.ndarray
    inside: np.ndarray
    time_ms: np.ndarray
    weight_bytes: np.ndarray
    alive_bytes: np.ndarray
    place: np.ndarray
    complete: bool

    def __len__(self) -> int:
        return len(self.items)


def cuts_of(
    spec: NetworkSpec, profiles: list[DeviceProfile], slowdowns: list[float], *, every: bool = False, limit: int = 1200
) -> Cuts:
    """The cuts of a network with times on every host.

    every : also those where several tensors are alive; the `limit` that fewest bytes cross, and all places.
    """
    items, alive, complete = _places(spec)
    if every:
        items, alive, complete = _every(spec, items, alive, limit)
    times = np.array([
        [slowdown * profile.compute_ms(item.layers) for item in spec.items]
        for profile, slowdown in zip(profiles, slowdowns, strict=True)
    ])  # fmt: skip
    weights = np.array([sum(layer.weight_bytes for layer in item.layers) for item in spec.items], float)
    places = {_key(row): index for index, row in enumerate(_places(spec)[0])}
    outside = (~items).astype(np.float32)
    return Cuts(
        items=items,
        inside=(items.astype(np.float32) @ outside.T) == 0,
        time_ms=times @ items.T,
        weight_bytes=items @ weights,
        alive_bytes=alive,
        place=np.array([places.get(_key(row), -1) for row in items]),
        complete=complete,
    )


def _key(row: np.ndarray) -> bytes:
    return np.packbits(row).tobytes()


def _places(spec: NetworkSpec) -> tuple[np.ndarray, np.ndarray, bool]:
    items = np.zeros((len(spec.places), len(spec.items)), bool)
    items[0] = [not item.inputs for item in spec.items]
    for index, segment in enumerate(spec.segments):
        items[index + 1] = items[index]
        items[index + 1, list(segment)] = True
    return items, np.array([place.bytes for place in spec.places], float), True


def _every(
    spec: NetworkSpec, places: np.ndarray, alive_at_places: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    groups = contract(_graph(spec))
    try:
        ideals, complete = enumerate_ideals(groups), True
    except TooManyIdeals:
        ideals, complete = sample_ideals(groups, np.random.default_rng(0)), False
    items = np.zeros((len(ideals), len(spec.items)), bool)
    items[:, [ids[0] for ids in groups.members]] = ideals.members(np.arange(len(ideals)), len(groups))
    alive = ideals.divided_cost
    known = {_key(row) for row in places}
    other = np.array([at for at, row in enumerate(items) if row.any() and _key(row) not in known], int)
    kept = other[np.argsort(alive[other], kind="stable")[: max(0, limit - len(places))]]
    items, alive = np.concatenate([places, items[kept]]), np.concatenate([alive_at_places, alive[kept]])
    order = np.argsort(items.sum(1), kind="stable")
    return items[order], alive[order], complete and len(kept) == len(other)


def _graph(spec: NetworkSpec) -> OperatorGraph:
    """The network as an operator graph whose costs are bytes; the input is an item too."""
    at = {item.name: index for index, item in enumerate(spec.items)}
    size = [spec.places[0].bytes if not item.inputs else item.out_bytes for item in spec.items]
    edges = [
        Edge(source=at[name], target=index, cost=float(size[at[name]]))
        for index, item in enumerate(spec.items)
        for name in dict.fromkeys(item.inputs)
    ]
    nodes = [Node(id=index, cpu_time=1.0, accelerator_time=1.0) for index in range(len(spec.items))]
    return OperatorGraph(accelerator_bytes=0.0, accelerators=1, cpus=1, nodes=tuple(nodes), edges=tuple(edges))
