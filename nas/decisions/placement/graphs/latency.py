"""Time of one sample under a placement, and a placement that makes it short [Tarnawski 2020, sec. 6].

An accelerator takes a contiguous piece in one call: it starts when every input from outside is ready, moves them in,
computes, moves out what is read outside, and only then are its outputs there. With scattered splits an accelerator
takes its pieces one after the other. Nodes on CPUs start when their inputs are ready, as many at once as there are
(the number of CPUs plays no part), and pay for no transfer.

The planner chooses among *sequences* of pieces by dynamic programming over ideals: exact where the graph is a chain.
Then single groups and whole pieces move as long as the true time, with branches side by side, gets shorter.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import networkx as nx
import numpy as np

from modeltree.errors import GraphError
from nas.decisions.placement.graphs.contraction import Groups, contract
from nas.decisions.placement.graphs.cost import transfers
from nas.decisions.placement.graphs.graph_file import OperatorGraph
from nas.decisions.placement.graphs.ideals import Ideals, TooManyIdeals, enumerate_ideals, sample_ideals

SEQUENCES = 1500
"""Ideals the dynamic programme may use; those that divide the cheapest nets are kept."""
_CPU = -1


class Timing:
    """Latencies of placements of one graph."""

    def __init__(self, graph: OperatorGraph) -> None:
        self.graph = graph
        self.order = nx.DiGraph()
        self.order.add_nodes_from(node.id for node in graph.nodes)
        self.order.add_edges_from((edge.source, edge.target) for edge in graph.edges)
        if not nx.is_directed_acyclic_graph(self.order):
            raise GraphError("the graph has a circle: a sample would never end; draw it together with colorClass")
        self.sequence = list(nx.topological_sort(self.order))
        self.before = {node: list(self.order.predecessors(node)) for node in self.order}
        self.nodes = {node.id: node for node in graph.nodes}
        self.costs = graph.transfer_cost

    def pieces(self, device_of: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """For every node its piece: the accelerator and how often it was left before; (-1, node) on a CPU."""
        accelerators = self.graph.accelerators
        times_left: dict[int, dict[int, int]] = {}
        pieces = {}
        for node in self.sequence:
            on = device_of[node] if device_of[node] < accelerators else _CPU
            merged: dict[int, int] = {}
            for read in self.before[node]:
                came = device_of[read]
                for device, count in times_left[read].items():
                    again = count + (device == on and came != device and count % 2 == 1)
                    again += device != on and came == device and count % 2 == 0
                    merged[device] = max(merged.get(device, 0), again)
            if on != _CPU:
                merged.setdefault(on, 0)
                merged[on] += merged[on] % 2
            times_left[node] = merged
            pieces[node] = (on, merged[on] // 2) if on != _CPU else (_CPU, node)
        return pieces

    def latency(self, device_of: Mapping[int, int]) -> float:
        """Time of one sample; infinite where pieces wait for each other."""
        pieces = self.pieces(device_of)
        members: dict[tuple[int, int], list[int]] = {}
        for node in self.sequence:
            members.setdefault(pieces[node], []).append(node)
        return self._run(pieces, members)

    def _run(self, pieces: dict[int, tuple[int, int]], members: dict[tuple[int, int], list[int]]) -> float:
        waits: dict[tuple[int, int], set[tuple[int, int]]] = {piece: set() for piece in members}
        for piece, nodes in members.items():
            waits[piece] |= {pieces[read] for node in nodes for read in self.before[node]} - {piece}
            if piece[0] != _CPU and (piece[0], piece[1] - 1) in members:
                waits[piece].add((piece[0], piece[1] - 1))
        price = self._transfer_times(pieces)
        readers: dict[tuple[int, int], list[tuple[int, int]]] = {piece: [] for piece in members}
        for piece, needed in waits.items():
            for one in needed:
                readers[one].append(piece)
        left = {piece: len(needed) for piece, needed in waits.items()}
        ready = [piece for piece, count in left.items() if not count]
        end: dict[tuple[int, int], float] = {}
        while ready:
            piece = ready.pop()
            start = max((end[one] for one in waits[piece]), default=0.0)
            end[piece] = start + self._work(piece, members[piece]) + price.get(piece, 0.0)
            for one in readers[piece]:
                left[one] -= 1
                if not left[one]:
                    ready.append(one)
        return max(end.values()) if len(end) == len(members) else float("inf")

    def _work(self, piece: tuple[int, int], nodes: list[int]) -> float:
        if piece[0] == _CPU:
            return self.nodes[nodes[0]].cpu_time
        return sum(self.nodes[node].accelerator_time for node in nodes)

    def _transfer_times(self, pieces: dict[int, tuple[int, int]]) -> dict[tuple[int, int], float]:
        index = {piece: place for place, piece in enumerate(sorted(set(pieces.values())))}
        named = {place: piece for piece, place in index.items()}
        total: dict[tuple[int, int], float] = {}
        for source, place in transfers(self.graph, {node: index[piece] for node, piece in pieces.items()}):
            piece = named[place]
            if piece[0] != _CPU:
                total[piece] = total.get(piece, 0.0) + self.costs[source]
        return total

    def is_contiguous(self, device_of: Mapping[int, int]) -> bool:
        """Whether no accelerator takes more than one piece."""
        return all(piece[1] == 0 for piece in self.pieces(device_of).values() if piece[0] != _CPU)


def short_latency(
    graph: OperatorGraph, *, contiguous: bool, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
) -> dict[int, int]:
    """The device of every node in a placement with a short time of one sample.

    Raises
    ------
    GraphError : the graph has a circle, or nothing fits the memory.
    """
    if any(node.backward for node in graph.nodes):
        raise GraphError("the latency of a training graph is not defined here: pass one without backward nodes")
    timing, groups = Timing(graph), contract(graph)
    best = groups.spread(_best_sequence(groups, _ideals(groups, np.random.default_rng(0))))
    end = clock() + seconds
    latency, improved = timing.latency(best), True
    while improved:
        improved = False
        for moved in _neighbours(groups, timing, best):
            if clock() > end:
                return best
            if not _fits(groups, moved) or (contiguous and not timing.is_contiguous(moved)):
                continue
            new = timing.latency(moved)
            if new < latency - 1e-9:
                best, latency, improved = moved, new, True
                break
    return best


def latency_bound(graph: OperatorGraph) -> float:
    """A time that no placement gets below: the longest path, every node where it is fastest, no transfers."""
    timing, end = Timing(graph), dict[int, float]()
    for node_id in timing.sequence:
        node = timing.nodes[node_id]
        fast = min(node.accelerator_time, node.cpu_time) if node.supported and graph.accelerators else node.cpu_time
        end[node_id] = fast + max((end[read] for read in timing.before[node_id]), default=0.0)
    return max(end.values())


def _ideals(groups: Groups, rng: np.random.Generator) -> Ideals:
    try:
        return enumerate_ideals(groups)
    except TooManyIdeals:
        return sample_ideals(groups, rng)


def _central(ideals: Ideals) -> np.ndarray:
    order = np.argsort(ideals.divided_cost, kind="stable")[:SEQUENCES]
    return np.union1d(order, [0, len(ideals) - 1])


def _best_sequence(groups: Groups, every: Ideals) -> np.ndarray:
    """A device a group: the fastest sequence of pieces, nothing side by side."""
    graph, ideals = groups.graph, _central(every)
    small, large = (pairs.ravel() for pairs in np.meshgrid(ideals, ideals, indexing="ij"))
    shape = (len(ideals), len(ideals))
    within = every.contains(small, large)
    work = every.accelerator_time[large] - every.accelerator_time[small] + every.transfer(small, large)
    room = every.size[large] - every.size[small] <= graph.accelerator_bytes * (1 + 1e-12)
    fast = np.where(within & room, work, np.inf).reshape(shape)
    nothing = np.eye(len(ideals), dtype=bool)
    allowed = within.reshape(shape) & ((graph.cpus > 0) | nothing)
    slow = np.where(allowed, _on_cpus(groups, every, ideals), np.inf)
    reached = slow[0]
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(graph.accelerators):
        through = reached[:, None] + fast
        origin = through.argmin(0)
        landed = through.min(0)
        then = landed[:, None] + slow
        after = np.where(landed <= then.min(0), np.arange(len(ideals)), then.argmin(0))
        longer = np.minimum(landed, then.min(0))
        steps.append((origin, np.where(longer < reached, after, -1)))
        reached = np.minimum(reached, longer)
    if not np.isfinite(reached[-1]):
        raise GraphError("no sequence of pieces fits the accelerators' memory: add memory, accelerators or a CPU")
    device = np.full(len(groups), graph.accelerators)
    at = len(ideals) - 1
    for accelerator in range(graph.accelerators - 1, -1, -1):
        origin, after = steps[accelerator]
        if after[at] >= 0:
            landed_at = int(after[at])
            start = int(origin[landed_at])
            device[every.piece(int(ideals[start]), int(ideals[landed_at]))] = accelerator
            at = start
    return device


def _on_cpus(groups: Groups, every: Ideals, ideals: np.ndarray) -> np.ndarray:
    """(ideals, ideals): the longest path through the piece between two ideals, all of it on CPUs."""
    member = every.members(ideals, len(groups))
    before: list[list[int]] = [[] for _ in range(len(groups))]
    for a, b in groups.edges:
        before[b].append(a)
    longest = np.zeros((len(ideals), len(ideals)))
    end = np.zeros((len(ideals), len(groups)))
    for group, sources in enumerate(before):
        start = end[:, sources].max(1) if sources else 0.0
        end[:, group] = np.where(member[:, group], 0.0, start + groups.cpu_time[group])
    for row, ends in enumerate(end):
        longest[row] = np.where(member, ends, 0.0).max(1)
    return longest


def _fits(groups: Groups, device_of: Mapping[int, int]) -> bool:
    graph = groups.graph
    held = np.zeros(graph.accelerators + max(graph.cpus, 1))
    for group, ids in enumerate(groups.members):
        on = device_of[ids[0]]
        if on < graph.accelerators and not groups.supported[group]:
            return False
        held[on] += groups.size[group]
    return bool((held[: graph.accelerators] <= graph.accelerator_bytes).all())


def _neighbours(groups: Groups, timing: Timing, device_of: dict[int, int]) -> Iterator[dict[int, int]]:
    """Placements one step away: a group to a neighbour's device, to the CPU or to an idle accelerator; pieces too."""
    graph = groups.graph
    used = set(device_of.values())
    idle = [d for d in range(graph.accelerators) if d not in used][:1]
    elsewhere = [*idle, *([graph.accelerators] if graph.cpus else [])]
    touching: dict[int, set[int]] = {group: set() for group in range(len(groups))}
    on = [device_of[ids[0]] for ids in groups.members]
    for a, b in groups.edges:
        touching[a].add(on[b])
        touching[b].add(on[a])
    for group, ids in enumerate(groups.members):
        for to in {*touching[group], *elsewhere} - {on[group]}:
            yield device_of | dict.fromkeys(ids, to)
    for device in sorted(used):
        held = [node for node, d in device_of.items() if d == device and device < graph.accelerators]
        for to in {*used, *elsewhere} - {device} if held else set():
            yield device_of | dict.fromkeys(held, to)
    for branch in _branches(groups):
        for to in {*used, *elsewhere}:
            yield device_of | {node: to for group in branch for node in groups.members[group]}


def _branches(groups: Groups) -> list[list[int]]:
    """Runs of groups with one reader and one source each: what could go beside the rest."""
    after: dict[int, list[int]] = {group: [] for group in range(len(groups))}
    before: dict[int, list[int]] = {group: [] for group in range(len(groups))}
    for a, b in groups.edges:
        after[a].append(b)
        before[b].append(a)
    runs = []
    for group in range(len(groups)):
        single = len(before[group]) == 1 and len(after[before[group][0]]) == 1
        if single:
            continue
        run = [group]
        while len(after[run[-1]]) == 1 and len(before[after[run[-1]][0]]) == 1:
            run.append(after[run[-1]][0])
        runs.append(run)
    return runs
