"""The page of `nas policy eval`: what every policy chose, and what came out, over a sweep or along a link."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
from markupsafe import Markup

from modeltree.files import write_text
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

Drawn = Callable[[PolicyOutcome], np.ndarray]


def write_page(
    path: Path, *, title: str, facts: Sequence[str], table: DecisionTable, rows: Sequence[PolicyRow],
    outcomes: Mapping[str, PolicyOutcome], times_s: np.ndarray | None,
) -> None:  # fmt: skip
    """Write the page, whole or not at all; it needs nothing but itself.

    times_s : (inferences,), when each began on the link; None for a sweep, drawn over the bandwidth.

    Raises
    ------
    DataError : the file cannot be written.
    """
    over = _sweep(table, outcomes) if times_s is None else _link(table, outcomes, times_s)
    sections = [section("What came out", _results(rows, list(outcomes)), note=_NOTE), *over]
    write_text(path, blocks.page(title=title, facts=facts, sections=sections, footer="Written by nas policy eval."))


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
    told = [charts.tip("title:N", "policy"), charts.tip("x:Q", x_title),
            charts.tip("y:Q", y_title)]  # fmt: skip
    x = alt.X("x:Q").scale(zero=False, nice=False).title(x_title)
    y = alt.Y("y:Q").scale(charts.scale(finite)).title(y_title + charts.log_note(finite))
    drawn = charts.lines(rows, x, y, told, list(lines), known=POLICIES, stepped=True, bold="exact")
    return drawn.properties(width=charts.WIDTH, height=charts.HEIGHT)


def _sweep(table: DecisionTable, outcomes: Mapping[str, PolicyOutcome]) -> list[Markup]:
    mbps = next(iter(outcomes.values())).mbps
    picked: dict[str, Drawn] = {
        "latency in ms, predicted": lambda one: one.latency_ms,
        "reward": lambda one: one.reward,
        "accuracy in %": lambda one: one.accuracy,
        "energy in mJ, predicted": lambda one: one.energy_mj,
        "exit": lambda one: table.exit[one.action],
        "cut, layers on the device": lambda one: table.cut[one.action],
        "bits of what is sent": lambda one: np.where(table.sends, table.bits, np.nan)[one.action],
    }
    drawn = [
        (title, lines_chart(mbps, {name: pick(one) for name, one in outcomes.items()},
                            x_title="bandwidth in Mbit/s", y_title=title))
        for title, pick in picked.items()
    ]  # fmt: skip
    names = [(name, name) for name in outcomes]
    shown = (charts.figure(_capital(title), picture, names=names, known=POLICIES) for title, picture in drawn)
    chosen = (blocks.details(name, _ranges(ranges(table, one))) for name, one in outcomes.items())
    return [blocks.pair(*shown), section("What each chose", *chosen)]


def _ranges(chosen: Sequence[tuple[float, float, str]]) -> Markup:
    return table(
        ["bandwidth", "choice"],
        [[f"{low:.4g} to {high:.4g} Mbit/s", Cell(text=what, classes="text")] for low, high, what in chosen],
    )


def _link(table: DecisionTable, outcomes: Mapping[str, PolicyOutcome], times_s: np.ndarray) -> list[Markup]:
    stretch, link = trace.zoom(), next(iter(outcomes.values())).mbps
    picked: dict[str, Drawn] = {
        "latency in ms, simulated": lambda one: one.latency_ms,
        "energy spent in mJ, simulated": lambda one: np.cumsum(one.energy_mj),
        "exit": lambda one: table.exit[one.action],
    }
    panels = [
        trace.lines_panel(
            times_s.tolist(), {name: pick(one).tolist() for name, one in outcomes.items()},
            {name: name for name in outcomes}, stretch, title=title, stepped=True, height=170, known=POLICIES,
        )
        for title, pick in picked.items()
    ]  # fmt: skip
    picture = trace.over_time(trace.link_panel(times_s.tolist(), link.tolist(), [], stretch), *panels)
    shares = (blocks.details(name, _shares(table, one)) for name, one in outcomes.items())
    names = [(name, name) for name in outcomes]
    along = charts.figure("Along the link", picture, note=trace.HINT, kind="simulated", names=names, known=POLICIES)
    return [along, section("What each chose", *shares)]


def _shares(table_: DecisionTable, one: PolicyOutcome) -> Markup:
    actions, counts = np.unique(one.action, return_counts=True)
    return table(["share", "choice"], [
        [f"{100 * counts[i] / len(one.action):.1f} %", Cell(text=table_.name(int(actions[i])), classes="text")]
        for i in np.argsort(-counts, kind="stable")
    ])  # fmt: skip


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


def _capital(title: str) -> str:
    return title[0].upper() + title[1:]
