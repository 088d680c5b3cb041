"""A field run over its time: inferences, and stretches of them in a row that share a path or a bandwidth type."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from nas.field.record import FieldRun, Shot
from nas.field.tally import Tally, alone, usable

MAX_FORKS = 6
"""Forks of a path that are told one by one."""

Rows = list[dict[str, Any]]
"""One dict a stretch or an inference; times are seconds of the trace, latencies ms."""


def ends(shots: Sequence[Shot], every_s: float) -> list[float]:
    """When the time of every shot on the chart is over: at the next one's start."""
    starts = [shot.start_s for shot in shots]
    usual = every_s or (starts[-1] - starts[0]) / max(1, len(starts) - 1) or 1.0
    return [*(max(a, b) for a, b in itertools.pairwise(starts)), starts[-1] + usual]


def link_points(field: FieldRun, shots: Sequence[Shot], until_s: float) -> list[tuple[float, float]]:
    """(time, bandwidth): the trace as far as it goes, then what the shots say, as it plays in a loop."""
    link = [
        (s, v) for s, v in zip(field.trace_time_s, field.trace_mbps, strict=False) if math.isfinite(s) and usable(v)
    ]
    last_s = link[-1][0] if link else -math.inf
    link += [(shot.start_s, shot.link_mbps) for shot in shots if shot.start_s > last_s and usable(shot.link_mbps)]
    before = [point for point in link if point[0] < min(0.0, shots[0].start_s)]
    shown = [*before[-1:], *(point for point in link[len(before) :] if point[0] <= until_s)]
    return [*shown, (until_s, shown[-1][1])] if shown else []


def type_stretches(shots: Sequence[Shot], until: Sequence[float]) -> Rows:
    """Stretches that took the same bandwidth type, fork by fork. until : (shots,), when each is over."""
    return [
        {"fork": fork + 1, "type": kind, "time_s": start_s, "end_s": end_s}
        for fork in range(min(MAX_FORKS, max(len(shot.types) for shot in shots)))
        for kind, start_s, end_s in _runs(
            [shot.types[fork] if fork < len(shot.types) else None for shot in shots], shots, until
        )
        if kind is not None
    ]


def path_stretches(subject: Tally, shots: Sequence[Shot], until: Sequence[float]) -> Rows:
    """Stretches that ended at the same leaf; `missed` where the cloud was to answer and did not."""
    known = {leaf.leaf: leaf.text for leaf in subject.run.leaves}
    ways = [(shot.nodes[-1] if shot.nodes else None, alone(subject.run, shot)) for shot in shots]
    return [
        {"leaf": leaf, "path": known.get(leaf, ""), "missed": missed, "time_s": start_s, "end_s": end_s}
        for (leaf, missed), start_s, end_s in _runs(ways, shots, until)
        if leaf is not None
    ]


def inferences(one: Tally) -> Rows:
    """Every usable inference of a method: when it began, how long it took, where it ended, who answered."""
    return [
        {"time_s": shot.start_s, "ms": shot.total_ms, "leaf": shot.nodes[-1] if shot.nodes else None,
         "answered": shot.answered_by}
        for shot in one.run.shots
        if math.isfinite(shot.start_s) and usable(shot.total_ms)
    ]  # fmt: skip


def _runs(
    keys: Sequence[Any], shots: Sequence[Shot], until: Sequence[float]
) -> Iterable[tuple[Any, float, float]]:  # fmt: skip
    """(key, start, end) in seconds of shots in a row that share a key."""
    for shared, group in itertools.groupby(zip(keys, shots, until, strict=True), key=lambda one: one[0]):
        run = list(group)
        yield shared, run[0][1].start_s, run[-1][2]
