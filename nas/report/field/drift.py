"""Predicted against measured, path by path and part by part, with an alarm where they drift apart."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from nas.field.record import Leaf
from nas.field.tally import DRIFT_MS, DRIFT_SHARE, Drift, Tally, drift
from nas.report.field.charts import drift_chart
from nas.report.pieces import blocks, cells
from nas.report.pieces.blocks import Text
from nas.report.pieces.cells import NONE
from nas.report.pieces.charts import chart
from nas.report.pieces.colours import colours, part_key
from nas.report.pieces.table import Cell, named, table

COMPARED = ("device", "transfer", "cloud")
"""The parts that a tree predicts."""


def drift_section(tallies: Sequence[Tally], compared: Sequence[Drift], alarms: Sequence[str]) -> Markup:
    """The section; nothing where no path was taken. alarms : sentences of what has drifted."""
    paths = [(one, leaf) for one in tallies for leaf in one.run.leaves if leaf.shots > 0]
    if not paths:
        return Markup()
    badge = blocks.badge("ALARM", alarm=True) if alarms else blocks.badge("in line") if compared else Markup()
    colour = colours(one.name for one in tallies)
    head = ["path", "taken", *(Markup("{}<br>predicted → measured").format(part) for part in COMPARED)]
    picture = drift_chart(compared)
    figure = () if picture is None else (chart(picture, label="measured against predicted"), part_key(COMPARED))
    return blocks.section(
        Markup("Do the predictions hold? ") + badge,
        blocks.alarm_lines([blocks.unbroken(sentence) for sentence in alarms]),
        table(head, [_path(one, leaf, colour[one.name]) for one, leaf in paths]),
        *figure,
        note=_note(sum(len(one.run.leaves) for one in tallies) - len(paths), compared, alarms),
        classes="drift alarm" if alarms else "drift",
    )


def _note(unused: int, compared: Sequence[Drift], alarms: Sequence[str]) -> str:
    note = (
        "Means over the inferences that a path answered as planned. An alarm means off by more than "
        f"{100 * DRIFT_SHARE:.0f} % and {DRIFT_MS:g} ms: the search worked with numbers that do not hold here, and may "
        "have chosen wrongly."
    )
    note += f" {unused} paths were never taken." if unused > 1 else " One path was never taken." if unused else ""
    if not compared:
        return note + " No part was measured on a path answered as planned, so nothing is compared."
    return note if alarms else note + f" All {len(compared)} parts lie within that."


def _path(one: Tally, leaf: Leaf, colour: str) -> list[Text | Cell]:
    text = f"{one.title}, leaf {leaf.leaf}" + (f": {leaf.text}" if leaf.text else "")
    parts = (_part(drift(one.title, leaf, part)) for part in COMPARED)
    return [Cell(text=named(text, colour), classes="path"), f"{leaf.shots}×", *parts]


def _part(one: Drift | None) -> Cell:
    if one is None or not (one.predicted_ms or one.measured_ms):
        return Cell(text=NONE)
    change = f" {round(one.percent) + 0:+d} %" if math.isfinite(one.percent) else ""
    times = Markup('{} → {}<span class="of">{}</span>').format(
        cells.ms(one.predicted_ms), cells.ms(one.measured_ms), change
    )
    if not one.alarming:
        return Cell(text=times)
    return Cell(text=times + " " + blocks.badge("ALARM", alarm=True), classes="off")
