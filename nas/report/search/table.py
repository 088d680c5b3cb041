"""The table of all methods: what each is worth, what finding it cost, and what no method can beat."""

import math
from collections.abc import Callable

from markupsafe import Markup

from nas.report.pieces import cells
from nas.report.pieces.blocks import section, tag
from nas.report.pieces.cells import NONE
from nas.report.pieces.colours import BOUND, colours
from nas.report.pieces.table import Column, bound, comparison
from nas.results.summary import AlongTrace, Exact, MethodRow, Summary
from nas.results.verdict import best_choice

ALONG = 3
"""How many columns, the last ones, are simulated along the trace."""

_NOTE = (
    "Reward weighs the accuracy and the latency of the same row. ★ marks the best of a column; the best choice is "
    "the simplest method whose reward ties with the highest. Along the trace, inferences start at many moments of "
    "the link, and meet what it really does instead of its average."
)


def methods_section(summary: Summary) -> Markup:
    """The section, or nothing if no method was run."""
    members = sorted(summary.methods, key=lambda m: m.reward if math.isfinite(m.reward) else -math.inf, reverse=True)
    if not members:
        return Markup()
    exact, oracle = summary.exact, summary.oracle_along_trace
    played = any(method.along_trace is not None for method in members) or oracle is not None
    kinds = {cells.reward_kind(method) for method in members}
    columns = _columns(kinds.pop() if len(kinds) == 1 else "mixed")[: None if played else -ALONG]
    colour = colours(m.method for m in members)
    bounds = [
        *([] if exact is None else
          [bound("Bound: the predictor's optimum", BOUND, _exact_cells(exact)[: len(columns)])]),
        *([] if oracle is None else [bound("Bound: hindsight oracle", BOUND, _oracle_cells(oracle))]),
    ]  # fmt: skip
    shown = comparison(
        members, columns, title=lambda m: m.title, colour=lambda m: colour[m.method], chosen=best_choice(summary),
        bounds=bounds,
    )  # fmt: skip
    return section("Compared with the alternatives", shown, note=_NOTE)


def _columns(reward_kind: str) -> list[Column[MethodRow]]:
    def along(field: str) -> Callable[[MethodRow], float | None]:
        return lambda m: getattr(m.along_trace, field, None)

    cost, link = ("search cost,", "measured"), ("along the trace,", "simulated")
    return [
        Column(name="reward", pick=lambda m: m.reward, show=cells.plain, better=max, group=("", reward_kind)),
        Column(name="latency", pick=lambda m: m.latency_ms, show=cells.ms, better=min,
               origin=lambda m: m.latency_origin),
        Column(name="accuracy", pick=lambda m: m.accuracy, show=cells.percent, better=max,
               origin=lambda m: m.accuracy_origin),
        Column(name="reward seen", pick=lambda m: m.predicted_reward, show=cells.plain, better=max,
               group=("", "predicted")),
        Column(name="evaluations", pick=lambda m: m.evaluations, show=cells.count, group=cost),
        Column(name="seconds", pick=lambda m: m.seconds, show=cells.seconds, group=cost),
        Column(name="mean latency", pick=along("latency_ms"), show=cells.ms, better=min, group=link),
        Column(name="95 % under", pick=along("p95_latency_ms"), show=cells.ms, better=min, group=link),
        Column(name="reward ", pick=along("reward"), show=cells.plain, better=max, group=link),
    ]  # fmt: skip


def _exact_cells(exact: Exact) -> list[Markup | str]:
    accuracy = tag("predicted") + " " + cells.percent(exact.accuracy)
    seconds = cells.seconds(exact.seconds)
    return [NONE, cells.ms(exact.latency_ms), accuracy, cells.plain(exact.reward), NONE, seconds, *[NONE] * ALONG]


def _oracle_cells(oracle: AlongTrace) -> list[str]:
    return [*[NONE] * 6, cells.ms(oracle.latency_ms), cells.ms(oracle.p95_latency_ms), cells.plain(oracle.reward)]
