"""Charts over the time of a trace, one above the other: a stretch of the link that the reader drags across fills all.

`over_time` puts panels together; the first is the link, on which the stretch is chosen.
"""

import math
from collections.abc import Mapping, Sequence

import altair as alt

from nas.report.pieces import charts
from nas.report.pieces.colours import LINK, key

HINT = "Drag across the bandwidth to look at a stretch of it, double-click there to come back."

SECONDS = "time in s"


def zoom() -> alt.Parameter:
    """The stretch of time that is looked at."""
    return alt.selection_interval(
        encodings=["x"], name="zoom", mark=alt.BrushConfig(fill="var(--accent)", stroke="var(--accent)")
    )


def time_axis(stretch: alt.Parameter, title: str | None = None) -> alt.X:
    """The axis of a panel below the link."""
    return alt.X("time_s:Q").scale(domain=stretch, nice=False, zero=False).title(title)


def link_panel(
    time_s: Sequence[float],
    mbps: Sequence[float],
    edges_mbps: Sequence[float],
    stretch: alt.Parameter,
    title: str = "bandwidth in Mbit/s",
) -> charts.Panel:
    """The bandwidth, with the edges of its types as dashed lines; `stretch` is chosen on it.

    time_s, mbps : (n,); each value holds until the next.
    """
    points = charts.thin([pair for pair in zip(time_s, mbps, strict=False) if all(map(math.isfinite, pair))])
    data = charts.rows({"time_s": float(s), "mbps": float(v)} for s, v in points)
    base = alt.Chart(data, height=96).encode(
        x=alt.X("time_s:Q").scale(nice=False, zero=False).title(None),
        y=alt.Y("mbps:Q").scale(zero=True).title(title),
        tooltip=charts.tips({"time_s:Q": SECONDS, "mbps:Q": ("Mbit/s", ".3~g")}),
    )
    area = base.mark_area(interpolate="step-after", color=LINK, opacity=0.2, line={"color": LINK, "strokeWidth": 1.4})
    levels = [{"mbps": float(edge)} for edge in edges_mbps if math.isfinite(edge)]
    forks = charts.dashed(levels).encode(y="mbps:Q", tooltip=charts.tips({"mbps:Q": "fork at, Mbit/s"}))
    return alt.layer(area.add_params(stretch), *([forks] if levels else []))


def lines_panel(
    time_s: Sequence[float], values: Mapping[str, Sequence[float]], titles: Mapping[str, str],
    stretch: alt.Parameter, *, title: str, zero: bool = True, stepped: bool = False, height: int = 230,
    known: Mapping[str, str] | None = None,
) -> charts.Panel:  # fmt: skip
    """A line a name that switches can hide; under the pointer all values of the moment.

    time_s : (n,). values : per name, (n,); breaks where a value is not finite, or has no logarithm.
    """
    finite = [value for line in values.values() for value in line if math.isfinite(value)]
    data = charts.rows(
        {"time_s": float(moment[0])} | {key(name): float(v) for name, v in zip(values, moment[1:], strict=True)}
        for moment in charts.thin(list(zip(time_s, *values.values(), strict=False)))
    )
    x, names = time_axis(stretch, SECONDS), list(values)
    lines = (
        alt.Chart(data)
        .mark_line(clip=True, interpolate="step-after" if stepped else "linear", strokeJoin="round")
        .transform_fold([key(name) for name in names], as_=["name", "value"])
        .transform_filter(charts.SHOWN)
        .encode(
            x=x, color=charts.by_name(names, known),
            y=charts.axis(alt.Y, "value", title, finite, zero=zero),
            strokeWidth=alt.condition("datum.name === 'tree'", alt.value(2.4), alt.value(1.4)),
        )
    )  # fmt: skip
    return alt.layer(lines, _pointer(data, x, {key(name): titles[name] for name in names}, key(title))).properties(
        height=height
    )


def over_time(*panels: charts.Panel) -> alt.VConcatChart:
    """The panels over one axis of time."""
    return alt.vconcat(*(panel.properties(width=charts.WIDTH) for panel in panels), spacing=26)


def _pointer(data: alt.Data, x: alt.X, titles: Mapping[str, str], name: str) -> charts.Panel:
    """A vertical line at the moment nearest to the pointer, with all that is known of it."""
    near = alt.selection_point(
        fields=["time_s"], nearest=True, on="pointermove", empty=False, clear="pointerout", name=name
    )
    values = {f"{field}:Q": title for field, title in titles.items()}
    return (
        alt.Chart(data)
        .mark_rule(clip=True, color="var(--faint)")
        .encode(x=x, opacity=alt.condition(near, alt.value(1), alt.value(0)),
                tooltip=charts.tips({"time_s:Q": (SECONDS, ".5~g"), **values}))
        .add_params(near)
    )  # fmt: skip
