"""The contiguous split with the smallest largest load, exactly [Tarnawski 2020, sec. 5.1].

Their dynamic programme over pairs of ideals asks for the smallest largest load of every ideal. Ours asks, for one bound
T on the load, which ideals a number of processors can cover, and moves T: a cover within T, none within anything less.
The bound pays twice. A processor takes at most T of the work, so an ideal covered by n of N accelerators holds between
W - (N - n) T and n T of it (W: all the work; CPUs take at most what a fractional knapsack gives them); only those are
looked at, and the closer T is to the best one the fewer there are. And an ideal once covered is never looked at again.
"""

from dataclasses import dataclass

import numpy as np

from modeltree.errors import GraphError
from nas.decisions.placement.graphs.contraction import Groups, contract
from nas.decisions.placement.graphs.cost import loads
from nas.decisions.placement.graphs.graph_file import OperatorGraph
from nas.decisions.placement.graphs.ideals import Ideals, enumerate_ideals

PAIRS = 4_000_000
"""Pairs of ideals looked at in one go."""
_CLOSE = 1e-9


def smallest_load(graph: OperatorGraph, ideals: Ideals | None = None) -> dict[int, int]:
    """The device of every node in a contiguous split with the smallest largest load.

    ideals : those a split may go through; all of them by default.

    Raises
    ------
    TooManyIdeals : the graph is too wide.
    GraphError : no split fits the accelerators' memory.
    """
    groups = contract(graph)
    ideals = enumerate_ideals(groups) if ideals is None else ideals
    low, high = (
        lower_bound(groups),
        float(groups.cpu_time.sum() + groups.accelerator_time.sum() + ideals.cost.sum() * 2),
    )
    search = _Search(groups=groups, ideals=ideals)
    best = search.cover(high * (1 + _CLOSE))
    if best is None:
        raise GraphError("no contiguous placement fits: accelerators cannot hold nor CPUs take some nodes; add memory")
    bound, step = low, 0.01
    while high > low * (1 + _CLOSE) + _CLOSE**2:
        cover = search.cover(bound)
        if cover is None:
            low = bound
            step *= 2
        else:
            best = cover
            high = min(bound, max(loads(graph, cover).values()))
            step = 0.0
        gallop = low * (1 + step) + _CLOSE
        bound = gallop if step and gallop < high else (low + high) / 2
        if high - low < 1e-3 * high:
            bound = high * (1 - _CLOSE / 2)
            low = max(low, bound) if search.cover(bound) is None else low
    return best


def lower_bound(groups: Groups) -> float:
    """A load that no split gets below: the work over all processors, and every group somewhere."""
    graph = groups.graph
    alone = np.where(groups.supported & (graph.accelerators > 0), groups.accelerator_time, np.inf)
    slowest = float(np.minimum(alone, groups.cpu_time if graph.cpus else np.inf).max())
    low, high = 0.0, float(groups.accelerator_time.sum() + groups.cpu_time.sum())
    work = float(groups.accelerator_time[groups.supported].sum())
    for _ in range(60):
        middle = (low + high) / 2
        enough = graph.accelerators * middle + cpu_capacity(groups, graph.cpus * middle) >= work
        low, high = (low, middle) if enough else (middle, high)
    return max(slowest, low)


def cpu_capacity(groups: Groups, time: float) -> float:
    """The most accelerator time that CPUs can take over within `time`: a fractional knapsack."""
    gain = np.where(groups.supported, groups.accelerator_time, 0.0)
    order = np.argsort(-gain / np.maximum(groups.cpu_time, 1e-30))
    used = np.cumsum(groups.cpu_time[order])
    whole = used <= time
    total = float(gain[order][whole].sum())
    part = int(whole.sum())
    if part < len(order) and time > 0:
        before = used[part - 1] if part else 0.0
        total += float(gain[order][part]) * (time - before) / max(float(groups.cpu_time[order][part]), 1e-30)
    return total


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    groups: Groups
    ideals: Ideals

    def cover(self, bound: float) -> dict[int, int] | None:
        """A contiguous split with no load above `bound`, or None."""
        graph, size = self.groups.graph, len(self.ideals)
        covered = {(0, 0): np.zeros(size, bool)}
        covered[0, 0][0] = True
        came: dict[tuple[int, int], np.ndarray] = {}
        for cpus in range(graph.cpus + 1):
            for accelerators in range(graph.accelerators + 1):
                if (cpus, accelerators) == (0, 0):
                    continue
                now, origin = np.zeros(size, bool), np.full(size, -1)
                for kind, before in (("cpu", (cpus - 1, accelerators)), ("accelerator", (cpus, accelerators - 1))):
                    if before in covered:
                        self._grow(kind, bound, covered[before], now, origin, self._window(bound, cpus, accelerators))
                covered[cpus, accelerators], came[cpus, accelerators] = now, origin
        if not covered[graph.cpus, graph.accelerators][-1]:
            return None
        return self._walk_back(came)

    def _window(self, bound: float, cpus: int, accelerators: int) -> np.ndarray:
        """The ideals that a split within `bound` can have reached with so many processors."""
        graph, time = self.groups.graph, self.ideals.accelerator_time
        taken = accelerators * bound + cpu_capacity(self.groups, cpus * bound)
        rest = (graph.accelerators - accelerators) * bound + cpu_capacity(self.groups, (graph.cpus - cpus) * bound)
        slack = _CLOSE * (1 + time[-1])
        return (time <= taken + slack) & (time >= time[-1] - rest - slack)

    def _grow(
        self, kind: str, bound: float, before: np.ndarray, now: np.ndarray, origin: np.ndarray, window: np.ndarray
    ) -> None:
        """Add to `now` what one more processor of a kind reaches from `before`; `origin` says whence and by what."""
        code = 0 if kind == "cpu" else len(self.ideals)
        idle = before & window & ~now
        origin[idle] = code + np.flatnonzero(idle)
        now |= idle
        starts = np.flatnonzero(before)
        ends = np.flatnonzero(window & ~now)
        if not len(starts) or not len(ends):
            return
        ideals = self.ideals
        weight = ideals.cpu_time if kind == "cpu" else ideals.accelerator_time
        order = np.argsort(weight[starts], kind="stable")
        sorted_starts = starts[order]
        first = np.searchsorted(weight[sorted_starts], weight[ends] - bound * (1 + _CLOSE) - _CLOSE**2)
        last = np.searchsorted(weight[sorted_starts], weight[ends] + _CLOSE, side="right")
        counts = np.maximum(last - first, 0)
        at = 0
        while at < len(ends):
            until = max(at + 1, int(np.searchsorted(np.cumsum(counts[at:]), PAIRS, side="right")) + at)
            many = counts[at:until]
            large = np.repeat(ends[at:until], many)
            offset = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            small = sorted_starts[np.repeat(first[at:until], many) + offset]
            small, large = self._fitting(kind, bound, small, large)
            now[large] = True
            origin[large] = code + small
            at = until

    def _fitting(self, kind: str, bound: float, small: np.ndarray, large: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs whose piece a processor of a kind can take within `bound`."""
        ideals, limit = self.ideals, bound * (1 + _CLOSE / 4)
        if kind == "accelerator":
            work = ideals.accelerator_time[large] - ideals.accelerator_time[small]
            # sizes are summed as floats: a byte in a trillion does not decide
            room = self.groups.graph.accelerator_bytes * (1 + 1e-12)
            keep = (ideals.size[large] - ideals.size[small] <= room) & (
                work + np.abs(ideals.divided_cost[large] - ideals.divided_cost[small]) <= limit
            )
            small, large = small[keep], large[keep]
        keep = ideals.contains(small, large)
        small, large = small[keep], large[keep]
        if kind == "accelerator" and len(small):
            work = ideals.accelerator_time[large] - ideals.accelerator_time[small]
            keep = work + ideals.transfer(small, large) <= limit
            small, large = small[keep], large[keep]
        return small, large

    def _walk_back(self, came: dict[tuple[int, int], np.ndarray]) -> dict[int, int]:
        graph, size = self.groups.graph, len(self.ideals)
        cpus, accelerators, ideal = graph.cpus, graph.accelerators, size - 1
        device = np.zeros(len(self.groups), int)
        while ideal:
            code = int(came[cpus, accelerators][ideal])
            kind_is_cpu, smaller = code < size, code % size
            piece = self.ideals.piece(smaller, ideal)
            if kind_is_cpu:
                cpus -= 1
                device[piece] = graph.accelerators + cpus
            else:
                accelerators -= 1
                device[piece] = accelerators
            ideal = smaller
        return self.groups.spread(device)
