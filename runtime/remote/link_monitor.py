"""One link, watched: hand-overs and probes in, the bandwidth type to take out."""

import threading
import time
from collections.abc import Callable

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import DEFAULT_RTT_MS
from modeltree.units import bytes_per_ms, s_from_ms
from runtime.bandwidth import Estimate, Estimator, ProbePolicy, Reading, probe_due
from runtime.bandwidth.switch import Hysteresis, Match, matched
from runtime.remote.offload_client import Cloud
from runtime.wire.transports.interface import Exchange, TimedOut, Transport, TransportError

PING_BYTES = 64
"""Small enough to measure the round trip and nothing else."""

_PROBE_TIMEOUT_S = 2.0
_LOOK_S = 0.25


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

    def estimate(self) -> Estimate | None:
        """What is known of the link now; None while nothing is."""
        with self._lock:
            return self._estimator.estimate(self.clock())

    @property
    def rtt_ms(self) -> float:
        """The round trip, as small messages measured it, or the first guess."""
        with self._lock:
            return 1e3 * self._estimator.round_trip.seconds

    def expected_s(self, size_bytes: int) -> float | None:
        """Seconds that so many bytes should take at the lower decile, the round trip included."""
        with self._lock:
            estimate = self._estimator.estimate(self.clock())
            if estimate is None:
                return None
            return self._estimator.round_trip.seconds + s_from_ms(size_bytes / bytes_per_ms(estimate.low_mbps))

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

    def probe(
        self, transport: Transport, policy: ProbePolicy, *, busy: bool = False, now: bool = False
    ) -> bool | None:  # fmt: skip
        """Send a small message for the round trip and some bytes for the bandwidth, if they are due.

        busy : a transfer is under way, and will tell for free. now : send them though the estimate is good yet.

        Returns
        -------
        Whether they were answered; None if none were sent.
        """
        with self._lock:
            began_s = self.clock()
            estimate = self._estimator.estimate(began_s)
            size = probe_due(
                began_s, estimate, policy, last_inference_s=self._asked_s,
                last_probe_s=self._probed_s, busy=busy,
            )  # fmt: skip
            if not size and not now:
                return None
            self._probed_s = began_s
        # the first message of a connection pays for opening it, so a second one measures the round trip
        pings = (PING_BYTES,) * (2 if estimate is None else 1)
        for one in (*pings, size or policy.least_bytes):
            sent_s = self.clock()
            try:
                self.observe(transport.probe(one, _PROBE_TIMEOUT_S))
            except TransportError as error:
                if isinstance(error, TimedOut):  # a refusal says nothing of the link
                    spent_s = self.clock() - sent_s
                    failed = Exchange(sent_bytes=one, received_bytes=0, seconds=spent_s, server_s=0.0)
                    self.observe(failed, finished=False)
                return False
        return True

    def asleep(self, policy: ProbePolicy) -> bool:
        """Whether nobody has asked for an inference for so long that the link is left in peace."""
        return self.clock() - self._asked_s > policy.asleep_s


class Prober:
    """A thread that probes the link while nobody hands over, and tells when a failed one is back."""

    def __init__(self, watch: LinkWatch, cloud: Cloud, policy: ProbePolicy) -> None:
        self._watch, self._cloud, self._policy = watch, cloud, policy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nas-prober", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the probe under way; it is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self._cloud.probe(self._send)

    def _send(self, transport: Transport) -> bool | None:
        if self._watch.asleep(self._policy):
            return None
        doubted = self._cloud.doubted
        return self._watch.probe(transport, self._policy, busy=self._cloud.calls > 0 and not doubted, now=doubted)
