"""What a field run comes to: every method's turn in a few numbers, and where predictions drift from what was measured.

Values that no inference can have (negative, not finite, days) are counted and left out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.reward import Reward
from nas.field.record import FieldRun, Leaf, MethodRun, Shot
from nas.names import TITLES

PARTS = ("device", "encode", "transfer", "cloud", "wait")
"""What a latency is made of, in the order in which it passes."""

DRIFT_SHARE, DRIFT_MS = 0.2, 1.0
"""A prediction is alarming once what was measured is off by more than both."""

_MOST = 1e8


def usable(value: float | None) -> bool:
    """Whether it is a time in ms, or a rate, that can be true: a number from 0 to a day."""
    return value is not None and math.isfinite(value) and 0 <= value <= _MOST


def mean(values: Iterable[float | None]) -> float:
    """Over what is usable; NaN where nothing is."""
    found = [value for value in values if value is not None and usable(value)]
    return sum(found) / len(found) if found else math.nan


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One method's turn. What there is none of is NaN.

    total_ms : (shots,), of the usable shots in order; left_out : how many were not.
    parts_ms : means, in the order of `PARTS`. accuracy : percent, of the paths taken, by the bundle.
    right : percent of the images with a label that were classified so; labelled : how many those are.
    handed_over : percent that the cloud answered. alone : went on here though the path hands over.
    late : past the deadline. oracle_ms : the hindsight optimum over the same starts.
    per_ms : reward that a millisecond costs.
    checked : answers compared with torch. error : the largest difference among them.
    """

    run: MethodRun
    title: str
    total_ms: np.ndarray
    left_out: int
    mean_ms: float
    median_ms: float
    p95_ms: float
    parts_ms: tuple[float, ...]
    accuracy: float
    reward: float
    per_ms: float
    right: float
    labelled: int
    handed_over: float
    alone: int
    late: int
    emulated_ms: float
    replayed_ms: float
    oracle_ms: float
    checked: int
    error: float

    @property
    def name(self) -> str:
        """Of the method, as in the bundle's folder."""
        return self.run.name

    @property
    def over_oracle(self) -> float:
        """Percent above the hindsight optimum."""
        return 100 * (self.mean_ms / self.oracle_ms - 1) if self.oracle_ms > 0 else math.nan


def tally(run: MethodRun, oracle_ms: Sequence[float], reward: Reward | None = None) -> Tally:
    """The numbers of one method. reward : [Wang 2020, eq. 7] with the paper's weights unless given."""
    reward = reward or Reward()
    shots = [shot for shot in run.shots if usable(shot.total_ms)]
    total_ms = np.array([shot.total_ms for shot in shots])
    accuracy = _accuracy(run, shots)
    labelled = [shot for shot in shots if shot.label is not None]
    errors = [shot.error for shot in shots if shot.error is not None]
    middle = mean(total_ms.tolist())
    bound = mean(best for best, shot in zip(oracle_ms, run.shots, strict=False) if usable(shot.total_ms))
    return Tally(
        run=run, title=TITLES.get(run.name, run.name), total_ms=total_ms, left_out=len(run.shots) - len(shots),
        mean_ms=middle, median_ms=_quantile(total_ms, 0.5), p95_ms=_quantile(total_ms, 0.95),
        parts_ms=tuple(mean(getattr(shot, f"{part}_ms") for shot in shots) for part in PARTS),
        accuracy=accuracy, reward=float(reward.of(accuracy, middle)), per_ms=reward.per_ms,
        right=_percent([shot.predicted_class == shot.label for shot in labelled]), labelled=len(labelled),
        handed_over=_percent([shot.answered_by == "cloud" for shot in shots]),
        alone=sum(alone(run, shot) for shot in shots), late=sum(not shot.met for shot in shots),
        emulated_ms=mean(run.emulated_ms), replayed_ms=mean(run.replayed_ms),
        oracle_ms=bound, checked=len(errors), error=max(errors, key=_badness, default=math.nan),
    )  # fmt: skip


def tallies(field: FieldRun) -> list[Tally]:
    """All methods, the simplest first; ones we do not know come last."""
    order = list(TITLES)
    runs = sorted(field.methods, key=lambda run: order.index(run.name) if run.name in order else len(order))
    return [tally(run, field.oracle_ms, field.reward) for run in runs]


def hands_over(leaf: Leaf) -> bool:
    """Whether a path ends in the cloud."""
    return leaf.transfer_predicted_ms > 0 or leaf.cloud_predicted_ms > 0


def leaf_of(run: MethodRun, shot: Shot) -> Leaf | None:
    """The path that a shot took; None if the run does not know it."""
    end = shot.nodes[-1] if shot.nodes else None
    return next((leaf for leaf in run.leaves if leaf.leaf == end), None)


def alone(run: MethodRun, shot: Shot) -> bool:
    """Whether the path hands over and yet the answer is the device's."""
    leaf = leaf_of(run, shot)
    return leaf is not None and hands_over(leaf) and shot.answered_by != "cloud"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One part of one path: predicted and measured, ms. part : `device`, `transfer` or `cloud`."""

    title: str
    leaf: Leaf
    part: str
    predicted_ms: float
    measured_ms: float

    @property
    def percent(self) -> float:
        """Of the prediction; infinite where it was 0."""
        if self.predicted_ms > 0:
            return 100 * (self.measured_ms / self.predicted_ms - 1)
        return math.inf if self.measured_ms > 0 else 0.0

    @property
    def alarming(self) -> bool:
        """Off by more than `DRIFT_SHARE` and more than `DRIFT_MS`."""
        off_ms = abs(self.measured_ms - self.predicted_ms)
        return off_ms > DRIFT_MS and off_ms > DRIFT_SHARE * self.predicted_ms


def drift(title: str, leaf: Leaf, part: str) -> Drift | None:
    """Of a part that was measured; None where it was not, or the numbers cannot be true."""
    predicted, measured = getattr(leaf, f"{part}_predicted_ms"), getattr(leaf, f"{part}_ms")
    if not (usable(predicted) and usable(measured)):
        return None
    return Drift(title=title, leaf=leaf, part=part, predicted_ms=predicted, measured_ms=measured)


def drifts(found: Sequence[Tally]) -> list[Drift]:
    """Every part of every path that was taken and measured."""
    return [
        one
        for method in found
        for leaf in method.run.leaves
        for part in ("device", "transfer", "cloud")
        if leaf.shots > 0 and (one := drift(method.title, leaf, part)) is not None
    ]


def lead_ms(a: Tally, b: Tally) -> tuple[float, float]:
    """(how much longer `b` takes on average, two standard errors of that); shot by shot where they pair up."""
    if a.total_ms.size == b.total_ms.size and not (a.left_out or b.left_out):
        apart = b.total_ms - a.total_ms
        variance = _variance(apart)
    else:
        variance = _variance(a.total_ms) + _variance(b.total_ms)
    return b.mean_ms - a.mean_ms, 2 * math.sqrt(variance)


def _variance(values: np.ndarray) -> float:
    """Of their mean; infinite for fewer than two."""
    return float(np.var(values, ddof=1)) / values.size if values.size > 1 else math.inf


def _accuracy(run: MethodRun, shots: Sequence[Shot]) -> float:
    return mean(None if (leaf := leaf_of(run, shot)) is None else leaf.accuracy for shot in shots)


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if values.size else math.nan


def _percent(said: Sequence[bool]) -> float:
    return 100 * sum(said) / len(said) if said else math.nan


def _badness(error: float) -> float:
    """An error that is not a number is the worst."""
    return math.inf if math.isnan(error) else error


ELSEWHERE = "elsewhere"


def endings(run: MethodRun) -> dict[str, float]:
    """Percent of the inferences by early exit, and by bits that they crossed in; empty for a tree without such forks.

    What was to cross and was answered here counts with its bits all the same; all other paths end `elsewhere`.
    """
    known = {leaf.leaf: _ending(leaf) for leaf in run.leaves}
    if not run.shots or set(known.values()) <= {ELSEWHERE}:
        return {}
    ends = [known.get(shot.nodes[-1], ELSEWHERE) if shot.nodes else ELSEWHERE for shot in run.shots]
    order = sorted(set(ends), key=lambda what: (what == ELSEWHERE, what.endswith("bits"), len(what), what))
    return {what: 100 * ends.count(what) / len(ends) for what in order}


def _ending(leaf: Leaf) -> str:
    exit = [] if leaf.exit is None else [f"exit {leaf.exit}"]
    bits = [] if leaf.bits is None else [f"{leaf.bits} bits"]
    return ", ".join(exit + bits) or ELSEWHERE
