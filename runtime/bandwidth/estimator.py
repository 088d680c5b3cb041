"""How fast the link is now, from hand-overs: a value, its age, and how far to trust it.

The default rule is `adaptive`, chosen by `benchmarks/estimators.py` (2 cores of an AMD EPYC, 2026-11-21): 12 recorded
links x 3 sizes (3, 16, 65 kB) x 4 rhythms, 2 ms jitter; in brackets 7 synthetic links. Both were
looked at when the mix of `adaptive` was chosen among a dozen, so neither is a held-out set.

| rule           | type matched, K = 2 | K = 3           | median error, ln | regret, ms  |
|----------------|---------------------|-----------------|------------------|-------------|
| adaptive       | 68.7 % (69.6 %)     | 53.2 % (57.0 %) | 0.384 (0.420)    | 9.4 (20.1)  |
| last           | 68.0 % (70.1 %)     | 53.2 % (57.5 %) | 0.420 (0.417)    | 10.3 (20.7) |
| moving_average | 67.4 % (66.7 %)     | 52.3 % (53.5 %) | 0.372 (0.456)    | 12.1 (27.7) |
| median         | 67.4 % (66.2 %)     | 51.7 % (53.6 %) | 0.389 (0.454)    | 11.5 (23.8) |
| kalman         | 67.1 % (67.8 %)     | 52.1 % (54.9 %) | 0.431 (0.460)    | 9.7 (21.4)  |
| harmonic       | 65.3 % (64.8 %)     | 49.2 % (50.3 %) | 0.578 (0.622)    | 8.7 (18.3)  |

On the recorded links it matches most types, with less regret than the two that come near; on the synthetic ones `last`
matches half a point more. `harmonic` regrets less, because it is too slow by habit and so rarely offloads into an
outage; it is also the worst at telling types apart. Differences are small beside what the links do themselves.
"""

import math
from dataclasses import dataclass

from modeltree.link.traces import DEFAULT_RTT_MS
from modeltree.units import bytes_per_ms, s_from_ms
from runtime.bandwidth.reading import LATE, PACKET_BYTES, Reading, RoundTrip, Sample
from runtime.bandwidth.rules import rule

DEFAULT_RULE = "adaptive"
NEAR = math.log(1.5)
"""`Estimate.confidence` is the chance of being right within this: a factor of 1.5."""

SHORT = 2.0
"""A message that should take fewer jitters than this says no more than a small one."""

FIRST_SPREAD = 1.0
"""Standard deviation of ln(bandwidth) before any forecast could be checked: the deciles lie a factor of 3.6 away."""

LEAST_SPREAD = 0.02
DECILE = 1.2816
"""Deviations from the middle of a normal distribution to its upper decile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the next transfer will probably get.

    low_mbps, high_mbps : deciles; four of five transfers should lie between, by the estimator's own record of errors.
    age_s : time since a reading last said something about the bandwidth.
    confidence : 0..1, the chance that `mbps` is right within a factor of 1.5, by the same record; falls with age.
    readings : how many went into it, so that one who is asked twice can tell whether anything is new.
    """

    mbps: float
    low_mbps: float
    high_mbps: float
    age_s: float
    confidence: float
    readings: int


class Estimator:
    """Turns readings into estimates. Pure but for its own state: time comes with the call; lock it to share it.

    A reading becomes a sample by taking the round trip out and flooring what is left at the round trip's jitter. A
    floored reading only says "at least so fast", one that was given up only "at most": either counts where
    it contradicts the estimate, and is passed over where it does not.

    How far to trust it is learned: the mean error |ln(sample / forecast)| of late, growing with the square root of age
    over the usual gap between readings, as a random walk's does.
    """

    def __init__(self, name: str = DEFAULT_RULE, *, rtt_ms: float = DEFAULT_RTT_MS) -> None:
        self.round_trip = RoundTrip(initial_ms=rtt_ms)
        self._rule = rule(name)
        self._readings = 0
        self._last_s = -math.inf
        self._error = FIRST_SPREAD / _SPREAD_OF_MEAN
        self._gap_s = 0.0

    def add(self, reading: Reading) -> None:
        """Take in a reading; one older than the last is counted as if it came with it."""
        forecast = self._rule.mbps(reading.time_s) if self._readings else None
        self.round_trip.add(reading, forecast)
        sample, bound = self._sampled(reading, forecast)
        if bound and forecast is not None and (forecast - sample.mbps) * bound >= 0:
            return
        if forecast is None and reading.size_bytes <= PACKET_BYTES:
            return
        if forecast is not None:
            error = abs(math.log(sample.mbps / forecast))
            share = max(0.1, 1 / (self._readings + 1)) * sample.weight
            self._error += share * (error - self._error)
            gap = sample.time_s - self._last_s
            self._gap_s += (gap - self._gap_s) * (1.0 if self._readings == 1 else 0.1)
        self._rule.add(sample)
        self._readings += 1
        self._last_s = sample.time_s

    def estimate(self, now_s: float) -> Estimate | None:
        """What a transfer at `now_s` will probably get; None before the first reading that says anything."""
        if not self._readings:
            return None
        age_s = max(0.0, now_s - self._last_s)
        spread = max(LEAST_SPREAD, _SPREAD_OF_MEAN * self._error)
        if self._gap_s and age_s > self._gap_s:
            spread = min(spread * math.sqrt(age_s / self._gap_s), max(spread, FIRST_SPREAD))
        middle, factor = self._rule.mbps(now_s), math.exp(DECILE * spread)
        return Estimate(
            mbps=middle,
            low_mbps=middle / factor,
            high_mbps=middle * factor,
            age_s=age_s,
            confidence=math.erf(NEAR / (spread * math.sqrt(2))),
            readings=self._readings,
        )

    def carried_mbps(self, reading: Reading) -> float:
        """The bandwidth that a reading met, by itself: the round trip taken out, nothing noted."""
        return self._sampled(reading)[0].mbps

    def _sampled(self, reading: Reading, forecast: float | None = None) -> tuple[Sample, int]:
        """The sample, and what it bounds: 1 "at least so fast", -1 "at most", 0 neither.

        A message that should take less than the jitter is as good as a small one: only by being late by more than
        jitter ever is does it say that the link has become slow.
        """
        jitter_s = self.round_trip.jitter_s
        rtt_s = self.round_trip.taken_from(reading.seconds) if reading.rtt_s is None else reading.rtt_s
        expected_s = math.inf if forecast is None else s_from_ms(reading.size_bytes / bytes_per_ms(forecast))
        small = reading.size_bytes <= PACKET_BYTES or (expected_s < SHORT * jitter_s and not reading.grown)
        carry_s, bound = reading.seconds - rtt_s, 0
        if not reading.finished:
            bound, carry_s = -1, carry_s - (LATE * jitter_s if small else 0.0)
        elif not small:
            bound = 1 if carry_s <= jitter_s else 0
        elif carry_s - LATE * jitter_s > jitter_s:
            bound, carry_s = -1, carry_s - LATE * jitter_s
        else:  # all that it took beyond the least round trip may have been its bytes
            least_s = self.round_trip.least_of(reading.seconds) if reading.rtt_s is None else reading.rtt_s
            bound, carry_s = 1, reading.seconds - least_s
        carry_s = max(carry_s, jitter_s)
        sample = Sample(
            time_s=max(reading.time_s, self._last_s),
            size_bytes=reading.size_bytes,
            carry_s=carry_s,
            weight=1 / (1 + (jitter_s / carry_s) ** 2),
        )
        return sample, bound


_SPREAD_OF_MEAN = math.sqrt(math.pi / 2)
"""Standard deviation of a normal distribution over its mean absolute deviation."""
