"""The charts of a search, one function each; None where there is nothing to show."""

import math
from collections.abc import Mapping, Sequence

import altair as alt

from modeltree.tree.render import ms_text
from nas.names import STRATEGIES, TITLES
from nas.report.pieces import charts, trace
from nas.report.pieces.colours import key
from nas.results.summary import Branch, MethodRow, Predictor, Series

SKIPPED = 0.01
"""Share of the evaluations at whose best reward the search chart begins: what comes before would flatten the rest."""

SEARCHERS = {"tree": "controllers", "random": "random", "egreedy": "ε-greedy"}

Line = Sequence[tuple[float, float]]


def search_chart(curves: Mapping[str, Line], exact_reward: float | None) -> charts.Panel | None:
    """Best reward so far against evaluations, one line per searcher, and the exact optimum.

    curves : per searcher, (evaluations, best reward so far).
    """
    lines = {name: line for name, points in curves.items() if (line := [p for p in points if math.isfinite(p[1])])}
    if not lines:
        return None
    last = max(points[-1][0] for points in lines.values())
    first = max(1.0, SKIPPED * last)
    log = last > 20 * first
    rows = [
        {"name": key(name), "title": SEARCHERS.get(name, name), "evaluations": at, "reward": reward}
        for name, points in lines.items()
        for at, reward in charts.thin([*_from(points, first), (last, points[-1][1])])
    ]
    x = alt.X("evaluations:Q").scale(alt.Scale(type="log", nice=False) if log else alt.Scale(nice=False, zero=False))
    x = x.title("evaluations" + " (log scale)" * log)
    y = alt.Y("reward:Q").scale(zero=False, padding=8, nice=False).title("best reward so far, predicted")
    tooltip = charts.tips({
        "title:N": "searcher", "evaluations:Q": ("evaluations", ",.0f"), "reward:Q": ("best reward", ".2f"),
    })  # fmt: skip
    drawn = charts.lines(rows, x, y, tooltip, list(lines), stepped=True)
    if exact_reward is None or not math.isfinite(exact_reward):
        return charts.sized(drawn)
    optimum = charts.dashed([{"reward": exact_reward}])
    return charts.sized(optimum.encode(y=y, tooltip=charts.tips({"reward:Q": ("exact optimum", ".2f")})), drawn)


def tradeoff_chart(branches: Sequence[Branch], methods: Sequence[MethodRow]) -> charts.Panel | None:
    """Accuracy against latency: every branch of the tree, sized by its chance, and every method one would deploy."""
    shown = deployable(methods)
    if not shown and not branches:
        return None
    times = [*(m.latency_ms for m in shown), *(b.latency_ms for b in branches)]
    x = charts.axis(alt.X, "latency_ms", "latency in ms, predicted", times)
    y = alt.Y("accuracy:Q").scale(zero=False, padding=14, nice=False).title("accuracy in %")
    tooltip = charts.tips({"latency_ms:Q": "latency in ms", "accuracy:Q": ("accuracy in %", ".2f")})
    leaves = [
        {"name": "tree", "leaf": b.leaf, "latency_ms": b.latency_ms, "accuracy": b.accuracy, "chance": b.chance}
        for b in branches
    ]
    points = [
        {"name": key(m.method), "title": m.title, "latency_ms": m.latency_ms, "accuracy": m.accuracy} for m in shown
    ]
    bubbles = (
        alt.Chart(charts.rows(leaves))
        .mark_circle(color="var(--tree)", opacity=0.3, stroke="var(--tree)")
        .encode(x=x, y=y, size=alt.Size("chance:Q", legend=None).scale(domain=[0, 1], range=[40, 900]),
                tooltip=[*charts.tips({"leaf:N": "branch to leaf"}), *tooltip, alt.Tooltip("chance:Q", format=".1%")])
    )  # fmt: skip
    marks = (
        alt.Chart(charts.rows(points))
        .mark_point(shape="diamond", filled=True, size=130, opacity=0.9, stroke="var(--card)")
        .encode(x=x, y=y, color=charts.by_name([m.method for m in shown]),
                tooltip=[*charts.tips({"title:N": "method"}), *tooltip])
    )  # fmt: skip
    layers = (layer for layer, data in ((bubbles, leaves), (marks, points)) if data)
    return charts.sized(*(layer.transform_filter(charts.SHOWN) for layer in layers))


def predictor_chart(predictor: Predictor) -> charts.Panel | None:
    """Measured against predicted accuracy; on the diagonal the predictor is right."""
    points = [(p, m) for p, m in predictor.points if math.isfinite(p) and math.isfinite(m)]
    if not points:
        return None
    values = [value for point in points for value in point]
    ends = [min(values) - 0.5, max(values) + 0.5]
    room = alt.Scale(domain=ends, nice=False)
    x = alt.X("predicted:Q").scale(room).title("predicted accuracy in %")
    y = alt.Y("measured:Q").scale(room).title("measured accuracy in %")
    tooltip = charts.tips({f"{field}:Q": (f"{field}, %", ".2f") for field in ("predicted", "measured")})
    dots = alt.Chart(charts.rows({"predicted": p, "measured": m} for p, m in points))
    return charts.sized(
        charts.dashed(({"predicted": end, "measured": end} for end in ends), "line").encode(x=x, y=y),
        dots.mark_circle(color="var(--tree)", size=55, opacity=0.6).encode(x=x, y=y, tooltip=tooltip),
    )


def trace_chart(series: Series, edges_mbps: Sequence[float]) -> alt.VConcatChart | None:
    """The bandwidth, with the edges of its types, and the latency of each method over the same time."""
    count = min(map(len, (series.time_s, series.bandwidth_mbps, *series.latency_ms.values())))
    if count < 2:
        return None
    stretch = trace.zoom()
    panels: list[charts.Panel] = [trace.link_panel(series.time_s, series.bandwidth_mbps, edges_mbps, stretch)]
    if any(math.isfinite(value) for line in series.latency_ms.values() for value in line):
        titles = {name: TITLES.get(name, name) for name in series.latency_ms}
        title = "latency in ms, simulated"
        panels.append(trace.lines_panel(series.time_s, series.latency_ms, titles, stretch, title=title))
    return trace.over_time(*panels)


def bars(rows: Sequence[tuple[str, float, str, str]], unit: str) -> charts.Panel | None:
    """Horizontal bars from 0, in the given order: (name, value, shown value, colour)."""
    usable = [row for row in rows if math.isfinite(row[1])]
    if not usable:
        return None
    data = charts.rows({"name": n, "value": v, "shown": f"{s} {unit}".strip(), "colour": c} for n, v, s, c in usable)
    y = alt.Y("name:N", sort=None).title(None)
    base = alt.Chart(data, height=26 * len(usable)).encode(y=y, tooltip=[alt.Tooltip("name:N"), alt.Tooltip("shown:N")])
    x = alt.X("value:Q").axis(None).scale(domain=[0, 1.2 * max(row[1] for row in usable) or 1.0])
    drawn = base.mark_bar(cornerRadiusEnd=4, height=17).encode(x=x, color=alt.Color("colour:N", scale=None))
    words = base.mark_text(align="left", dx=6).encode(x=x, text="shown:N")
    return alt.layer(drawn, words).properties(width=charts.WIDTH)


def deployable(methods: Sequence[MethodRow]) -> list[MethodRow]:
    """The methods that one would deploy and that have both numbers."""
    return [m for m in methods if m.method in STRATEGIES and math.isfinite(m.latency_ms) and math.isfinite(m.accuracy)]


def with_means(series: Series) -> list[tuple[str, str]]:
    """(name, title with the mean latency) of every method along the trace."""
    means = {name: [v for v in line if math.isfinite(v)] for name, line in series.latency_ms.items()}
    return [
        (name, f"{TITLES.get(name, name)} {ms_text(sum(line) / len(line))}" if line else TITLES.get(name, name))
        for name, line in means.items()
    ]


def _from(points: Line, first: float) -> list[tuple[float, float]]:
    """A best-so-far line from `first` on."""
    before = [reward for evaluations, reward in points if evaluations <= first]
    rest = [point for point in points if point[0] > first]
    return [(first, before[-1]), *rest] if before else rest
