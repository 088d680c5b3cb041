"""The charts of a field run, one function each; None where there is nothing to show."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from nas.field.along import Rows, ends, inferences, link_points, path_stretches, type_stretches
from nas.field.record import FieldRun, Shot
from nas.field.tally import DRIFT_SHARE, PARTS, Drift, Tally, hands_over, usable
from nas.report.pieces import charts, trace
from nas.report.pieces.colours import BOUND, key
from nas.report.pieces.colours import PARTS as PART_COLOURS
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
    return (
        alt.Chart(charts.rows(rows), width=charts.WIDTH, height=34 * len({row["method"] for row in rows}))
        .mark_bar(height=20)
        .encode(
            x=alt.X("ms:Q").title("mean latency in ms, measured"), y=alt.Y("method:N", sort=None).title(None),
            color=_PART.legend(None), order="order:O",
            tooltip=["method:N", "part:N", charts.tip("ms:Q", "mean in ms"),
                     charts.tip("mean_ms:Q", "in all, ms")],
        )
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
    times = [row["ms"] for row in rows]
    x = alt.X("ms:Q").scale(charts.scale(times)).title("latency in ms, measured" + charts.log_note(times))
    y = alt.Y("percent:Q").scale(domain=[0, 100]).title("% of inferences that took no longer")
    told = [charts.tip("title:N", "method"), charts.tip("ms:Q", "latency in ms"),
            charts.tip("percent:Q", "% took no longer", ".1f")]  # fmt: skip
    names = [one.name for one in tallies if one.total_ms.size]
    levels = alt.Chart(charts.rows([{"percent": 50.0, "name": "median"}, {"percent": 95.0, "name": "95 %"}]))
    drawn = levels.mark_rule(strokeDash=[5, 4], color=BOUND).encode(y=y, tooltip="name:N")
    return alt.layer(drawn, charts.lines(rows, x, y, told, names, stepped=True)).properties(
        width=charts.WIDTH, height=charts.HEIGHT
    )


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
    rows = [
        {"path": f"{one.title}, leaf {one.leaf.leaf}", "part": one.part, "predicted_ms": one.predicted_ms,
         "measured_ms": one.measured_ms, "alarming": one.alarming}
        for one in drifts
        if one.predicted_ms > 0 and one.measured_ms > 0
    ]  # fmt: skip
    if not rows:
        return None
    values = [value for one in drifts for value in (one.predicted_ms, one.measured_ms) if value > 0]
    ends = [min(values) / 1.4, max(values) * 1.4]
    room = alt.Scale(type="log", domain=ends, nice=False)
    band = charts.rows(
        {"predicted_ms": v, "measured_ms": v, "low": v * (1 - DRIFT_SHARE), "high": v * (1 + DRIFT_SHARE)}
        for v in ends
    )  # fmt: skip
    x = alt.X("predicted_ms:Q").scale(room).title("predicted in ms (log scale)")
    y = alt.Y("measured_ms:Q").scale(room).title("measured in ms (log scale)")
    told = ["path:N", "part:N", charts.tip("predicted_ms:Q", "predicted in ms"),
            charts.tip("measured_ms:Q", "measured in ms")]  # fmt: skip
    area = alt.Chart(band).mark_area(color="var(--good)", opacity=0.13, clip=True)
    line = alt.Chart(band).mark_line(strokeDash=[5, 4], color=BOUND, strokeWidth=1, clip=True)
    ring = alt.condition("datum.alarming", alt.value("var(--bad)"), alt.value("transparent"))
    dots = alt.Chart(charts.rows(rows)).mark_circle(size=80, opacity=0.8, strokeWidth=2)
    return alt.layer(
        area.encode(x=x, y=alt.Y("low:Q").scale(room).title("measured in ms (log scale)"), y2="high:Q"),
        line.encode(x=x, y=y), dots.encode(x=x, y=y, color=_PART.legend(None), stroke=ring, tooltip=told),
    ).properties(width=charts.WIDTH, height=charts.HEIGHT)  # fmt: skip


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
    rows = []
    for shot in charts.thin(shots):
        guess = next((v for v in reversed(shot.mbps) if v is not None and usable(v)), None)
        if guess is not None:
            rows.append({"time_s": shot.start_s, "mbps": guess, "link_mbps": shot.link_mbps})
    if not rows:
        return panel
    told = [charts.tip("time_s:Q", trace.SECONDS), charts.tip("mbps:Q", "estimate, Mbit/s"),
            charts.tip("link_mbps:Q", "link, Mbit/s")]  # fmt: skip
    dots = alt.Chart(charts.rows(rows)).mark_circle(size=14, color="var(--ink)", opacity=0.6, clip=True)
    highest = max([v for _, v in link] + edges + [1e-3])
    y = alt.Y("mbps:Q").scale(domain=[0, 1.05 * highest], clamp=True).title(title)
    return alt.layer(panel, dots.encode(x="time_s:Q", y=y, tooltip=told))


def _types_strip(
    field: FieldRun, shots: Sequence[Shot], until: Sequence[float], stretch: alt.Parameter
) -> charts.Panel | None:  # fmt: skip
    """A row a fork, a colour a bandwidth type."""
    count = max(len(field.representative_mbps), len(field.edges_mbps) + 1)
    rows = [row | {"colour": type_colour(row["type"], count)} for row in type_stretches(shots, until)]
    told = ["fork:O", charts.tip("type:O", "bandwidth type"), *_span()]
    y = alt.Y("fork:O").title("bandwidth type, fork by fork")
    return _strip(rows, stretch, alt.value(0), told, 12 * len({row["fork"] for row in rows}), y)


def _latency_panel(field: FieldRun, tallies: Sequence[Tally], stretch: alt.Parameter) -> charts.Panel | None:
    rows: Rows = [
        {"name": key(one.name), "title": one.title, **row}
        for one in tallies
        for row in charts.thin(inferences(one), charts.MAX_ROWS // len(tallies))
    ]
    if not rows:
        return None
    values = [float(row["ms"]) for row in rows]
    names = [one.name for one in tallies if one.total_ms.size]
    y = alt.Y("ms:Q").scale(charts.scale(values, zero=True)).title("latency in ms, measured" + charts.log_note(values))
    told = [charts.tip("title:N", "method"), charts.tip("time_s:Q", trace.SECONDS),
            charts.tip("ms:Q", "latency in ms"), alt.Tooltip("leaf:O"),
            charts.tip("answered:N", "answered by")]  # fmt: skip
    panel = charts.lines(rows, trace.time_axis(stretch, trace.SECONDS), y, told, names).properties(height=230)
    if not usable(field.deadline_ms):
        return panel
    limit = alt.Chart(charts.rows([{"ms": float(field.deadline_ms or 0)}])).mark_rule(
        strokeDash=[2, 3], color="var(--bad)", clip=True
    )
    return alt.layer(panel, limit.encode(y="ms:Q", tooltip=charts.tip("ms:Q", "deadline in ms")))


def _paths_strip(
    subject: Tally, shots: Sequence[Shot], until: Sequence[float], stretch: alt.Parameter
) -> charts.Panel | None:
    """Which leaf each inference ended at, outlined where the cloud was to answer and the device did."""
    colours = leaf_colours(subject)
    rows = [row | {"row": 1, "colour": colours[row["leaf"]]} for row in path_stretches(subject, shots, until)]
    told = [charts.tip("leaf:O", "leaf"), "path:N", charts.tip("missed:N", "went on here"), *_span()]
    missed = alt.condition("datum.missed", alt.value(2), alt.value(0))
    y = alt.Y("row:O").axis(labels=False).title(f"path of {subject.title}")
    return _strip(rows, stretch, missed, told, 28, y)


def _span() -> list[alt.Tooltip]:
    return [charts.tip("time_s:Q", "from, s"), charts.tip("end_s:Q", "to, s")]


def _strip(rows: Rows, stretch: alt.Parameter, outline: Any, told: Sequence[Any], height: int,
           y: alt.Y) -> charts.Panel | None:  # fmt: skip
    """Coloured boxes from `time_s` to `end_s`; None where there are none."""
    if not rows:
        return None
    return (
        alt.Chart(charts.rows(rows), height=height)
        .mark_rect(clip=True, stroke="var(--bad)")
        .encode(x=trace.time_axis(stretch).axis(None), x2="end_s:Q", y=y, color=alt.Color("colour:N", scale=None),
                strokeWidth=outline, tooltip=list(told))
    )  # fmt: skip
