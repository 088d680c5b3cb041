"""A network over a device and servers: the shortest time of one image, or the most images a second.

Images begin and end at the device. A host takes one piece (a difference of two cuts), at most once; whatever is alive
at a cut moves to the next host. Dynamic programming over (hosts used, the last of them, cut), exact for the cuts given:

    latency      sum of the pieces' times and the transfers'
    throughput   the slowest piece or transfer: with many images under way, each is a stage of a pipeline
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from modeltree.errors import GraphError
from nas.decisions.placement.networks.cuts import Cuts
from nas.decisions.placement.networks.hosts import Hosts

Objective = Literal["latency", "throughput"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one host runs: the items between two cuts. `arrival_ms` is the transfer before it."""

    host: int
    start: int
    stop: int
    compute_ms: float
    arrival_ms: float
    arrival_bytes: float
    weight_bytes: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages in their order, and the transfer of the answer back to the device."""

    stages: tuple[Stage, ...]
    answer_ms: float
    exact: bool

    @property
    def latency_ms(self) -> float:
        """Time of one image."""
        return self.answer_ms + sum(stage.compute_ms + stage.arrival_ms for stage in self.stages)

    @property
    def slowest_ms(self) -> float:
        """Time of the slowest stage: images follow one another at this distance."""
        return max(self.answer_ms, *(max(stage.compute_ms, stage.arrival_ms) for stage in self.stages))


def transfer_ms(hosts: Hosts, alive_bytes: np.ndarray) -> np.ndarray:
    """(hosts, hosts, cuts): moving what is alive at a cut from one host to another."""
    per_byte, fixed = hosts.rates()
    return per_byte[:, :, None] * alive_bytes + fixed[:, :, None]


def plan(cuts: Cuts, hosts: Hosts, objective: Objective) -> Plan:
    """The best plan there is for the cuts given.

    Raises
    ------
    GraphError : the hosts' memories cannot hold the network together.
    """
    move = transfer_ms(hosts, cuts.alive_bytes)
    add = np.add if objective == "latency" else np.maximum
    count, last = len(hosts.names), len(cuts) - 1
    pieces = [_pieces(cuts, hosts, host) for host in range(count)]
    best: dict[tuple[int, int], np.ndarray] = {}
    came: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for used in range(1, 1 << count):
        for host in (h for h in range(count) if used >> h & 1):
            before = used & ~(1 << host)
            ready = np.full(len(cuts), np.inf)
            origin = np.full(len(cuts), -1)
            if not before:
                ready[0] = move[0, host, 0] if host else 0.0
            for other in (h for h in range(count) if before >> h & 1):
                through = add(best[before, other], move[other, host])
                origin[through < ready] = other
                ready = np.minimum(ready, through)
            spent = add(ready[:, None], pieces[host])
            start = spent.argmin(0)
            best[used, host] = spent[start, np.arange(len(cuts))]
            came[used, host] = start, origin
    value, used, host = min(
        (float(add(values[last], move[h, 0, last] if h else 0.0)), used, h) for (used, h), values in best.items()
    )
    if not np.isfinite(value):
        raise GraphError("the network does not fit the hosts' memory: give memory_mb more, or more servers")
    stages: list[Stage] = []
    answer_ms, stop = float(move[host, 0, last]) if host else 0.0, last
    while host >= 0:
        starts, origins = came[used, host]
        start = int(starts[stop])
        previous = int(origins[start])
        sender = max(previous, 0)
        moved = sender != host
        stages.append(
            Stage(
                host=host,
                start=start,
                stop=stop,
                compute_ms=float(cuts.time_ms[host, stop] - cuts.time_ms[host, start]),
                arrival_ms=float(move[sender, host, start]) * moved,
                arrival_bytes=float(cuts.alive_bytes[start]) * moved,
                weight_bytes=float(cuts.weight_bytes[stop] - cuts.weight_bytes[start]),
            )
        )
        used, host, stop = used & ~(1 << host), previous, start
    return Plan(stages=tuple(reversed(stages)), answer_ms=answer_ms, exact=cuts.complete)


def _pieces(cuts: Cuts, hosts: Hosts, host: int) -> np.ndarray:
    """(cuts, cuts): time of the piece between two cuts on a host; infinite where it cannot be or does not fit."""
    time = cuts.time_ms[host]
    weight = cuts.weight_bytes[None, :] - cuts.weight_bytes[:, None]
    possible = cuts.inside & ~np.eye(len(cuts), dtype=bool) & (weight <= hosts.all[host].room_bytes)
    return np.where(possible, time[None, :] - time[:, None], np.inf)
