"""The charts of a field run, one function each; every one returns an SVG, or nothing where there is nothing to show."""

import itertools
import math
from collections.abc import Iterable, Sequence

from modeltree.render import ms_text
from nas.field.record import FieldRun, Shot
from nas.field.tally import (
    DRIFT_SHARE,
    PARTS,
    Drift,
    Tally,
    alone,
    hands_over,
    usable,
)
from nas.report.pieces.svg import (
    CHAR_PX,
    Axis,
    axis,
    escape,
    foot,
    frame,
    method_class,
    polyline,
    spread,
    svg,
    text,
    wide,
)
from nas.report.search.charts import MAX_POINTS
from nas.report.search.drawing import FAST_HUE, SLOW_HUE

MAX_FORKS = 6
"""Forks of a path that get a row of their own in the chart along the trace."""

RIGHT, WIDTH = 912, 1100

Point = tuple[float, float]


def trace_chart(field: FieldRun, found: Sequence[Tally], subject: Tally) -> str:
    """Panels over one time axis: the link and the types taken, the latency of every method, the subject's paths."""
    shots = [shot for shot in subject.run.shots if math.isfinite(shot.start_s)]
    if not shots or not subject.total_ms.size:
        return ""
    until = _ends(shots, field.every_ms / 1e3 if usable(field.every_ms) else 0.0)
    x = axis([min(0.0, shots[0].start_s), until[-1]], 58, RIGHT, pad=0.0)
    link = _link(field, shots, x.hi)
    parts = _bandwidth_panel(field, link, shots, x)
    top = 172.0
    parts += _types_strip(field, shots, until, x, top)
    top += 9 * _forks(shots) + 48
    parts += _latency_panel(field, found, x, top)
    top += 214
    parts += _paths_strip(subject, shots, until, x, top)
    parts += foot(x, top + 26, "time in s")
    return svg(WIDTH, top + 66, parts, "bandwidth, latency and paths along the trace", "chart broad")


def parts_chart(found: Sequence[Tally]) -> str:
    """A stacked bar a method: where its mean latency went."""
    rows = [(one, [(p, ms) for p, ms in zip(PARTS, one.parts_ms, strict=True) if ms > 0]) for one in found]
    rows = [(one, parts) for one, parts in rows if one.total_ms.size]
    longest = max((max(one.mean_ms, sum(ms for _, ms in parts)) for one, parts in rows), default=0.0)
    if not longest > 0:
        return ""
    width, step, left, room = 560, 44, 8.0, 544.0 - 8.0
    drawn = []
    for i, (one, parts) in enumerate(rows):
        py, px = 6.0 + i * step, left
        beside: list[str] = []
        drawn.append(text(left, py + 10, one.title, "barname"))
        drawn.append(text(left + room, py + 10, ms_text(one.mean_ms), "barname end strong"))
        for part, ms in parts:
            length = room * ms / longest
            what = _title(f"{one.title}: {part} {ms_text(ms)}")
            drawn.append(
                f'<rect class="part p-{part}" x="{px:.1f}" y="{py + 15:.1f}" width="{length:.1f}" height="18">'
                f"{what}</rect>"
            )
            shown = ms_text(ms)
            if length > 7.0 * len(shown):
                drawn.append(text(px + length / 2, py + 28, shown, "inside middle"))
            elif ms >= 0.01:
                beside.append(f"{part} {ms:.2g}")
            px += length
        if beside and px + 8 + CHAR_PX * len(", ".join(beside)) < left + room:
            drawn.append(text(px + 8, py + 28, ", ".join(beside), "tick"))
    label = ", ".join(f"{one.title} {ms_text(one.mean_ms)}" for one, _ in rows)
    return svg(width, 8 + step * len(rows), drawn, f"mean latency by part: {label}")


def distribution_chart(found: Sequence[Tally]) -> str:
    """Share of the inferences that took no longer than so long, a line a method."""
    rows = [one for one in found if one.total_ms.size]
    values = [float(v) for one in rows for v in one.total_ms]
    if not values:
        return ""
    log = wide(values)
    width, height = 560, 316
    x = axis(values, 58, width - 16, log=log, pad=0.03)
    y = Axis(lo=0.0, hi=100.0, start=height - 46, stop=30)
    drawn = frame(x, y, "latency in ms" + (" (log scale)" if log else ""), "% of inferences that took no longer")
    for share, name in ((50.0, "median"), (95.0, "95 %")):
        drawn.append(f'<line class="bound" x1="{x.start}" x2="{x.stop}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        drawn.append(text(x.start + 4, y(share) - 4, name, "tick"))
    for one in rows:
        ordered = sorted(float(v) for v in one.total_ms if v > 0 or not log)
        step = math.ceil(len(ordered) / MAX_POINTS)
        points = [(v, 100 * (i + 1) / len(ordered)) for i, v in enumerate(ordered)]
        pixels = [(x(v), y(share)) for v, share in [*points[:-1:step], *points[-1:]]]
        if pixels:
            start, end = (pixels[0][0], y(0.0)), (x.stop, y(100.0))
            classes = f"line {method_class(one.name)}" + ("" if one.name == "tree" else " thin")
            drawn.append(polyline([start, *pixels, end], classes, stepped=True))
    return svg(width, height, drawn, "distribution of latencies")


def drift_chart(compared: Sequence[Drift]) -> str:
    """Measured against predicted time of every part; within the band nothing is alarming."""
    points = [one for one in compared if one.predicted_ms > 0 and one.measured_ms > 0]
    if not points:
        return ""
    width, height = 560, 340
    values = [value for one in points for value in (one.predicted_ms, one.measured_ms)]
    x = axis(values, 58, width - 16, log=True)
    y = Axis(lo=x.lo, hi=x.hi, start=height - 46, stop=30, log=True)
    drawn = frame(x, y, "predicted in ms (log scale)", "measured in ms")
    drawn.append(f'<path class="band" d="{_band(x, y)}"/>')
    drawn.append(f'<line class="bound" x1="{x.start}" y1="{y.start}" x2="{x.stop}" y2="{y.stop}"/>')
    for one in points:
        what = f"{one.title}, leaf {one.leaf.leaf}, {one.part}: {ms_text(one.predicted_ms)} predicted, "
        what += f"{ms_text(one.measured_ms)} measured"
        ring = " ringed" if one.alarming else ""
        drawn.append(
            f'<circle class="dot p-{one.part}{ring}" cx="{x(one.predicted_ms):.1f}" cy="{y(one.measured_ms):.1f}" '
            f'r="5">{_title(what)}</circle>'
        )
    return svg(width, height, drawn, "measured against predicted time of the parts")


def leaf_colours(subject: Tally) -> dict[int, str]:
    """A colour, as CSS, for every leaf that was taken: warm where the device answers, cool where the cloud does."""
    taken = sorted({shot.nodes[-1] for shot in subject.run.shots if shot.nodes})
    known = {leaf.leaf: leaf for leaf in subject.run.leaves}
    here = [leaf for leaf in taken if leaf not in known or not hands_over(known[leaf])]
    there = [leaf for leaf in taken if leaf not in here]
    hues = _hues(here, 18, 95 if there else 330) | _hues(there, 175, 300)
    return {
        leaf: f"hsl({hue:.0f} var(--leaf-s) var(--leaf-{'ab'[i % 2]}))" for i, (leaf, hue) in enumerate(hues.items())
    }


def type_colour(kind: int, count: int) -> str:
    """A bandwidth type's, as in the drawing of the tree: orange is slowest, blue fastest."""
    share = min(max(kind, 0), count - 1) / (count - 1) if count > 1 else 0.5
    return f"hsl({SLOW_HUE + (FAST_HUE - SLOW_HUE) * share:.0f} 72% var(--fork-line))"


def _hues(leaves: Sequence[int], first: float, last: float) -> dict[int, float]:
    step = (last - first) / max(1, len(leaves) - 1)
    return {leaf: first + i * step for i, leaf in enumerate(leaves)}


def _ends(shots: Sequence[Shot], every_s: float) -> list[float]:
    """When the time of every shot on the chart is over: at the next one's start."""
    starts = [shot.start_s for shot in shots]
    usual = every_s or (starts[-1] - starts[0]) / max(1, len(starts) - 1) or 1.0
    return [*(max(a, b) for a, b in itertools.pairwise(starts)), starts[-1] + usual]


def _link(field: FieldRun, shots: Sequence[Shot], until_s: float) -> list[Point]:
    """(time, bandwidth): the trace as far as it goes, then what the shots say, as it plays in a loop."""
    link = [
        (s, v) for s, v in zip(field.trace_time_s, field.trace_mbps, strict=False) if math.isfinite(s) and usable(v)
    ]
    last_s = link[-1][0] if link else -math.inf
    link += [(shot.start_s, shot.link_mbps) for shot in shots if shot.start_s > last_s and usable(shot.link_mbps)]
    before = [point for point in link if point[0] < min(0.0, shots[0].start_s)]
    return [*before[-1:], *(point for point in link[len(before) :] if point[0] <= until_s)]


def _bandwidth_panel(field: FieldRun, link: Sequence[Point], shots: Sequence[Shot], x: Axis) -> list[str]:
    edges = [edge for edge in field.edges_mbps if usable(edge)]
    high = max([v for _, v in link] + edges + [1e-3]) * 1.05
    y = Axis(lo=0.0, hi=high, start=140.0, stop=30.0)
    parts = frame(x, y, "", "bandwidth in Mbit/s; dots: the device's estimate", x_ticks=False)
    pixels = [(max(x.start, x(s)), y(v)) for s, v in _thin_link(link)]
    if pixels:
        pixels.append((x.stop, pixels[-1][1]))
        outline = [(pixels[0][0], y.start), *pixels, (x.stop, y.start)]
        parts += [polyline(outline, "area", stepped=True), polyline(pixels, "line thin bandwidth", stepped=True)]
    for edge in edges:
        parts.append(f'<line class="bound" x1="{x.start}" x2="{x.stop}" y1="{y(edge):.1f}" y2="{y(edge):.1f}"/>')
    for edge, py in zip(edges, spread([y(edge) for edge in edges], 14, y.stop, y.start), strict=True):
        parts.append(text(x.stop + 8, py + 4, f"fork at {edge:.3g}", "tag m-bound"))
    for shot in shots[:: math.ceil(len(shots) / MAX_POINTS)]:
        guess = next((v for v in reversed(shot.mbps) if v is not None and usable(v)), None)
        if guess is not None:
            at = y(min(guess, high))
            parts.append(f'<circle class="guess" cx="{x(shot.start_s):.1f}" cy="{at:.1f}" r="1.9"/>')
    return parts


def _thin_link(link: Sequence[Point]) -> list[Point]:
    step = math.ceil(len(link) / (2 * MAX_POINTS)) or 1
    return [*link[:-1:step], *link[-1:]]


def _forks(shots: Sequence[Shot]) -> int:
    return min(MAX_FORKS, max(1, *(len(shot.types) for shot in shots)))


def _types_strip(
    field: FieldRun, shots: Sequence[Shot], until: Sequence[float], x: Axis, top: float
) -> list[str]:  # fmt: skip
    """A row a fork, a colour a bandwidth type."""
    rows, count = _forks(shots), max(len(field.representative_mbps), len(field.edges_mbps) + 1)
    parts = [text(x.start - 44, top - 7, "type taken, fork by fork" if rows > 1 else "type taken", "name")]
    for row in range(rows):
        kinds = [shot.types[row] if row < len(shot.types) else None for shot in shots]
        for kind, left, right in _runs(kinds, shots, until, x):
            if kind is not None:
                what = _title(f"fork {row + 1}: type {kind}")
                parts.append(_cell(left, top + 9 * row, right - left, 8, type_colour(kind, count), what))
    for i in range(min(count, 6)):
        kind = i if count <= 6 else round(i * (count - 1) / 5)
        left = x.stop + 8 + 32 * i
        parts.append(_cell(left, top, 10, 8, type_colour(kind, count), ""))
        parts.append(text(left + 14, top + 8, kind, "tick"))
    return parts


def _latency_panel(field: FieldRun, found: Sequence[Tally], x: Axis, top: float) -> list[str]:
    lines = {one.name: (one, _latencies(one)) for one in found if one.total_ms.size}
    values = [v for _, points in lines.values() for _, v in points]
    if not values:
        return []
    log, bottom = wide(values), top + 180
    y = (
        axis(values, bottom, top, log=log)
        if log
        else Axis(lo=0.0, hi=max(values) * 1.06 or 1.0, start=bottom, stop=top)
    )
    scale = " (log scale)" if log else ""
    parts = frame(x, y, "", f"latency in ms, measured{scale}; its mean on the right", x_ticks=False)
    tags: list[tuple[str, float, str]] = []
    if usable(field.deadline_ms) and y.lo < (field.deadline_ms or 0) < y.hi:
        at = y(field.deadline_ms or 0)
        parts.append(f'<line class="late" x1="{x.start}" x2="{x.stop}" y1="{at:.1f}" y2="{at:.1f}"/>')
        tags.append((f"deadline {ms_text(field.deadline_ms or 0)}", at, "bad"))
    for one, points in sorted(lines.values(), key=lambda line: line[0].name == "tree"):
        pixels = [(x(s), y(v)) for s, v in points if (v > 0 or not log) and x.lo <= s <= x.hi]
        if pixels:
            parts.append(polyline(pixels, f"line {method_class(one.name)} {'' if one.name == 'tree' else 'thin'}"))
            tags.append((f"{one.title} {ms_text(one.mean_ms)}", pixels[-1][1], method_class(one.name)))
    for (title, _, classes), py in zip(tags, spread([tag[1] for tag in tags], 16, top + 6, bottom - 4), strict=True):
        parts.append(text(x.stop + 8, py + 4, _short(title), f"tag {classes}"))
    return parts


def _latencies(one: Tally) -> list[Point]:
    points = [(s.start_s, s.total_ms) for s in one.run.shots if math.isfinite(s.start_s) and usable(s.total_ms)]
    step = math.ceil(len(points) / MAX_POINTS) or 1
    return points if step == 1 else [*points[:-1:step], points[-1]]


def _paths_strip(subject: Tally, shots: Sequence[Shot], until: Sequence[float], x: Axis, top: float) -> list[str]:
    """Which leaf each inference ended at; hatched where the cloud was to answer and the device did."""
    colours = leaf_colours(subject)
    parts = [text(x.start - 44, top - 7, f"path of {subject.title}; hatched: went on here", "name")]
    ways = [(shot.nodes[-1] if shot.nodes else None, alone(subject.run, shot)) for shot in shots]
    for (leaf, missed), left, right in _runs(ways, shots, until, x):
        if leaf is None:
            continue
        known = next((one for one in subject.run.leaves if one.leaf == leaf), None)
        what = f"leaf {leaf}" + (f": {known.text}" if known else "") + (", went on here" if missed else "")
        parts.append(_cell(left, top, right - left, 26, colours[leaf], _title(what)))
        if missed:
            parts.append(f'<path class="hatch" d="{_hatch(left, top, right - left, 26)}"/>')
            middle = (left + right) / 2
            parts.append(f'<path class="flag" d="M{middle:.1f},{top - 1:.1f}l-3.5,-6h7z"/>')
    return parts


def _runs(keys: Sequence, shots: Sequence[Shot], until: Sequence[float], x: Axis) -> Iterable[tuple]:
    """(key, left, right) in pixels of shots in a row that share a key."""
    for key, group in itertools.groupby(zip(keys, shots, until, strict=True), key=lambda one: one[0]):
        run = list(group)
        yield key, x(run[0][1].start_s), x(run[-1][2])


def _cell(left: float, top: float, width: float, height: float, colour: str, inside: str) -> str:
    return (
        f'<rect class="cell" style="--c:{colour}" x="{left:.1f}" y="{top:.1f}" width="{max(width, 0.8):.1f}" '
        f'height="{height}">{inside}</rect>'
    )


def _hatch(left: float, top: float, width: float, height: float) -> str:
    """Slanted lines that stay inside a box."""
    lines = []
    at = -height
    while at < width:
        a, b = max(at, 0.0), min(at + height, width)
        if b > a:
            lines.append(f"M{left + a:.1f},{top + height - (a - at):.1f}L{left + b:.1f},{top + height - (b - at):.1f}")
        at += 5.0
    return "".join(lines)


def _band(x: Axis, y: Axis) -> str:
    """The region around the diagonal in which nothing is alarming, on equal logarithmic axes."""
    ends = [x.lo, x.lo / (1 - DRIFT_SHARE), x.hi / (1 + DRIFT_SHARE), x.hi]
    upper = [(x(v), y(min(v * (1 + DRIFT_SHARE), y.hi))) for v in ends]
    lower = [(x(v), y(max(v * (1 - DRIFT_SHARE), y.lo))) for v in reversed(ends)]
    return "M" + "L".join(f"{px:.1f},{py:.1f}" for px, py in upper + lower) + "z"


def _short(title: str) -> str:
    return title if len(title) <= 30 else title[:29] + "…"


def _title(content: str) -> str:
    return f"<title>{escape(content)}</title>"
