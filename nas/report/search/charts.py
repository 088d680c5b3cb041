"""The report's charts, one function each; every one returns an SVG, or nothing where there is nothing to show."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from modeltree.render import ms_text
from nas.names import STRATEGIES, TITLES
from nas.report.pieces.svg import (
    Axis,
    Box,
    axis,
    escape,
    frame,
    method_class,
    place_label,
    polyline,
    spread,
    svg,
    text,
    wide,
)
from nas.results.summary import Branch, Method, Predictor, Series

MAX_POINTS = 600
"""A line has no more points than this; more would not be seen."""

SKIPPED = 0.01
"""Share of the evaluations at whose best reward the search chart begins: what comes before would flatten the rest."""

SEARCHERS = {"tree": "controllers", "random": "random", "egreedy": "ε-greedy"}

T = TypeVar("T")
Line = Sequence[tuple[float, float]]


def search_chart(curves: Mapping[str, Line], exact_reward: float | None) -> str:
    """Best reward so far against evaluations, one line per searcher, and the exact optimum."""
    lines = {name: [p for p in points if math.isfinite(p[1])] for name, points in curves.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    width, height, right = 560, 340, 440
    last = max(points[-1][0] for points in lines.values())
    first = max(1.0, SKIPPED * last)
    lines = {name: _from(points, first) for name, points in lines.items()}
    rewards = [reward for points in lines.values() for _, reward in points]
    levels = rewards + ([exact_reward] if exact_reward is not None else [])
    log = last > 20 * first
    x = axis([first, max(last, first + 1)], 58, right, log=log, pad=0.0)
    y = axis(levels, height - 46, 30)
    parts = frame(x, y, "evaluations" + (" (log scale)" if log else ""), "best reward so far, predicted")
    tags: list[tuple[str, float, str]] = []
    if exact_reward is not None:
        parts.append(
            f'<line class="bound" x1="{x.start}" x2="{right}" y1="{y(exact_reward):.1f}" y2="{y(exact_reward):.1f}"/>'
        )
        tags.append(("exact optimum", y(exact_reward), "m-bound"))
    for name in sorted(lines, key=_rank, reverse=True):
        points = [*lines[name], (last, lines[name][-1][1])]
        pixels = [(x(e), y(r)) for e, r in _thin(points)]
        parts.append(polyline(pixels, f"line {method_class(name)}", stepped=True))
        tags.append((f"{SEARCHERS.get(name, name)} {points[-1][1]:.1f}", pixels[-1][1], method_class(name)))
    for (title, _, classes), py in zip(tags, spread([tag[1] for tag in tags], 15, 34, y.start), strict=True):
        parts.append(text(right + 8, py + 4, title, f"tag {classes}"))
    return svg(width, height, parts, "best reward against evaluations")


def tradeoff_chart(branches: Sequence[Branch], methods: Sequence[Method]) -> str:
    """Accuracy against latency: every branch of the tree, sized by its chance, and every method."""
    shown = [m for m in methods if m.method in STRATEGIES and math.isfinite(m.latency_ms) and math.isfinite(m.accuracy)]
    if not shown and not branches:
        return ""
    width, height = 560, 340
    times = [m.latency_ms for m in shown] + [b.latency_ms for b in branches]
    log = wide(times)
    x = axis(times, 58, width - 16, log=log, pad=0.09)
    y = axis([m.accuracy for m in shown] + [b.accuracy for b in branches], height - 46, 30, pad=0.12)
    parts = frame(x, y, "latency in ms, predicted" + (" (log scale)" if log else ""), "accuracy in %")
    taken: list[Box] = []
    for branch in branches:
        px, py, radius = x(branch.latency_ms), y(branch.accuracy), 4 + 12 * math.sqrt(max(branch.chance, 0.0))
        title = f"branch to leaf {branch.leaf}: {ms_text(branch.latency_ms)}, {branch.accuracy:.2f} %, "
        title += f"chance {100 * branch.chance:.3g} %"
        parts.append(
            f'<circle class="bubble m-tree" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">{_title(title)}</circle>'
        )
    places = [(method, x(method.latency_ms), y(method.accuracy)) for method in shown]
    taken += [(px - 6, py - 6, px + 6, py + 6) for _, px, py in places]
    bounds = (x.start, y.stop - 6, x.stop, y.start)
    for method, px, py in places:
        classes = method_class(method.method)
        lx, ly, anchor = place_label(px, py, method.title, taken, bounds)
        parts.append(
            _diamond(px, py, 6.5, classes, f"{method.title}: {ms_text(method.latency_ms)}, {method.accuracy:.2f} %")
        )
        parts.append(text(lx, ly, method.title, f"tag {anchor} {classes}"))
    return svg(width, height, parts, "accuracy against latency")


def predictor_chart(predictor: Predictor) -> str:
    """Measured against predicted accuracy; on the diagonal the predictor is right."""
    points = [(p, m) for p, m in predictor.points if math.isfinite(p) and math.isfinite(m)]
    if not points:
        return ""
    width, height = 560, 340
    values = [value for point in points for value in point]
    x = axis(values, 58, width - 16)
    y = Axis(lo=x.lo, hi=x.hi, start=height - 46, stop=30)
    parts = frame(x, y, "predicted accuracy in %", "measured accuracy in %")
    parts.append(f'<line class="bound" x1="{x.start}" y1="{y.start}" x2="{x.stop}" y2="{y.stop}"/>')
    for predicted, measured in points:
        label = _title(f"predicted {predicted:.2f} %, measured {measured:.2f} %")
        parts.append(
            f'<circle class="dot m-tree" cx="{x(predicted):.1f}" cy="{y(measured):.1f}" r="4">{label}</circle>'
        )
    return svg(width, height, parts, "measured against predicted accuracy")


def trace_chart(series: Series, edges_mbps: Sequence[float]) -> str:
    """Two panels over one time axis: the bandwidth, with the edges of its types, and the latency of each method."""
    rows = _rows(series)
    if len(rows) < 2:
        return ""
    width, right = 1100, 912
    x = axis([row[0] for row in rows], 58, right, pad=0.0)
    high = max(max(row[1] for row in rows), *edges_mbps, 1e-9)
    top = Axis(lo=0.0, hi=high * 1.05, start=140.0, stop=30.0)
    parts = frame(x, top, "", "bandwidth in Mbit/s", x_ticks=False)
    pixels = [(x(row[0]), top(row[1])) for row in rows]
    area = polyline([(x.start, top.start), *pixels, (x.stop, top.start)], "area", stepped=True)
    parts += [area, polyline(pixels, "line thin bandwidth", stepped=True)]
    edges = [edge for edge in edges_mbps if edge <= top.hi]
    for edge in edges:
        parts.append(f'<line class="bound" x1="{x.start}" x2="{x.stop}" y1="{top(edge):.1f}" y2="{top(edge):.1f}"/>')
    for edge, py in zip(edges, spread([top(edge) for edge in edges], 14, top.stop, top.start), strict=True):
        parts.append(text(right + 8, py + 4, f"fork at {edge:.3g}", "tag m-bound"))
    parts += _latency_panel(rows, list(series.latency_ms), x)
    return svg(width, 470, parts, "bandwidth and latency along the trace")


def _latency_panel(rows: Sequence[tuple[float, ...]], names: Sequence[str], x: Axis) -> list[str]:
    finite = [value for row in rows for value in row[2:] if math.isfinite(value)]
    if not finite:
        return []
    log = wide(finite)
    y = axis(finite, 424, 190, log=log) if log else Axis(lo=0.0, hi=max(finite) * 1.06 or 1.0, start=424.0, stop=190.0)
    scale = " (log scale)" if log else ""
    parts = frame(x, y, "time in s", f"latency in ms, simulated{scale}; its mean on the right")
    tags = []
    for name in sorted(names, key=_rank):
        column = 2 + list(names).index(name)
        pixels = [
            (x(row[0]), y(row[column])) for row in rows if math.isfinite(row[column]) and (row[column] > 0 or not log)
        ]
        if not pixels:
            continue
        values = [row[column] for row in rows if math.isfinite(row[column])]
        mean = ms_text(sum(values) / len(values))
        classes = f"line {method_class(name)}" + ("" if name == "tree" else " thin")
        parts.append(polyline(pixels, classes))
        tags.append((f"{TITLES.get(name, name)} {mean}", pixels[-1][1], method_class(name)))
    for (title, _, classes), py in zip(tags, spread([tag[1] for tag in tags], 16, 196, 420), strict=True):
        parts.append(text(x.stop + 8, py + 4, title, f"tag {classes}"))
    return parts


def bars(rows: Sequence[tuple[str, float, str, str]], unit: str) -> str:
    """Horizontal bars from 0: (name, value, shown value, class)."""
    usable = [row for row in rows if math.isfinite(row[1])]
    if not usable:
        return ""
    width, step = 560, 30
    longest = max(row[1] for row in usable) or 1.0
    parts = []
    for i, (name, value, shown, classes) in enumerate(usable):
        py, length = 6 + i * step, max(2.0, 300 * value / longest)
        parts.append(text(146, py + 15, name, "barname end"))
        parts.append(f'<rect class="bar {classes}" x="156" y="{py + 2}" width="{length:.1f}" height="18" rx="4"/>')
        parts.append(text(156 + length + 8, py + 15, f"{shown} {unit}".strip(), "tick"))
    return svg(width, 12 + step * len(usable), parts, ", ".join(f"{row[0]} {row[2]} {unit}" for row in usable))


def _rows(series: Series) -> list[tuple[float, ...]]:
    """(time, bandwidth, latency of each method), as many as the shortest list has, thinned."""
    columns = [series.time_s, series.bandwidth_mbps, *series.latency_ms.values()]
    rows = [row for row in zip(*columns, strict=False) if math.isfinite(row[0]) and math.isfinite(row[1])]
    return [tuple(row) for row in _thin(rows)]


def _from(points: Line, first: float) -> list[tuple[float, float]]:
    """A best-so-far line from `first` on."""
    before = [reward for evaluations, reward in points if evaluations <= first]
    rest = [point for point in points if point[0] > first]
    return [(first, before[-1]), *rest] if before else rest


def _thin(points: Sequence[T]) -> list[T]:
    """At most about `MAX_POINTS` of them, evenly, the last one included."""
    if len(points) <= MAX_POINTS:
        return list(points)
    step = math.ceil(len(points) / MAX_POINTS)
    return [*points[:-1:step], points[-1]]


def _rank(name: str) -> int:
    """Simplest first, so that the tree is drawn last, over the others; searchers' rivals come before it."""
    order = ["random", "egreedy", *STRATEGIES]
    return order.index(name) if name in order else -1


def _diamond(x: float, y: float, size: float, classes: str, title: str) -> str:
    path = f"M{x:.1f},{y - size:.1f}l{size},{size}l{-size},{size}l{-size},{-size}z"
    return f'<path class="mark {classes}" d="{path}">{_title(title)}</path>'


def _title(content: str) -> str:
    return f"<title>{escape(content)}</title>"
