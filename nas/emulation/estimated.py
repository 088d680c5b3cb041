"""Emulation with the bandwidth as the runtime knows it: estimated from hand-overs and probes, held by hysteresis.

`modeltree.tree.emulate` measures perfectly at every fork. Here the type comes from the runtime's own `Estimator` and
switch, which hear of the link what a device would: each hand-over when its answer arrives and, when a probe is due, a
small message and the probe. All latencies are those of `modeltree.tree.emulate`, so that the difference is what
imperfect measuring costs. Messages take exactly the round trip and the trace's time: no jitter.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from modeltree.link.traces import Trace
from modeltree.tree import ModelTree
from modeltree.tree.emulate import Emulation, accuracies, after_ms, checked_starts, link_ms, ranks, sure_exits
from modeltree.units import ms_from_s, s_from_ms
from runtime.bandwidth import Estimator, ProbePolicy, Reading, longer_probe, probe_due
from runtime.bandwidth.switch import Hysteresis, Match, matched
from runtime.inference.met_times import link_now
from runtime.remote.prober import PING_BYTES, PINGS, SURPRISES
from runtime.selection.branch_selection import ByMeasured, BySwitch, Driver, LinkState
from runtime.selection.reweighing import AsPredicted, LinkNow

PATIENCE_S = 2.0
"""A device waits so long for an answer; what is later tells the estimator "at most so fast", as in the runtime."""

LOOK_S = 0.25
"""How often the device asks itself whether a probe is due, as in the runtime."""


def emulate_estimated(
    tree: ModelTree, trace: Trace, *, starts_s: np.ndarray, policy: ProbePolicy | None = None,
    hysteresis: Hysteresis | None = None, reweighs: bool = False,
) -> Emulation:  # fmt: skip
    """Walk the tree from every start, in the order of time, one estimator hearing of all.

    Inferences that overlap do not slow each other down, nor do probes slow them. Before the first reading the type is
    the slowest, as in the runtime.

    Parameters
    ----------
    starts_s : (starts,), finite. policy : of probes. hysteresis : of the switch.
    reweighs : the device weighs the leaves by what it met (`runtime.selection.reweighing`), instead of taking the fork
        of the type; what is met are the tree's times.

    Raises
    ------
    ConfigError : `starts_s` is not a row of finite numbers.
    """
    starts_s = checked_starts(starts_s)
    device = _Device(tree, trace, starts_s, policy or ProbePolicy(), hysteresis or Hysteresis())
    if reweighs:
        device.driver = ByMeasured(tree, _Heard(tree, device))
    return device.run()


class _Device:
    """One device on one link: a queue of what happens when, and what it knows of the link by then."""

    def __init__(
        self, tree: ModelTree, trace: Trace, starts_s: np.ndarray, policy: ProbePolicy, hysteresis: Hysteresis
    ) -> None:
        self._tree, self._trace, self._starts_s = tree, trace, starts_s
        self._policy, self._hysteresis = policy, hysteresis
        self.estimator = Estimator(rtt_ms=tree.rtt_ms)
        self.driver: Driver = BySwitch(tree)
        self.now_s = 0.0
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
            now_s, _, happen = heapq.heappop(self._queue)
            happen(now_s)
        return Emulation(
            starts_s=self._starts_s, latency_ms=self._latency_ms, accuracy=accuracies(self._tree)[self._leaf],
            leaf=self._leaf,
        )  # fmt: skip

    def _at(self, time_s: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._queue, (time_s, next(self._order), happen))

    def _fork(self, i: int, here: int | None, elapsed_ms: float, now_s: float) -> None:
        """Inference `i` stands below node `here`: match, run the block, go on or hand over."""
        self._asked_s = self.now_s = now_s
        estimate = self.estimator.estimate(now_s)
        self._match = matched(self._tree.types, estimate, self._match, self._hysteresis)
        seen = LinkState(self._match.type, math.nan if estimate is None else estimate.mbps, asks=True)
        node, start_s = self.driver.child(here, seen), float(self._starts_s[i])
        done_ms = after_ms(self._tree, node, self._trace, start_s, elapsed_ms)
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
        self.driver.answered(node.id, seen, 0.0, 0.0)
        if node.handover is not None and node.handover.bytes:
            began_ms = elapsed_ms + node.device_ms
            self._sent(
                start_s + s_from_ms(began_ms), node.handover.bytes, s_from_ms(done_ms - began_ms - node.cloud_ms),
                cloud_s=s_from_ms(node.cloud_ms), heard=self._answered,
            )  # fmt: skip

    def _look(self, now_s: float) -> None:
        """Probe if that is due, or if the last probe was surprising; look again later."""
        estimate = self.estimator.estimate(now_s)
        size = probe_due(
            now_s, estimate, self._policy, last_inference_s=self._asked_s, last_probe_s=self._probed_s,
            busy=self._under_way > 0, relied=estimate is not None and self._handed_over_s > now_s - estimate.age_s,
        )  # fmt: skip
        if size or self._surprises:
            self._probed_s = now_s
            self._ping(PINGS, size or self._policy.least_bytes, now_s)
        if now_s + LOOK_S <= self._starts_s.max():
            self._at(now_s + LOOK_S, self._look)

    def _ping(self, left: int, size_bytes: int, now_s: float) -> None:
        """Small messages for the round trip, so many, then those for the bandwidth."""
        further = partial(self._ping, left - 1) if left > 1 else partial(self._measure, 1)

        def heard(reading: Reading, then_s: float) -> None:
            self.estimator.add(reading)
            if reading.finished:
                further(size_bytes, then_s)

        self._sent(now_s, PING_BYTES, self._link_s(PING_BYTES, now_s), cloud_s=0.0, heard=heard)

    def _measure(self, number: int, size_bytes: int, now_s: float) -> None:
        """Messages that grow until one is long enough to tell; the last one counts."""

        def heard(reading: Reading, then_s: float) -> None:
            jitter_ms = ms_from_s(self.estimator.round_trip.jitter_s)
            carried_mbps = self.estimator.carried_mbps(reading)
            longer = longer_probe(size_bytes, carried_mbps, jitter_ms, self._policy) if reading.finished else 0
            if longer and number < self._policy.rounds:
                return self._measure(number + 1, longer, then_s)
            self.estimator.add(replace(reading, grown=reading.finished))
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

    def _answered(self, reading: Reading, now_s: float) -> None:
        """A hand-over's answer is there, or was given up."""
        self._handed_over_s = now_s
        self.estimator.add(reading)


class _Heard(AsPredicted):
    """Times as the tree has them, for they are what is met here; the link as the device knows it."""

    def __init__(self, tree: ModelTree, device: _Device) -> None:
        super().__init__(tree)
        self._device = device

    def link(self, seen: LinkState) -> LinkNow | None:
        """What the estimator says of it."""
        estimator = self._device.estimator
        estimate = estimator.estimate(self._device.now_s)
        return link_now(estimate, ms_from_s(estimator.round_trip.usual_s) + self._tree.extra_ms)
