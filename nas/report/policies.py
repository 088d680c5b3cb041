"""The page of `nas policy eval`: what every policy chose, and what came out, over a sweep or along a link."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import altair as alt
import numpy as np
from markupsafe import Markup

from modeltree.offloading.decisions import DecisionTable
from nas.decisions.offloading.compare import PolicyOutcome, PolicyRow, ranges
from nas.report.pieces import blocks, cells, charts, trace
from nas.report.pieces.blocks import section
from nas.report.pieces.colours import colours, key
from nas.report.pieces.table import Cell, named, table

POLICIES = {"exact": "tree", "greedy": "surgery", "on_device": "device", "cloud_only": "jpeg"}
"""Colours of the policies that everybody has."""

_NOTE = (
    "Latency and energy are predicted from profiles, accuracy is what the tree holds for each leaf; on a link, "
    "transfers are simulated exactly. The reward is 0 to 1. Decision times were measured where this page was written."
)


def render_policies(
    *, title: str, facts: Sequence[str], table: DecisionTable, rows: Sequence[PolicyRow],
    outcomes: Mapping[str, PolicyOutcome], times_s: np.ndarray | None,
) -> str:  # fmt: skip
    """The page as text, which needs nothing but itself.

    times_s : (inferences,), when each began on the link; None for a sweep, drawn over the bandwidth.
    """
    over = _sweep(table, outcomes) if times_s is None else _link(table, outcomes, times_s)
    sections = [section("What came out", _results(rows, list(outcomes)), note=_NOTE), *over]
    return blocks.page(title=title, facts=facts, sections=sections, footer="Written by nas policy eval.")


def lines_chart(
    xs: np.ndarray, lines: Mapping[str, np.ndarray], *, x_title: str, y_title: str
) -> charts.Panel | None:  # fmt: skip
    """One stepped line a policy over anything but time; values that are not finite are left out.

    xs : (n,). lines : per policy, (n,).
    """
    finite = np.concatenate([values[np.isfinite(values)] for values in lines.values()]).tolist()
    if not finite or len(xs) < 2:
        return None
    rows = [
        {"name": key(name), "title": name, "x": float(at), "y": float(value)}
        for name, values in lines.items()
        for at, value in charts.thin(list(zip(xs, values, strict=True)), charts.MAX_ROWS // len(lines))
        if np.isfinite(value)
    ]
    x = alt.X("x:Q").scale(zero=False, nice=False).title(x_title)
    tooltip = charts.tips({"title:N": "policy", "x:Q": x_title, "y:Q": y_title})
    y = charts.axis(alt.Y, "y", y_title, finite)
    return charts.sized(charts.lines(rows, x, y, tooltip, list(lines), known=POLICIES, stepped=True, bold="exact"))


def _sweep(table: DecisionTable, outcomes: Mapping[str, PolicyOutcome]) -> list[Markup]:
    mbps = next(iter(outcomes.values())).mbps
    quantities: dict[str, Callable[[PolicyOutcome], np.ndarray]] = {
        "latency in ms, predicted": lambda one: one.latency_ms,
        "reward": lambda one: one.reward,
        "accuracy in %": lambda one: one.accuracy,
        "energy in mJ, predicted": lambda one: one.energy_mj,
        "exit": lambda one: table.exit[one.action],
        "cut, layers on the device": lambda one: table.cut[one.action],
        "bits of what is sent": lambda one: np.where(table.sends, table.bits, np.nan)[one.action],
    }
    figures = (
        _figure(title[0].upper() + title[1:], lines_chart(
            mbps, {name: pick(one) for name, one in outcomes.items()}, x_title="bandwidth in Mbit/s", y_title=title,
        ), outcomes)
        for title, pick in quantities.items()
    )  # fmt: skip
    return [
        blocks.pair(*figures),
        _choices("bandwidth", {
            name: [(f"{low:.4g} to {high:.4g} Mbit/s", what) for low, high, what in ranges(table, one)]
            for name, one in outcomes.items()
        }),
    ]  # fmt: skip


def _link(table: DecisionTable, outcomes: Mapping[str, PolicyOutcome], times_s: np.ndarray) -> list[Markup]:
    stretch, link = trace.zoom(), next(iter(outcomes.values())).mbps
    quantities: dict[str, Callable[[PolicyOutcome], np.ndarray]] = {
        "latency in ms, simulated": lambda one: one.latency_ms,
        "energy spent in mJ, simulated": lambda one: np.cumsum(one.energy_mj),
        "exit": lambda one: table.exit[one.action],
    }
    panels = [
        trace.lines_panel(
            times_s.tolist(), {name: pick(one).tolist() for name, one in outcomes.items()},
            {name: name for name in outcomes}, stretch, title=title, stepped=True, height=170, known=POLICIES,
        )
        for title, pick in quantities.items()
    ]  # fmt: skip
    picture = trace.over_time(trace.link_panel(times_s.tolist(), link.tolist(), [], stretch), *panels)
    along = _figure("Along the link", picture, outcomes, note=trace.HINT, kind="simulated")
    return [along, _choices("share", {name: _shares(table, one) for name, one in outcomes.items()})]


def _figure(
    title: str, picture: alt.TopLevelMixin | None, names: Iterable[str], *, note: str = "", kind: str = ""
) -> Markup:  # fmt: skip
    return charts.figure(title, picture, note=note, kind=kind, names=[(name, name) for name in names], known=POLICIES)


def _choices(head: str, chosen: Mapping[str, Sequence[tuple[str, str]]]) -> Markup:
    """A table a policy, to be opened: when or how often, and what it chose."""
    opened = (
        blocks.details(name, table([head, "choice"], [[when, Cell(text=what, classes="text")] for when, what in rows]))
        for name, rows in chosen.items()
    )
    return section("What each chose", *opened)


def _shares(decisions: DecisionTable, one: PolicyOutcome) -> list[tuple[str, str]]:
    actions, counts = np.unique(one.action, return_counts=True)
    return [
        (f"{100 * counts[i] / len(one.action):.1f} %", decisions.name(int(actions[i])))
        for i in np.argsort(-counts, kind="stable")
    ]


def _results(rows: Sequence[PolicyRow], names: Sequence[str]) -> Markup:
    titles = ["policy", "reward", "of the exact", "mean latency", "95 % under", "accuracy", "energy", "energy in all"]
    titles += ["answered", "transfers given up", "decision"]
    colour = colours(names, POLICIES)
    return table(titles, [
        [
            named(row.name, colour[row.name]), f"{row.reward:.4f}", f"{100 * row.share:.2f} %",
            cells.ms(row.latency_ms), cells.ms(row.p95_latency_ms), cells.percent(row.accuracy),
            f"{row.energy_mj:.1f} mJ", f"{row.spent_mj:.0f} mJ", f"{100 * row.answered:.1f} %",
            f"{100 * row.gave_up:.1f} %", f"{row.decision_us:.1f} µs",
        ]
        for row in rows
    ])  # fmt: skip
