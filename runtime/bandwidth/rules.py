"""Rules that foresee the next bandwidth from the samples so far. `RULES` names them; `adaptive` is the default.

Why it is the default: see `runtime.bandwidth.estimator`. A rule keeps no clock: time comes with the samples.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Protocol

from modeltree.errors import unknown
from modeltree.units import mbps, ms_from_s
from runtime.bandwidth.reading import Sample

WINDOW = 5
"""Samples in the windows of the classical rules, as FESTIVE's harmonic mean and most players have it."""


class Rule(Protocol):
    """One way to foresee. `mbps` is asked only after the first sample."""

    def add(self, sample: Sample) -> None:
        """Take in a sample; times do not fall."""

    def mbps(self, now_s: float) -> float:
        """The bandwidth that a transfer at `now_s` is expected to get."""


class Last:
    """The last sample, as it is."""

    def __init__(self) -> None:
        self._mbps = 0.0

    def add(self, sample: Sample) -> None:
        self._mbps = sample.mbps

    def mbps(self, now_s: float) -> float:
        return self._mbps


class Windowed:
    """A statistic of the last few samples."""

    def __init__(self, of: Callable[[deque[Sample]], float], window: int = WINDOW) -> None:
        self._of = of
        self._samples: deque[Sample] = deque(maxlen=window)

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    def mbps(self, now_s: float) -> float:
        return self._of(self._samples)


class FastSlow:
    """The lesser of a fast and a slow exponential mean, as in HLS players: quick to fall, slow to rise.

    Half-lives are in s of wall time: hand-overs are rare and short, unlike the segments of a film, so that half-lives
    in seconds of download, which players use, would never forget.
    """

    def __init__(self, fast_s: float = 3.0, slow_s: float = 9.0) -> None:
        self._half_lives = (fast_s, slow_s)
        self._sums = [(0.0, 0.0), (0.0, 0.0)]  # (weighted Mbit/s, weights)
        self._last_s = 0.0

    def add(self, sample: Sample) -> None:
        past = max(0.0, sample.time_s - self._last_s)
        for i, half_life in enumerate(self._half_lives):
            kept = 0.5 ** (past / half_life)
            total, weights = self._sums[i]
            self._sums[i] = (kept * total + sample.weight * sample.mbps, kept * weights + sample.weight)
        self._last_s = sample.time_s

    def mbps(self, now_s: float) -> float:
        return min(total / weights for total, weights in self._sums)


class BytesOverTime:
    """All bytes over all seconds, older ones counting less: a harmonic mean that large transfers dominate."""

    def __init__(self, half_life_s: float = 2.0) -> None:
        self._half_life_s = half_life_s
        self._bytes, self._carry_s, self._last_s = 0.0, 0.0, 0.0

    def add(self, sample: Sample) -> None:
        kept = 0.5 ** (max(0.0, sample.time_s - self._last_s) / self._half_life_s)
        self._bytes = kept * self._bytes + sample.weight * sample.size_bytes
        self._carry_s = kept * self._carry_s + sample.weight * sample.carry_s
        self._last_s = sample.time_s

    def mbps(self, now_s: float) -> float:
        return mbps(self._bytes, ms_from_s(self._carry_s))


class LogDecay:
    """Exponential mean of the logarithm with a half-life in seconds."""

    def __init__(self, half_life_s: float = 2.0) -> None:
        self._half_life_s = half_life_s
        self._log, self._weights, self._last_s = 0.0, 0.0, 0.0

    def add(self, sample: Sample) -> None:
        past = max(0.0, sample.time_s - self._last_s)
        kept = 0.5 ** (past / self._half_life_s)
        self._weights = kept * self._weights + sample.weight
        self._log += sample.weight / self._weights * (math.log(sample.mbps) - self._log)
        self._last_s = sample.time_s

    def mbps(self, now_s: float) -> float:
        return math.exp(self._log)


class Kalman:
    """The logarithm as a random walk seen through noise; an innovation over three deviations counts as three.

    walk_per_s : variance that the walk gains in a second. noise : variance of a sample of weight 1.
    """

    def __init__(self, walk_per_s: float = 0.05, noise: float = 0.05) -> None:
        self._walk_per_s, self._noise = walk_per_s, noise
        self._log, self._variance, self._last_s = 0.0, math.inf, 0.0

    def add(self, sample: Sample) -> None:
        reading, noise = math.log(sample.mbps), self._noise / max(sample.weight, 1e-3)
        if self._variance == math.inf:
            self._log, self._variance = reading, noise
        else:
            before = self._variance + self._walk_per_s * max(0.0, sample.time_s - self._last_s)
            most = 3 * math.sqrt(before + noise)
            gain = before / (before + noise)
            self._log += gain * min(most, max(-most, reading - self._log))
            self._variance = (1 - gain) * before
        self._last_s = sample.time_s

    def mbps(self, now_s: float) -> float:
        return math.exp(self._log)


class Adaptive:
    """Several rules side by side, each trusted as it foresaw of late (exponentially weighted forecasters).

    On a link whose rate holds, the last sample wins; where it wavers, or where jitter blurs small transfers, means do;
    and which it is depends on how often one hands over. So nobody chooses: a rule's loss is |ln(sample / forecast)|,
    capped at `MOST_LOSS` and forgotten by `FORGETTING` a sample, and the forecast is the mean of the rules' logarithms,
    weighted by exp(-loss).
    """

    FORGETTING = 0.95
    MOST_LOSS = 1.5

    def __init__(self) -> None:
        self._rules: list[Rule] = [Last(), Windowed(_mean), Windowed(_median), *map(LogDecay, (1.0, 10.0, 60.0))]
        self._losses = [0.0] * len(self._rules)
        self._forecasts: list[float] = []
        self._mbps = 0.0

    def add(self, sample: Sample) -> None:
        reading = math.log(sample.mbps)
        for i, forecast in enumerate(self._forecasts):
            loss = min(self.MOST_LOSS, abs(reading - forecast))
            self._losses[i] = self.FORGETTING * self._losses[i] + sample.weight * loss
        for one in self._rules:
            one.add(sample)
        self._forecasts = [math.log(one.mbps(sample.time_s)) for one in self._rules]
        least = min(self._losses)
        trust = [math.exp(least - loss) for loss in self._losses]
        self._mbps = math.exp(sum(t * f for t, f in zip(trust, self._forecasts, strict=True)) / sum(trust))

    def mbps(self, now_s: float) -> float:
        return self._mbps


def _mean(samples: deque[Sample]) -> float:
    return statistics.fmean(sample.mbps for sample in samples)


def _harmonic(samples: deque[Sample]) -> float:
    return statistics.harmonic_mean([sample.mbps for sample in samples])


def _median(samples: deque[Sample]) -> float:
    return statistics.median(sample.mbps for sample in samples)


RULES: dict[str, Callable[[], Rule]] = {
    "last": Last,
    "moving_average": lambda: Windowed(_mean),
    "harmonic": lambda: Windowed(_harmonic),
    "median": lambda: Windowed(_median),
    "fast_slow": FastSlow,
    "bytes_over_time": BytesOverTime,
    "log_decay": LogDecay,
    "kalman": Kalman,
    "adaptive": Adaptive,
}


def rule(name: str) -> Rule:
    """A fresh rule.

    Raises
    ------
    ConfigError : no such rule; lists the known.
    """
    if name not in RULES:
        raise unknown("bandwidth rule", name, RULES)
    return RULES[name]()
