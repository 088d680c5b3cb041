"""Emulation with the bandwidth as the runtime knows it: estimated from hand-overs and probes, held by hysteresis.

`modeltree.tree.emulate` measures perfectly at every fork. Here the type comes from the runtime's own `Estimator` and
switch, which hear of the link what a device would: each hand-over when its answer arrives and, when a probe is due, a
small message and the probe. Messages take exactly the round trip and the trace's time: no jitter.

Outages cost what they cost a session: where an answer is overdue the rest is begun here, if the tree says what it
takes, the server is not asked again until it has answered, and after a failure not before a probe has passed.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from modeltree.link.traces import Trace
from modeltree.tree import ModelTree, Node
from modeltree.tree.emulate import Emulation, accuracies, checked_starts, link_ms, ranks, sure_exits
from modeltree.units import bytes_per_ms, ms_from_s, s_from_ms
from runtime.bandwidth import Estimate, Estimator, ProbePolicy, Reading, longer_probe, probe_due
from runtime.bandwidth.switch import Hysteresis, Match, matched
from runtime.inference.hedging import UNMET_S
from runtime.inference.met_times import link_now
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.offload_client import CALLS_IN_FLIGHT
from runtime.remote.prober import PING_BYTES, PINGS, SURPRISES
from runtime.selection.branch_selection import SWITCH, ByMeasured, LinkState, open_driver
from runtime.selection.reweighing import LATE, AsPredicted, LinkNow

PATIENCE_S = 2.0
"""A device waits so long for an answer; what is later tells the estimator "at most so fast", as in the runtime."""

LOOK_S = 0.25
"""How often the device asks itself whether a probe is due, as in the runtime."""


def emulate_estimated(
    tree: ModelTree, trace: Trace, *, starts_s: np.ndarray, probes: ProbePolicy | None = None,
    hysteresis: Hysteresis | None = None, policy: str = SWITCH,
) -> Emulation:  # fmt: skip
    """Walk the tree from every start, in the order of time, one estimator hearing of all.

    Inferences that overlap do not slow each other down, nor do probes slow them. Before the first reading the type is
    the slowest, as in the runtime.

    Parameters
    ----------
    starts_s : (starts,), finite. probes : when the link is probed. hysteresis : of the switch.
    policy : what takes the forks, as for a session (`runtime.selection.branch_selection`). Where that is `measured`,
        what is met are the tree's times.

    Raises
    ------
    ConfigError : `starts_s` is not a row of finite numbers, or there is no such policy.
    """
    starts_s = checked_starts(starts_s)
    device = _Device(tree, trace, starts_s, probes or ProbePolicy(), hysteresis or Hysteresis(), policy)
    return device.run()


class _Device:
    """One device on one link: a queue of what happens when, and what it knows of the link by then."""

    def __init__(
        self,
        tree: ModelTree,
        trace: Trace,
        starts_s: np.ndarray,
        probes: ProbePolicy,
        hysteresis: Hysteresis,
        policy: str,
    ) -> None:
        self._tree, self._trace, self._starts_s = tree, trace, starts_s
        self._probes, self._hysteresis = probes, hysteresis
        self.estimator = Estimator(rtt_ms=tree.rtt_ms)
        self.now_s = 0.0
        self._overdue, self._calls = 0, 0
        self._served = set[str]()  # blocks that the server has answered for
        self._breaker = Breaker(lambda: self.now_s, random.Random(0))
        self._driver = open_driver(tree, policy)
        if isinstance(self._driver, ByMeasured):
            self._driver.reckons_with(_Heard(tree, self))
        self._match: Match | None = None
        self._asked_s = self._probed_s = self._handed_over_s = -math.inf
        self._surprises = 0
        self._under_way = 0
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._sure, self._rank = sure_exits(tree), ranks(starts_s.size)
        self._latency_ms = np.empty(starts_s.size)
        self._leaf = np.empty(starts_s.size, dtype=int)

    def run(self) -> Emulation:
        """Let everything happen."""
        for i, start_s in enumerate(self._starts_s.tolist()):
            self._at(start_s, partial(self._fork, i, None, 0.0))
        if self._starts_s.size:
            self._at(float(self._starts_s.min()), self._look)
        while self._queue:
            self.now_s, _, happen = heapq.heappop(self._queue)
            happen(self.now_s)
        return Emulation(
            starts_s=self._starts_s, latency_ms=self._latency_ms, accuracy=accuracies(self._tree)[self._leaf],
            leaf=self._leaf,
        )  # fmt: skip

    def _at(self, time_s: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._queue, (time_s, next(self._order), happen))

    def _fork(self, i: int, here: int | None, elapsed_ms: float, now_s: float) -> None:
        """Inference `i` stands below node `here`: match, run the block, go on or hand over."""
        self._asked_s = now_s
        estimate = self.estimator.estimate(now_s)
        self._match = matched(self._tree.types, estimate, self._match, self._hysteresis)
        mbps = math.nan if estimate is None else estimate.mbps
        seen = LinkState(self._match.type, mbps, asks=self._asks())
        node, start_s = self._driver.child(here, seen), float(self._starts_s[i])
        if node.handover is None:
            done_ms = elapsed_ms + node.device_ms
        elif not node.handover.device_ms or (seen.asks and not self._driver.goes_on_here(node, seen)):
            done_ms = self._handed_over(node, start_s, elapsed_ms + node.device_ms, estimate)
        else:
            done_ms = elapsed_ms + node.device_ms - node.handover.encode_ms + node.handover.device_ms
        if node.id in self._sure:
            exit, below = self._sure[node.id]
            done_ms += exit.device_ms
            if self._rank[i] < below:
                self._latency_ms[i], self._leaf[i] = done_ms, exit.id
                return
        if node.leaf is None:
            self._at(start_s + s_from_ms(done_ms), partial(self._fork, i, node.id, done_ms))
            return
        self._latency_ms[i], self._leaf[i] = done_ms, node.id
        self._driver.answered(node.id, seen, 0.0, 0.0)

    def _asks(self) -> bool:
        """Whether the server may be asked, as `runtime.remote.offload_client.Cloud` has it."""
        breaker = self._breaker
        return breaker.closed and not breaker.doubted and not self._overdue and self._calls < CALLS_IN_FLIGHT

    def _handed_over(self, node: Node, start_s: float, began_ms: float, estimate: Estimate | None) -> float:
        """Milliseconds from the start to the answer of what is handed over then: the cloud's or, if late, our own."""
        assert node.handover is not None
        size_bytes, began_s = node.handover.bytes, start_s + s_from_ms(began_ms)
        if not size_bytes:
            return began_ms + ms_from_s(self._link_s(0, began_s)) + node.cloud_ms
        link_s, cloud_s = self._link_s(size_bytes, began_s), s_from_ms(node.cloud_ms)
        met = estimate is not None and node.handover.block in self._served
        low_mbps = self._tree.types.representative_mbps[0] if estimate is None else estimate.low_mbps
        due_s = self.estimator.round_trip.seconds + s_from_ms(size_bytes / bytes_per_ms(low_mbps)) + cloud_s
        late_s = LATE * due_s if met else max(LATE * due_s, UNMET_S)
        alone_s = min(PATIENCE_S, late_s) if node.handover.device_ms else math.inf
        late = link_s + cloud_s > alone_s
        self._calls += 1
        self._sent(
            began_s, size_bytes, link_s, cloud_s=cloud_s, heard=partial(self._answered, node.handover.block, late=late)
        )
        if late:
            self._at(began_s + alone_s, self._is_overdue)
        return began_ms + min(ms_from_s(link_s + cloud_s), ms_from_s(alone_s) + (node.handover.device_ms or math.inf))

    def _is_overdue(self, now_s: float) -> None:
        self._overdue += 1

    def _look(self, now_s: float) -> None:
        """Probe if that is due, or if the last probe was surprising; look again later."""
        estimate, surprised = self.estimator.estimate(now_s), self._surprises or self._breaker.doubted
        size = 0 if not self._breaker.closed else probe_due(
            now_s, estimate, self._probes, last_inference_s=self._asked_s, last_probe_s=self._probed_s,
            busy=self._under_way > 0, relied=estimate is not None and self._handed_over_s > now_s - estimate.age_s,
        )  # fmt: skip
        if size or (surprised and self._breaker.closed):
            self._probed_s = now_s
            self._ping(PINGS, size or self._probes.least_bytes, now_s)
        if now_s + LOOK_S <= self._starts_s.max():
            self._at(now_s + LOOK_S, self._look)

    def _ping(self, left: int, size_bytes: int, now_s: float) -> None:
        """Small messages for the round trip, so many, then those for the bandwidth."""
        further = partial(self._ping, left - 1) if left > 1 else partial(self._measure, 1)

        def heard(reading: Reading, then_s: float) -> None:
            self.estimator.add(reading)
            if reading.finished:
                further(size_bytes, then_s)
            else:
                self._breaker.failed(link=True)

        self._sent(now_s, PING_BYTES, self._link_s(PING_BYTES, now_s), cloud_s=0.0, heard=heard)

    def _measure(self, number: int, size_bytes: int, now_s: float) -> None:
        """Messages that grow until one is long enough to tell; the last one counts."""

        def heard(reading: Reading, then_s: float) -> None:
            jitter_ms = ms_from_s(self.estimator.round_trip.jitter_s)
            carried_mbps = self.estimator.carried_mbps(reading)
            longer = longer_probe(size_bytes, carried_mbps, jitter_ms, self._probes) if reading.finished else 0
            if longer and number < self._probes.rounds:
                return self._measure(number + 1, longer, then_s)
            self.estimator.add(replace(reading, grown=reading.finished))
            if reading.finished:
                self._breaker.passed()
            else:
                self._breaker.failed(link=True)
            estimate, types = self.estimator.estimate(then_s), self._tree.types
            surprising = estimate is not None and types.match(carried_mbps) != types.match(estimate.mbps)
            self._surprises = self._surprises + 1 if surprising and self._surprises < SURPRISES else 0
            return None

        self._sent(now_s, size_bytes, self._link_s(size_bytes, now_s), cloud_s=0.0, heard=heard)

    def _link_s(self, size_bytes: int, now_s: float) -> float:
        return s_from_ms(link_ms(self._tree, self._trace, size_bytes, now_s))

    def _sent(
        self, began_s: float, size_bytes: int, link_s: float, *, cloud_s: float, heard: Callable[[Reading, float], None]
    ) -> None:  # fmt: skip
        """Bytes go out; `heard` is told when the answer is there or the patience at its end."""
        finished = link_s + cloud_s <= PATIENCE_S
        ends_s = began_s + (link_s + cloud_s if finished else PATIENCE_S)
        reading = Reading(
            time_s=ends_s, size_bytes=size_bytes, seconds=link_s if finished else PATIENCE_S, finished=finished
        )

        def ends(now_s: float) -> None:
            self._under_way -= 1
            heard(reading, now_s)

        self._at(began_s, self._begins)
        self._at(ends_s, ends)

    def _begins(self, now_s: float) -> None:
        self._under_way += 1

    def _answered(self, block: str, reading: Reading, now_s: float, *, late: bool) -> None:
        """A hand-over's answer is there, or was given up."""
        self._handed_over_s = now_s
        self._calls -= 1
        self._overdue -= late
        self.estimator.add(reading)
        if reading.finished:
            self._breaker.succeeded()
            self._served.add(block)
            self._surprises = self._surprises or int(late)
        else:
            self._breaker.failed(reading.time_s - reading.seconds, link=True)


class _Heard(AsPredicted):
    """Times as the tree has them, for they are what is met here; the link as the device knows it."""

    def __init__(self, tree: ModelTree, device: _Device) -> None:
        super().__init__(tree)
        self._device = device

    def link(self, seen: LinkState) -> LinkNow | None:
        """What the estimator says of it."""
        estimator, now_s = self._device.estimator, self._device.now_s
        rtt_ms = ms_from_s(estimator.round_trip.usual_s) + self._tree.extra_ms
        return link_now(estimator.estimate(now_s), rtt_ms)
