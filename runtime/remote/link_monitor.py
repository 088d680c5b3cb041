"""One link, watched: hand-overs and probes in, the bandwidth type to take out."""

import threading
import time
from collections.abc import Callable

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import DEFAULT_RTT_MS
from modeltree.units import bytes_per_ms, s_from_ms
from runtime.bandwidth import Estimate, Estimator, Reading
from runtime.bandwidth.switch import Hysteresis, Match, matched
from runtime.wire.transports.interface import Exchange


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
        self._asked_s = self._handed_over_s = -float("inf")
        self._lock = threading.Lock()

    def bandwidth_type(self) -> tuple[int, float]:
        """The type to take now, and the estimate behind it in Mbit/s (NaN while nothing is known)."""
        with self._lock:
            self._asked_s = self.clock()
            estimate = self._estimator.estimate(self._asked_s)
            self._match = matched(self.types, estimate, self._match, self.hysteresis)
            return self._match.type, float("nan") if estimate is None else estimate.mbps

    @property
    def asked_s(self) -> float:
        """When somebody last asked for a type, on the clock: an inference."""
        return self._asked_s

    def estimate(self) -> Estimate | None:
        """What is known of the link now; None while nothing is."""
        with self._lock:
            return self._estimator.estimate(self.clock())

    @property
    def rtt_ms(self) -> float:
        """The round trip, as small messages measured it, or the first guess."""
        with self._lock:
            return 1e3 * self._estimator.round_trip.seconds

    @property
    def usual_rtt_ms(self) -> float:
        """What small messages take of late, on average: the least round trip and how much they waver above it."""
        with self._lock:
            return 1e3 * self._estimator.round_trip.usual_s

    def expected_s(self, size_bytes: int) -> float | None:
        """Seconds that so many bytes should take at the lower decile, the round trip included."""
        with self._lock:
            estimate = self._estimator.estimate(self.clock())
            if estimate is None:
                return None
            return self._estimator.round_trip.seconds + s_from_ms(size_bytes / bytes_per_ms(estimate.low_mbps))

    def observe(self, exchange: Exchange, *, finished: bool = True) -> None:
        """A hand-over, or (not `finished`) one that was given up after `seconds`."""
        if exchange.sent_bytes < 1:
            return
        with self._lock:
            self._handed_over_s = self.clock()
            self._estimator.add(self._reading(exchange, finished=finished))

    def probed(self, exchange: Exchange, *, finished: bool = True, grown: bool = False) -> None:
        """A message of a probe; as for a hand-over, but nobody relied on it. grown : see `Reading`."""
        with self._lock:
            self._estimator.add(self._reading(exchange, finished=finished, grown=grown))

    @property
    def jitter_ms(self) -> float:
        """How much small messages waver above the round trip."""
        with self._lock:
            return 1e3 * self._estimator.round_trip.jitter_s

    def carried_mbps(self, exchange: Exchange) -> float:
        """The bandwidth that a message met, by itself; nothing is noted."""
        with self._lock:
            return self._estimator.carried_mbps(self._reading(exchange))

    @property
    def relied(self) -> bool:
        """Whether hand-overs went out since the estimate last had a reading: they said nothing of the bandwidth."""
        with self._lock:
            now_s = self.clock()
            estimate = self._estimator.estimate(now_s)
            return estimate is not None and self._handed_over_s > now_s - estimate.age_s

    def _reading(self, exchange: Exchange, *, finished: bool = True, grown: bool = False) -> Reading:
        seconds = max(0.0, exchange.seconds - exchange.server_s)
        return Reading(
            time_s=self.clock(), size_bytes=exchange.sent_bytes, seconds=seconds, finished=finished, grown=grown
        )  # fmt: skip
