"""Probing, all of it: when the idle link is probed, by what, and what follows from how that went.

A probe goes out while nobody hands over, so that the estimate stays fresh and a failed link is noticed to be back. What
it measured goes to the link's watcher, whether it was answered to the breaker.
"""

import logging
import threading

from modeltree.errors import NasError
from runtime.bandwidth import Estimate, ProbePolicy, longer_probe, probe_due
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Cloud
from runtime.wire.transports.interface import Exchange, TimedOut, TransportError

PING_BYTES = 64
"""Small enough to measure the round trip and nothing else."""

PINGS = 3
"""The first of a connection pays for opening it; the others say how much the round trip wavers."""

SURPRISES = 3
"""Probes in a row, a look apart, that a link is given to show that it has really changed."""

_TIMEOUT_S = 2.0
_LOOK_S = 0.25

_log = logging.getLogger(__name__)


class Prober:
    """Probes one link; `start` has a thread look four times a second whether that is due.

    failure : why the last probe was not answered; None where it was.
    """

    def __init__(self, link: LinkWatch, cloud: Cloud, policy: ProbePolicy) -> None:
        self._link, self._cloud, self._policy = link, cloud, policy
        self._probed_s = -float("inf")
        self._surprises = 0
        self.failure: NasError | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="nas-prober", daemon=True).start()

    def close(self) -> None:
        """End after the probe under way; it is not waited for."""
        self._stop.set()

    def measure(self) -> bool | None:
        """Probe now, due or not; whether it was answered, None where the server is left alone just now."""
        return self._probe(now=True) if self._cloud.breaker.closed else None

    def look(self) -> bool | None:
        """Probe if that is due, or if the link failed last, or was out until just now; whether it was answered.

        None where nothing was sent.
        """
        breaker = self._cloud.breaker
        if not breaker.closed or self._link.clock() - self._link.asked_s > self._policy.asleep_s:
            return None
        return self._probe(now=self._cloud.answered_late() or breaker.doubted or self._surprises > 0)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.look()

    def _probe(self, *, now: bool) -> bool | None:
        estimate = self._link.estimate()
        size = self._size(estimate, now=now)
        if not size:
            return None
        try:
            answered = all(map(self._pinged, range(PINGS))) and self._measured(size)
        except Exception:
            _log.exception("a probe failed in a way that none should")
            answered = False
        if answered:
            self.failure = None
            self._cloud.breaker.passed()
        else:
            self._cloud.breaker.failed(link=True)
        return answered

    def _size(self, estimate: Estimate | None, *, now: bool) -> int:
        """Bytes that measure the bandwidth; 0: no probe is due."""
        with self._lock:
            now_s = self._link.clock()
            size = probe_due(
                now_s, estimate, self._policy, last_inference_s=self._link.asked_s, last_probe_s=self._probed_s,
                busy=self._cloud.calls > 0, relied=self._link.relied,
            )  # fmt: skip
            if size or now:
                self._probed_s = now_s
        return size or (self._policy.least_bytes if now else 0)

    def _pinged(self, _: int) -> bool:
        if (exchange := self._exchange(PING_BYTES)) is None:
            return False
        self._link.probed(exchange)
        return True

    def _measured(self, size_bytes: int) -> bool:
        """Send messages that grow until one is long enough to tell; the last one counts."""
        for number in range(self._policy.rounds):
            if (exchange := self._exchange(size_bytes)) is None:
                return False
            mbps, jitter_ms = self._link.carried_mbps(exchange), self._link.jitter_ms
            longer = longer_probe(size_bytes, mbps, jitter_ms, self._policy)
            if not longer or number == self._policy.rounds - 1:
                self._link.probed(exchange, grown=True)
                self._note(mbps)
                return True
            size_bytes = longer
        return False

    def _note(self, mbps: float) -> None:
        """Whether the probe said something else than what is held: then it is repeated at the next look.

        A few times, for one outlier is no change, and a change should not wait for the estimate to be old.
        """
        estimate, types = self._link.estimate(), self._link.types
        surprising = estimate is not None and types.match(mbps) != types.match(estimate.mbps)
        self._surprises = self._surprises + 1 if surprising and self._surprises < SURPRISES else 0

    def _exchange(self, size_bytes: int) -> Exchange | None:
        """A message; None where it did not come back. A refusal says nothing of the link, silence that it is slow."""
        sent_s = self._link.clock()
        try:
            return self._cloud.transport.probe(size_bytes, _TIMEOUT_S)
        except TransportError as error:
            self.failure = error
            if isinstance(error, TimedOut):
                spent_s = self._link.clock() - sent_s
                failed = Exchange(sent_bytes=size_bytes, received_bytes=0, seconds=spent_s, server_s=0.0)
                self._link.probed(failed, finished=False)
            return None
