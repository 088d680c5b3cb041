"""Emulation with the bandwidth as the runtime knows it: estimated from hand-overs and probes, held by hysteresis.

`modeltree.emulate` measures perfectly at every fork. Here the type comes from the runtime's own `Estimator` and
switch, which hear of the link what a device would: each hand-over when its answer arrives and, when a probe is due, a
small message and the probe. All latencies are those of `modeltree.emulate`, so that the difference is what
imperfect measuring costs. Messages take exactly the round trip and the trace's time: no jitter.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from modeltree.emulate import Emulation, accuracies, after_ms, checked_starts, ranks, sure_exits
from modeltree.link.traces import Trace
from modeltree.tree import ModelTree
from modeltree.units import s_from_ms
from runtime.bandwidth import Estimator, ProbePolicy, Reading, probe_due
from runtime.bandwidth.switch import Hysteresis, Match, matched
from runtime.remote.prober import PING_BYTES

PATIENCE_S = 2.0
"""A device waits so long for an answer; what is later tells the estimator "at most so fast", as in the runtime."""

LOOK_S = 0.25
"""How often the device asks itself whether a probe is due, as in the runtime."""


def emulate_estimated(
    tree: ModelTree, trace: Trace, *, starts_s: np.ndarray, policy: ProbePolicy | None = None,
    hysteresis: Hysteresis | None = None,
) -> Emulation:  # fmt: skip
    """Walk the tree from every start, in the order of time, one estimator hearing of all.

    Inferences that overlap do not slow each other down, nor do probes slow them. Before the first reading the type is
    the slowest, as in the runtime.

    Parameters
    ----------
    starts_s : (starts,), finite. policy : of probes. hysteresis : of the switch.

    Raises
    ------
    ConfigError : `starts_s` is not a row of finite numbers.
    """
    starts_s = checked_starts(starts_s)
    return _Device(tree, trace, starts_s, policy or ProbePolicy(), hysteresis or Hysteresis()).run()


class _Device:
    """One device on one link: a queue of what happens when, and what it knows of the link by then."""

    def __init__(
        self, tree: ModelTree, trace: Trace, starts_s: np.ndarray, policy: ProbePolicy, hysteresis: Hysteresis
    ) -> None:
        self._tree, self._trace, self._starts_s = tree, trace, starts_s
        self._policy, self._hysteresis = policy, hysteresis
        self._estimator = Estimator(rtt_ms=tree.rtt_ms)
        self._match: Match | None = None
        self._asked_s = self._probed_s = -math.inf
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
        self._asked_s = now_s
        self._match = matched(self._tree.types, self._estimator.estimate(now_s), self._match, self._hysteresis)
        node, start_s = self._tree.child(here, self._match.type), float(self._starts_s[i])
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
        if node.handover is not None and node.handover.bytes:
            began_ms = elapsed_ms + node.device_ms
            self._sent(
                start_s + s_from_ms(began_ms), node.handover.bytes, s_from_ms(done_ms - began_ms - node.cloud_ms),
                cloud_s=s_from_ms(node.cloud_ms),
            )  # fmt: skip

    def _look(self, now_s: float) -> None:
        """Send a probe if one is due; look again later."""
        size = probe_due(
            now_s, self._estimator.estimate(now_s), self._policy, last_inference_s=self._asked_s,
            last_probe_s=self._probed_s, busy=self._under_way > 0,
        )  # fmt: skip
        if size:
            self._probed_s = now_s
            self._probe(PING_BYTES, now_s, then=size)
        if now_s + LOOK_S <= self._starts_s.max():
            self._at(now_s + LOOK_S, self._look)

    def _probe(self, size_bytes: int, now_s: float, then: int = 0) -> None:
        """Bytes for nothing; those of the small message, once answered, are followed by those of the probe."""
        link_s = s_from_ms(self._tree.rtt_ms + self._trace.transfer_ms(size_bytes, now_s))
        ends_s, finished = self._sent(now_s, size_bytes, link_s, cloud_s=0.0)
        if then and finished:
            self._at(ends_s, partial(self._probe, then))

    def _sent(self, began_s: float, size_bytes: int, link_s: float, *, cloud_s: float) -> tuple[float, bool]:
        """Bytes go out, and the estimator hears of them when the answer is there or the patience at its end.

        Returns when that is, and whether there was an answer.
        """
        finished = link_s + cloud_s <= PATIENCE_S
        ends_s = began_s + (link_s + cloud_s if finished else PATIENCE_S)
        reading = Reading(
            time_s=ends_s, size_bytes=size_bytes, seconds=link_s if finished else PATIENCE_S, finished=finished
        )
        self._at(began_s, self._begins)
        self._at(ends_s, partial(self._heard, reading))
        return ends_s, finished

    def _begins(self, now_s: float) -> None:
        self._under_way += 1

    def _heard(self, reading: Reading, now_s: float) -> None:
        self._under_way -= 1
        self._estimator.add(reading)
