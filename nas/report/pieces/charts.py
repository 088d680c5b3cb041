"""Charts by Vega-Lite: data in rows, an Altair chart over them, and what all of our charts share.

A chart names its colours as variables of the style sheet, is as wide as its place on the page, and keeps `left` pixels
for the names on its left axis. `by_name` gives a line or a point a method's colour and lets the page's switches hide
it. Test the rows and the encodings that come out of `chart.to_dict()`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import altair as alt
from markupsafe import Markup

from nas.report.pieces.blocks import block, section, style_sheet
from nas.report.pieces.colours import BOUND, colours, key

MAX_POINTS = 1000
"""A line has no more points than this; more would hardly be seen, even in a stretch."""

MAX_ROWS = 3000
"""Of a chart that has a row for every point of every line, so that its page stays small."""

WIDTH = 600
"""Of a chart before a page gives it its own; charts one above the other must agree on it."""

LEFT = 52

HEIGHT = 260

T = TypeVar("T")
AxisT = TypeVar("AxisT", alt.X, alt.Y)
Spec = dict[str, Any]
Panel = alt.Chart | alt.LayerChart | alt.FacetChart

_CONFIG: Spec = {
    "background": None,
    "font": "inherit",
    "padding": {"left": 0, "right": 0, "top": 4, "bottom": 0},
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "gridColor": "var(--rule)",
        "domainColor": "var(--faint)", "tickColor": "var(--faint)", "labelFontSize": 11, "titleFontSize": 11.5,
        "titleFontWeight": "normal", "labelOverlap": True,
    },
    "axisX": {"grid": False, "titleAnchor": "end", "tickCount": {"signal": "max(4, ceil(width / 80))"}},
    "axisY": {"domain": False, "ticks": False, "tickCount": 5, "titleAngle": 0, "titleAlign": "left",
              "titleBaseline": "bottom", "titleY": -8},
    "text": {"fill": "var(--soft)", "fontSize": 11.5},
}  # fmt: skip


def chart(picture: alt.TopLevelMixin, *, label: str, names: Sequence[tuple[str, str]] = (), left: int = LEFT,
          known: Mapping[str, str] | None = None) -> Markup:  # fmt: skip
    """A chart as a block of a page.

    Parameters
    ----------
    label : for those who cannot see it.
    names : (name, title) of what the switches under it hide and show; charts of one page share switches by name.
    left : pixels for the names on the left axis.
    known : variables of the style sheet by name, the methods' unless given.
    """
    spec = specification(picture, [name for name, _ in names], left=left)
    by_name = colours([name for name, _ in names], known)
    switches = [(key(name), title, by_name[name]) for name, title in names] if len(names) > 1 else []
    # JSON in a script: nothing in it may close the script
    text = json.dumps(spec, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return block("chart", label, Markup(text), left, switches)


def figure(
    title: str, picture: alt.TopLevelMixin | None, *more: Markup, note: str = "", kind: str = "",
    names: Sequence[tuple[str, str]] = (), left: int = LEFT, known: Mapping[str, str] | None = None,
) -> Markup:  # fmt: skip
    """A chart in a section of its own, with `more` below; nothing where there is no chart."""
    if picture is None:
        return Markup()
    return section(title, chart(picture, label=title, names=names, left=left, known=known), *more, note=note, kind=kind)


def specification(picture: alt.TopLevelMixin, names: Sequence[str] = (), *, left: int = LEFT) -> Spec:
    """The Vega-Lite that a page holds: the picture, our style, and the switches' parameter if it has `names`."""
    texts: dict[str, str] = {}
    spec: Spec = _named(picture.to_dict(), texts)
    spec["datasets"] = {name: json.loads(text) for text, name in texts.items()}
    axis_y = {**_CONFIG["axisY"], "minExtent": left, "maxExtent": left, "titleX": -left, "labelLimit": left - 8}
    spec["config"] = {**_CONFIG, "axisY": axis_y}
    if names:
        spec["params"] = [*spec.get("params", []), {"name": "shown", "value": [key(name) for name in names]}]
    return spec


def as_svg(picture: alt.TopLevelMixin, names: Sequence[str] = (), *, left: int = LEFT) -> str:
    """A chart as a drawing of its own, without anything to point at; takes its colours from our style sheet."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(specification(picture, names, left=left))
    return drawn.replace(">", f"><style>{style_sheet()}</style>", 1)


def rows(values: Iterable[Mapping[str, Any]]) -> alt.Data:
    """Data of a chart; numbers that are not finite become nothing.

    As one text, because Altair copies and checks data row by row whenever it copies a chart; `specification` reads it.
    """
    return alt.Data(values=json.dumps([{name: _plain(value) for name, value in row.items()} for row in values]))


def tips(lines: Mapping[str, str | tuple[str, str]]) -> list[alt.Tooltip]:
    """What one reads under the pointer: field -> title, or (title, a format of d3); else numbers have four digits."""
    tooltips = []
    for field, said in lines.items():
        title, form = (said, ".4~g" if field.endswith(":Q") else "") if isinstance(said, str) else said
        tooltips.append(alt.Tooltip(field, title=title, format=form) if form else alt.Tooltip(field, title=title))
    return tooltips


def by_name(names: Sequence[str], known: Mapping[str, str] | None = None, *, field: str = "name") -> alt.Color:
    """The encoding that colours by the field `name` (which holds `key(name)`)."""
    scale = colours(names, known)
    return (
        alt.Color(f"{field}:N").scale(domain=[key(name) for name in names], range=list(scale.values())).legend(None)
    )  # fmt: skip


def lines(
    data: Iterable[Mapping[str, Any]], x: alt.X, y: alt.Y, tooltip: Sequence[alt.Tooltip], names: Sequence[str], *,
    known: Mapping[str, str] | None = None, stepped: bool = False, bold: str = "tree",
) -> Panel:  # fmt: skip
    """A line a name that the switches can hide, with values at every point one points at.

    data : rows with `name` (from `key`) and the fields of the encodings. bold : whose line is the thickest.
    """
    width = alt.condition(f"datum.name === '{key(bold)}'", alt.value(2.4), alt.value(1.4))
    base = alt.Chart(rows(data)).transform_filter(SHOWN).encode(x=x, y=y, color=by_name(names, known))
    drawn = base.mark_line(clip=True, strokeJoin="round", interpolate="step-after" if stepped else "linear")
    points = base.mark_point(clip=True, size=60, opacity=0)
    return alt.layer(drawn.encode(strokeWidth=width), points.encode(tooltip=list(tooltip)))


SHOWN = "indexof(shown, datum.name) >= 0"
"""A filter that leaves what the switches show."""


def dashed(data: Iterable[Mapping[str, Any]], mark: Literal["rule", "line"] = "rule") -> alt.Chart:
    """What is no method, as a bound or a level: a dashed rule, or a `line`, over rows."""
    return alt.Chart(rows(data), mark=alt.MarkDef(type=mark, strokeDash=[5, 4], strokeWidth=1, color=BOUND))


def sized(*layers: Panel) -> Panel:
    """Layers as one chart of the usual size."""
    whole = layers[0] if len(layers) == 1 else alt.layer(*layers)
    return whole.properties(width=WIDTH, height=HEIGHT)


def axis(kind: type[AxisT], field: str, title: str, values: Iterable[float], *, zero: bool = False) -> AxisT:
    """An `alt.X` or `alt.Y` over values of a field, from 0 if asked for; its title says so where it is logarithmic."""
    usable = [value for value in values if math.isfinite(value)]
    return kind(f"{field}:Q").scale(scale(usable, zero=zero)).title(title + " (log scale)" * wide(usable))


def scale(values: Iterable[float], *, zero: bool = False, pad: float = 0.06) -> alt.Scale:
    """A scale over values with room on both ends: logarithmic where only that shows them all, from 0 if asked for."""
    usable = [value for value in values if math.isfinite(value)]
    if wide(usable):
        room = (max(usable) / min(usable)) ** pad
        return alt.Scale(type="log", domain=[min(usable) / room, max(usable) * room], nice=False)
    return alt.Scale(zero=zero, padding=0 if zero else 6, nice=zero)


def wide(values: Sequence[float], ratio: float = 12.0) -> bool:
    """Whether positive values span so much that only a logarithmic axis shows them all."""
    return bool(values) and min(values) > 0 and max(values) > ratio * min(values)


def thin(points: Sequence[T], most: int = MAX_POINTS) -> list[T]:
    """At most about so many of them, evenly, the last one included."""
    step = math.ceil(len(points) / most)
    return list(points) if step <= 1 else [*points[:-1:step], points[-1]]


def _named(part: Any, texts: dict[str, str]) -> Any:
    """A part of a specification with a name instead of each text of data; `texts` becomes text -> name."""
    if isinstance(part, list):
        return [_named(one, texts) for one in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("values"), str):
        return {"name": texts.setdefault(part["values"], f"data{len(texts)}")}
    return {name: _named(inner, texts) for name, inner in part.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
