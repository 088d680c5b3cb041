"""What a hand-over tells of the link: bytes, seconds, and how much of the time was round trip rather than bytes."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from modeltree.errors import ConfigError, DataError
from modeltree.units import bytes_per_ms, mbps, ms_from_s, s_from_ms

PACKET_BYTES = 1500
"""A message of up to this size measures the round trip: at 1 Mbit/s its bytes take 12 ms, at 10 Mbit/s 1.2 ms."""

LATE = 4.0
"""Jitters above the usual round trip from which on lateness says that the link is slow."""

LEAST_JITTER_MS = 0.5
"""No stopwatch in user space parts less than this from scheduling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One transfer, as the device saw it.

    time_s : when it ended, on the clock that is later passed to `Estimator.estimate`.
    size_bytes : what was sent, headers and all.
    seconds : from the first byte sent to the first byte of the answer, *less the server's own time*, which the server
        says in its answer. The round trip is still in it.
    rtt_s : round trip to take out, where the caller knows it for this very transfer; None: the estimator's own.
    grown : a probe's last message, long enough to tell the link from the machine; see `longer_probe`.
    finished : False if the caller gave up after `seconds`: the link is then at most so fast.
    """

    time_s: float
    size_bytes: int
    seconds: float
    rtt_s: float | None = None
    finished: bool = True
    grown: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time_s) and 0 <= self.seconds < math.inf and 0 < self.size_bytes < math.inf):
            raise DataError(
                f"a reading of {self.size_bytes} bytes in {self.seconds} s at {self.time_s} s: all must be finite, "
                "the size above 0 and the seconds not negative: drop it"
            )


class Sample(NamedTuple):
    """A reading with the round trip taken out, which is what a rule works on.

    carry_s : seconds that the bytes alone took, at least the jitter of the round trip.
    weight : 0..1, how much it says. A time x that is known to within j is worth 1 / (1 + (j / x)**2).
    """

    time_s: float
    size_bytes: float
    carry_s: float
    weight: float

    @property
    def mbps(self) -> float:
        """The bandwidth it met."""
        return mbps(self.size_bytes, ms_from_s(self.carry_s))


class RoundTrip:
    """The least round trip seen of late, and how much messages waver above it.

    Messages of up to `PACKET_BYTES` measure it; larger ones do not, since one size alone cannot part the round trip
    from the bytes. The minimum is taken over a window, as in BBR, so that a changed route is noticed.
    """

    def __init__(self, *, initial_ms: float, window_s: float = 30.0) -> None:
        if not (0 <= initial_ms < math.inf and 0 < window_s < math.inf):
            raise ConfigError(
                f"initial_ms is {initial_ms} and window_s {window_s}: both must be finite, the first at least 0, the "
                "second above 0"
            )
        self._window_s = window_s
        self._initial_s = s_from_ms(initial_ms)
        self._least: list[tuple[float, float]] = []  # (time, seconds), both rising: the minima of the window to come
        self._wavering_s = 0.0

    def add(self, reading: Reading, bandwidth_mbps: float | None = None) -> None:
        """Take in a reading; its bytes' own time is taken out if the bandwidth is given."""
        if reading.size_bytes > PACKET_BYTES or not reading.finished:
            return
        seconds = reading.seconds
        carry_s = s_from_ms(reading.size_bytes / bytes_per_ms(bandwidth_mbps)) if bandwidth_mbps else 0.0
        if carry_s <= seconds / 2:  # else the forecast is off, as behind an outage, and explains it all away
            seconds -= carry_s
        if self._least:
            most_s = max(LATE * self.jitter_s, self.seconds / 2)  # an outage is no jitter
            above = min(abs(seconds - self.seconds), most_s)
            self._wavering_s += 0.2 * (above - self._wavering_s)
        while self._least and self._least[-1][1] >= seconds:
            self._least.pop()
        self._least.append((reading.time_s, seconds))
        while self._least[0][0] < reading.time_s - self._window_s:
            self._least.pop(0)

    @property
    def seconds(self) -> float:
        """The round trip."""
        return self._least[0][1] if self._least else self._initial_s

    @property
    def jitter_s(self) -> float:
        """Mean distance of small messages from the round trip, at least `LEAST_JITTER_MS`."""
        return max(self._wavering_s, s_from_ms(LEAST_JITTER_MS))

    @property
    def usual_s(self) -> float:
        """The round trip that a message has to reckon with: the least one, plus what messages waver above it."""
        return self.seconds + self._wavering_s

    def taken_from(self, seconds: float) -> float:
        """What of a transfer's seconds was round trip, usually: the least one plus what messages waver above it.

        Until a small message measured it, it is a guess, and at most half the seconds are taken for it.
        """
        return self.usual_s if self._least else min(self.seconds, seconds / 2)

    def least_of(self, seconds: float) -> float:
        """What of a transfer's seconds was round trip, at least; likewise."""
        return self.seconds if self._least else min(self.seconds, seconds / 2)
