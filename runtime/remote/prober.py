"""Probing, all of it: when the idle link is probed, by what, and what follows from how that went.

A probe goes out while nobody hands over, so that the estimate stays fresh and a failed link is noticed to be back. What
it measured goes to the link's watcher, whether it was answered to the breaker.
"""

import logging
import threading

from runtime.bandwidth import ProbePolicy, probe_due
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Cloud
from runtime.wire.transports.interface import Exchange, TimedOut, TransportError

PING_BYTES = 64
"""Small enough to measure the round trip and nothing else."""

_TIMEOUT_S = 2.0
_LOOK_S = 0.25

_log = logging.getLogger(__name__)


class Prober:
    """Probes one link; `start` has a thread look four times a second whether that is due."""

    def __init__(self, link: LinkWatch, cloud: Cloud, policy: ProbePolicy) -> None:
        self._link, self._cloud, self._policy = link, cloud, policy
        self._probed_s = -float("inf")
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
        """Probe if that is due, or if the link failed last; whether it was answered, None where nothing was sent."""
        breaker = self._cloud.breaker
        if not breaker.closed or self._link.clock() - self._link.asked_s > self._policy.asleep_s:
            return None
        return self._probe(now=breaker.doubted)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.look()

    def _probe(self, *, now: bool) -> bool | None:
        sizes = self._sizes(now=now)
        if not sizes:
            return None
        try:
            answered = all(map(self._answered, sizes))
        except Exception:
            _log.exception("a probe failed in a way that none should")
            answered = False
        if answered:
            self._cloud.breaker.passed()
        else:
            self._cloud.breaker.failed(link=True)
        return answered

    def _sizes(self, *, now: bool) -> tuple[int, ...]:
        """Bytes of the messages to send: small ones for the round trip, then one for the bandwidth; none: not due."""
        with self._lock:
            now_s, estimate = self._link.clock(), self._link.estimate()
            size = probe_due(
                now_s, estimate, self._policy, last_inference_s=self._link.asked_s, last_probe_s=self._probed_s,
                busy=self._cloud.calls > 0,
            )  # fmt: skip
            if not size and not now:
                return ()
            self._probed_s = now_s
        # the first message of a connection pays for opening it, so a second one measures the round trip
        pings = (PING_BYTES,) * (2 if estimate is None else 1)
        return (*pings, size or self._policy.least_bytes)

    def _answered(self, size_bytes: int) -> bool:
        """Send a message; whether it came back. A refusal says nothing of the link, silence that it is slow."""
        sent_s = self._link.clock()
        try:
            self._link.observe(self._cloud.transport.probe(size_bytes, _TIMEOUT_S))
        except TransportError as error:
            if isinstance(error, TimedOut):
                spent_s = self._link.clock() - sent_s
                failed = Exchange(sent_bytes=size_bytes, received_bytes=0, seconds=spent_s, server_s=0.0)
                self._link.observe(failed, finished=False)
            return False
        return True
