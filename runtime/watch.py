"""One link, watched: hand-overs and probes in, the bandwidth type to take out."""

import threading
import time
from collections.abc import Callable

from modeltree.bandwidth import BandwidthTypes
from modeltree.traces import DEFAULT_RTT_MS
from runtime.bandwidth import Estimator, ProbePolicy, Reading, probe_due
from runtime.switch import Hysteresis, Match, matched
from runtime.transports.interface import Exchange, Transport, TransportError

_PROBE_TIMEOUT_S = 2.0


class LinkWatch:
    """Estimator and switch behind one lock, since probes come from a thread of their own.

    Parameters
    ----------
    types : of the tree. rtt_ms : a first guess at the round trip, until a small message measured it.
    clock : seconds, of readings and estimates.
    """

    def __init__(
        self, types: BandwidthTypes, *, rtt_ms: float = DEFAULT_RTT_MS, hysteresis: Hysteresis | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.types, self.hysteresis, self.clock = types, hysteresis or Hysteresis(), clock
        self._estimator = Estimator(rtt_ms=rtt_ms)
        self._match: Match | None = None
        self._asked_s = self._probed_s = -float("inf")
        self._lock = threading.Lock()

    def bandwidth_type(self) -> tuple[int, float]:
        """The type to take now, and the estimate behind it in Mbit/s (NaN while nothing is known)."""
        with self._lock:
            self._asked_s = self.clock()
            estimate = self._estimator.estimate(self._asked_s)
            self._match = matched(self.types, estimate, self._match, self.hysteresis)
            return self._match.type, float("nan") if estimate is None else estimate.mbps

    def observe(self, exchange: Exchange, *, finished: bool = True) -> None:
        """A transfer, or (not `finished`) one that was given up after `seconds`."""
        if exchange.sent_bytes < 1:
            return
        seconds = max(0.0, exchange.seconds - exchange.server_s)
        reading = Reading(
            time_s=self.clock(), size_bytes=exchange.sent_bytes, seconds=seconds, finished=finished
        )  # fmt: skip
        with self._lock:
            self._estimator.add(reading)

    def probe(self, transport: Transport, policy: ProbePolicy, *, busy: bool = False) -> bool:
        """Send a probe if one is due; whether it was sent and answered."""
        with self._lock:
            now = self.clock()
            size = probe_due(
                now, self._estimator.estimate(now), policy, last_inference_s=self._asked_s,
                last_probe_s=self._probed_s, busy=busy,
            )  # fmt: skip
            if not size:
                return False
            self._probed_s = now
        try:
            self.observe(transport.probe(size, _PROBE_TIMEOUT_S))
        except TransportError:
            failed = Exchange(sent_bytes=size, received_bytes=0, seconds=self.clock() - now, server_s=0.0)
            self.observe(failed, finished=False)
            return False
        return True
