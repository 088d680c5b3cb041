"""Splits that need not be contiguous, with a small largest load: annealing on the groups, a bound, a mixed programme.

The problem is makespan scheduling with transfers, hard even without them, so no answer here claims more than it proves:
`exact` says that the bound was reached. Small graphs are closed by the integer programme of [Tarnawski 2020, sec. 5.2].
"""

import math
import time
from collections.abc import Callable

import numpy as np

from modeltree.errors import GraphError
from nas.decisions.placement.graphs.contraction import Groups, contract
from nas.decisions.placement.graphs.graph_file import OperatorGraph

_COOLEST = 1e-3
_OVERFULL = 1e6


class Loads:
    """Loads of all devices under moves of single groups. Symbols as in `contraction`: a net is paid where it is cut."""

    def __init__(self, groups: Groups, device: np.ndarray) -> None:
        graph = groups.graph
        self.groups, self.device = groups, device.astype(int).tolist()
        self.devices, self.accelerators = graph.accelerators + graph.cpus, graph.accelerators
        self.time = [
            (groups.accelerator_time if d < graph.accelerators else groups.cpu_time).tolist()
            for d in range(self.devices)
        ]
        self.size, self.room = groups.size.tolist(), graph.accelerator_bytes
        self.nets_of: list[list[int]] = [[] for _ in range(len(groups))]
        for index, (touched, _) in enumerate(groups.nets):
            for group in touched:
                self.nets_of[group].append(index)
        self.width = [len(touched) for touched, _ in groups.nets]
        self.price = [cost for _, cost in groups.nets]
        self.held = [[0] * self.devices for _ in groups.nets]
        self.load, self.bytes = [0.0] * self.devices, [0.0] * self.devices
        for group, on in enumerate(self.device):
            self.load[on] += self.time[on][group]
            self.bytes[on] += self.size[group]
            for net in self.nets_of[group]:
                self.held[net][on] += 1
        for net, held in enumerate(self.held):
            for on in range(self.accelerators):
                if 0 < held[on] < self.width[net]:
                    self.load[on] += self.price[net]

    def move_(self, group: int, to: int) -> None:
        """Put a group onto another device."""
        start = self.device[group]
        self._shift(group, start, -1)
        self._shift(group, to, 1)
        self.device[group] = to

    def _shift(self, group: int, on: int, by: int) -> None:
        self.load[on] += by * self.time[on][group]
        self.bytes[on] += by * self.size[group]
        for net in self.nets_of[group]:
            held, width = self.held[net], self.width[net]
            if on < self.accelerators:
                before, after = 0 < held[on] < width, 0 < held[on] + by < width
                self.load[on] += (after - before) * self.price[net]
            held[on] += by

    def overfull(self) -> float:
        """Bytes above what accelerators hold, summed."""
        return sum(max(0.0, b - self.room) for b in self.bytes[: self.accelerators])

    def largest(self) -> float:
        """The largest load."""
        return max(self.load)

    def energy(self, sharpness: float = 8.0) -> float:
        """A smooth largest load, so that moves between devices that are not the slowest count too."""
        top = max(self.load)
        if top <= 0:
            return 0.0
        smooth = top * sum((x / top) ** sharpness for x in self.load) ** (1 / sharpness)
        return smooth + _OVERFULL * self.overfull() / max(self.room, 1.0)


def small_load(
    graph: OperatorGraph,
    *,
    start: dict[int, int] | None = None,
    seconds: float = 10.0,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, int]:
    """The device of every node in a split with a small largest load, contiguous or not.

    start : a placement to begin with; by default everything goes where it is fastest.
    """
    groups = contract(graph, fuse_circles=False)
    device = _beginning(groups, start)
    best, largest = device, math.inf
    rng = np.random.default_rng(seed)
    end = clock() + seconds
    while True:
        candidate = _anneal(groups, best, rng, end, clock)
        state = Loads(groups, candidate)
        if state.overfull() <= 0 and state.largest() < largest - 1e-12:
            best, largest = candidate, state.largest()
        if clock() >= end:
            break
    if math.isinf(largest):
        raise GraphError("no placement that fits the accelerators' memory came up: add memory, accelerators or seconds")
    return groups.spread(best)


def _beginning(groups: Groups, start: dict[int, int] | None) -> np.ndarray:
    graph = groups.graph
    if start is not None:
        return np.array([start[ids[0]] for ids in groups.members])
    fast = groups.accelerator_time <= groups.cpu_time if graph.cpus else np.ones(len(groups), bool)
    spread = np.arange(len(groups)) * max(graph.accelerators, 1) // len(groups)
    on_cpu = ~groups.supported | (graph.accelerators == 0) | ~fast
    return np.where(on_cpu & (graph.cpus > 0), graph.accelerators, spread)


def _anneal(
    groups: Groups, device: np.ndarray, rng: np.random.Generator, end: float, clock: Callable[[], float]
) -> np.ndarray:
    """One descent from warm to cold; the best placement on the way that fits."""
    state = Loads(groups, device)
    best, lowest = list(state.device), state.energy() if state.overfull() <= 0 else math.inf
    allowed = [
        [d for d in range(state.devices) if d >= state.accelerators or supported] for supported in groups.supported
    ]
    movable = [group for group, choices in enumerate(allowed) if len(choices) > 1]
    energy, rounds = state.energy(), 200 * len(groups)
    warmth = 0.05 * energy
    if not movable:
        return device
    for step in range(rounds):
        if step % 256 == 0 and (clock() > end and step > 0):
            break
        temperature = warmth * (_COOLEST ** (step / rounds))
        group = movable[int(rng.random() * len(movable))]
        source = state.device[group]
        to = _target(groups, state, group, allowed[group], rng)
        if to == source:
            continue
        state.move_(group, to)
        new = state.energy()
        if new <= energy or rng.random() < math.exp((energy - new) / max(temperature, 1e-30)):
            energy = new
            if new < lowest and state.overfull() <= 0:
                lowest, best = new, list(state.device)
        else:
            state.move_(group, source)
    return np.array(best)


def _target(groups: Groups, state: Loads, group: int, allowed: list[int], rng: np.random.Generator) -> int:
    """Where to move a group: mostly beside a neighbour, sometimes anywhere."""
    nets = state.nets_of[group]
    if nets and rng.random() < 0.7:
        touched = groups.nets[nets[int(rng.random() * len(nets))]][0]
        beside = state.device[touched[int(rng.random() * len(touched))]]
        if beside in allowed:
            return beside
    return allowed[int(rng.random() * len(allowed))]
