"""The charts of a field run, one function each; None where there is nothing to show."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from nas.field.along import Rows, ends, inferences, link_points, path_stretches, type_stretches
from nas.field.record import FieldRun, Shot
from nas.field.tally import DRIFT_SHARE, PARTS, Drift, Tally, hands_over, usable
from nas.report.pieces import charts, trace
from nas.report.pieces.colours import PARTS as PART_COLOURS
from nas.report.pieces.colours import key
from nas.report.search.drawing import FAST_HUE, SLOW_HUE

_PART = alt.Color("part:N").scale(domain=list(PARTS), range=[f"var(--{PART_COLOURS[part]})" for part in PARTS])


def trace_chart(field: FieldRun, tallies: Sequence[Tally], subject: Tally) -> alt.VConcatChart | None:
    """Panels over one time axis: the link and the types taken, the latency of every method, the subject's paths."""
    shots = [shot for shot in subject.run.shots if math.isfinite(shot.start_s)]
    if not shots or not subject.total_ms.size:
        return None
    stretch, until = trace.zoom(), ends(shots, field.every_ms / 1e3 if usable(field.every_ms) else 0.0)
    panels = [_link_panel(field, shots, until[-1], stretch), _types_strip(field, shots, until, stretch),
              _latency_panel(field, tallies, stretch), _paths_strip(subject, shots, until, stretch)]  # fmt: skip
    return trace.over_time(*(panel for panel in panels if panel is not None))


def parts_chart(tallies: Sequence[Tally]) -> charts.Panel | None:
    """A stacked bar a method: where its mean latency went."""
    rows = part_rows(tallies)
    if not rows:
        return None
    tooltip = charts.tips({"method:N": "method", "part:N": "part", "ms:Q": "mean in ms", "mean_ms:Q": "in all, ms"})
    return (
        alt.Chart(charts.rows(rows), width=charts.WIDTH, height=34 * len({row["method"] for row in rows}))
        .mark_bar(height=20)
        .encode(x=alt.X("ms:Q").title("mean latency in ms, measured"), y=alt.Y("method:N", sort=None).title(None),
                color=_PART.legend(None), order="order:O", tooltip=tooltip)
    )  # fmt: skip


def part_rows(tallies: Sequence[Tally]) -> Rows:
    """The parts of every method's mean latency, those of more than nothing."""
    return [
        {"method": one.title, "part": part, "ms": ms, "mean_ms": one.mean_ms, "order": order}
        for one in tallies
        if one.total_ms.size
        for order, (part, ms) in enumerate(zip(PARTS, one.parts_ms, strict=True))
        if ms > 0
    ]


def distribution_chart(tallies: Sequence[Tally]) -> charts.Panel | None:
    """Share of the inferences that took no longer than so long, a line a method."""
    rows = distribution_rows(tallies)
    if not rows:
        return None
    x = charts.axis(alt.X, "ms", "latency in ms, measured", [row["ms"] for row in rows])
    y = alt.Y("percent:Q").scale(domain=[0, 100]).title("% of inferences that took no longer")
    tooltip = charts.tips({"title:N": "method", "ms:Q": "latency in ms", "percent:Q": ("% took no longer", ".1f")})
    names = [one.name for one in tallies if one.total_ms.size]
    levels = charts.dashed([{"percent": 50.0, "name": "median"}, {"percent": 95.0, "name": "95 %"}])
    return charts.sized(
        levels.encode(y=y, tooltip="name:N"), charts.lines(rows, x, y, tooltip, names, stepped=True)
    )  # fmt: skip


def distribution_rows(tallies: Sequence[Tally]) -> Rows:
    """Every method's latencies in order, each with the percent that took no longer; 0 ms has no place on a log axis."""
    positive = any((one.total_ms > 0).any() for one in tallies)
    return [
        {"name": key(one.name), "title": one.title, "ms": ms, "percent": 100 * (i + 1) / one.total_ms.size}
        for one in tallies
        for i, ms in charts.thin(list(enumerate(sorted(one.total_ms.tolist()))), charts.MAX_ROWS // (2 * len(tallies)))
        if ms > 0 or not positive
    ]


def drift_chart(drifts: Sequence[Drift]) -> charts.Panel | None:
    """Measured against predicted time of every part; within the band nothing is alarming."""
    rows: Rows = [
        {"path": f"{one.title}, leaf {one.leaf.leaf}", "part": one.part, "predicted_ms": one.predicted_ms,
         "measured_ms": one.measured_ms, "alarming": one.alarming}
        for one in drifts
        if one.predicted_ms > 0 and one.measured_ms > 0
    ]  # fmt: skip
    if not rows:
        return None
    values = [row[field] for row in rows for field in ("predicted_ms", "measured_ms")]
    ends = [min(values) / 1.4, max(values) * 1.4]
    room = alt.Scale(type="log", domain=ends, nice=False)
    band = [
        {"predicted_ms": v, "measured_ms": v, "low": v * (1 - DRIFT_SHARE), "high": v * (1 + DRIFT_SHARE)}
        for v in ends
    ]  # fmt: skip
    x = alt.X("predicted_ms:Q").scale(room).title("predicted in ms (log scale)")
    y, low = (alt.Y(f"{field}:Q").scale(room).title("measured in ms (log scale)") for field in ("measured_ms", "low"))
    tooltip = charts.tips({
        "path:N": "path", "part:N": "part", "predicted_ms:Q": "predicted in ms", "measured_ms:Q": "measured in ms",
    })  # fmt: skip
    area = alt.Chart(charts.rows(band)).mark_area(color="var(--good)", opacity=0.13, clip=True)
    ring = alt.condition("datum.alarming", alt.value("var(--bad)"), alt.value("transparent"))
    dots = alt.Chart(charts.rows(rows)).mark_circle(size=80, opacity=0.8, strokeWidth=2)
    return charts.sized(
        area.encode(x=x, y=low, y2="high:Q"), charts.dashed(band, "line").encode(x=x, y=y),
        dots.encode(x=x, y=y, color=_PART.legend(None), stroke=ring, tooltip=tooltip),
    )  # fmt: skip


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


def _link_panel(field: FieldRun, shots: Sequence[Shot], until_s: float, stretch: alt.Parameter) -> charts.Panel:
    link, edges = link_points(field, shots, until_s), [edge for edge in field.edges_mbps if usable(edge)]
    title = "bandwidth in Mbit/s; dots: estimated"
    panel = trace.link_panel([s for s, _ in link], [v for _, v in link], edges, stretch, title)
    guesses = [[v for v in shot.mbps if v is not None and usable(v)] for shot in shots]
    rows = [
        {"time_s": shot.start_s, "mbps": guess[-1], "link_mbps": shot.link_mbps}
        for shot, guess in charts.thin(list(zip(shots, guesses, strict=True)))
        if guess
    ]
    if not rows:
        return panel
    tooltip = charts.tips({
        "time_s:Q": trace.SECONDS, "mbps:Q": "estimate, Mbit/s", "link_mbps:Q": "link, Mbit/s",
    })  # fmt: skip
    dots = alt.Chart(charts.rows(rows)).mark_circle(size=14, color="var(--ink)", opacity=0.6, clip=True)
    highest = max([v for _, v in link] + edges + [1e-3])
    y = alt.Y("mbps:Q").scale(domain=[0, 1.05 * highest], clamp=True).title(title)
    return alt.layer(panel, dots.encode(x="time_s:Q", y=y, tooltip=tooltip))


def _types_strip(
    field: FieldRun, shots: Sequence[Shot], until: Sequence[float], stretch: alt.Parameter
) -> charts.Panel | None:  # fmt: skip
    """A row a fork, a colour a bandwidth type."""
    count = max(len(field.representative_mbps), len(field.edges_mbps) + 1)
    rows = [row | {"colour": type_colour(row["type"], count)} for row in type_stretches(shots, until)]
    y = alt.Y("fork:O").title("bandwidth type, fork by fork")
    height = 12 * len({row["fork"] for row in rows})
    return _strip(rows, stretch, alt.value(0), {"fork:O": "fork", "type:O": "bandwidth type"}, height, y)


def _latency_panel(field: FieldRun, tallies: Sequence[Tally], stretch: alt.Parameter) -> charts.Panel | None:
    rows: Rows = [
        {"name": key(one.name), "title": one.title, **row}
        for one in tallies
        for row in charts.thin(inferences(one), charts.MAX_ROWS // len(tallies))
    ]
    if not rows:
        return None
    names = [one.name for one in tallies if one.total_ms.size]
    y = charts.axis(alt.Y, "ms", "latency in ms, measured", [float(row["ms"]) for row in rows], zero=True)
    tooltip = charts.tips({
        "title:N": "method", "time_s:Q": trace.SECONDS, "ms:Q": "latency in ms", "leaf:O": "leaf",
        "answered:N": "answered by",
    })  # fmt: skip
    panel = charts.lines(rows, trace.time_axis(stretch, trace.SECONDS), y, tooltip, names).properties(height=230)
    if not usable(field.deadline_ms):
        return panel
    limit = alt.Chart(charts.rows([{"ms": float(field.deadline_ms or 0)}])).mark_rule(
        strokeDash=[2, 3], color="var(--bad)", clip=True
    )
    return alt.layer(panel, limit.encode(y="ms:Q", tooltip=charts.tips({"ms:Q": "deadline in ms"})))


def _paths_strip(
    subject: Tally, shots: Sequence[Shot], until: Sequence[float], stretch: alt.Parameter
) -> charts.Panel | None:
    """Which leaf each inference ended at, outlined where the cloud was to answer and the device did."""
    colours = leaf_colours(subject)
    rows = [row | {"row": 1, "colour": colours[row["leaf"]]} for row in path_stretches(subject, shots, until)]
    missed = alt.condition("datum.missed", alt.value(2), alt.value(0))
    y = alt.Y("row:O").axis(labels=False).title(f"path of {subject.title}")
    return _strip(rows, stretch, missed, {"leaf:O": "leaf", "path:N": "path", "missed:N": "went on here"}, 28, y)


def _strip(rows: Rows, stretch: alt.Parameter, outline: Any, tips: dict[str, str], height: int,
           y: alt.Y) -> charts.Panel | None:  # fmt: skip
    """Coloured boxes from `time_s` to `end_s`; None where there are none."""
    if not rows:
        return None
    return (
        alt.Chart(charts.rows(rows), height=height)
        .mark_rect(clip=True, stroke="var(--bad)")
        .encode(x=trace.time_axis(stretch).axis(None), x2="end_s:Q", y=y, color=alt.Color("colour:N", scale=None),
                strokeWidth=outline, tooltip=charts.tips(tips | {"time_s:Q": "from, s", "end_s:Q": "to, s"}))
    )  # fmt: skip
