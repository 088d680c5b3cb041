"""The page of a field run: what was measured along a link, beside what was predicted and emulated."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modeltree.files import write_text
from modeltree.render import ms_text
from nas.field.record import FieldRun, Leaf
from nas.field.tally import (
    DRIFT_MS,
    DRIFT_SHARE,
    PARTS,
    Drift,
    Tally,
    drift,
    drifts,
    mean,
    tallies,
    usable,
)
from nas.field.verdict import alarms, best_of, field_verdict, subject_of
from nas.report.field import charts as field_charts
from nas.report.field.endings import endings_section
from nas.report.pieces import cells
from nas.report.pieces.style import CSS
from nas.report.pieces.svg import escape, method_class

KINDS = {
    "measured": "timed in this run, on this machine",
    "predicted": "by the tree, from the profiles it was searched with",
    "simulated": "emulated: predicted compute times played along the same trace",
    "computed": "from this run's measured times and the true trace",
}
"""What the tags say on this page."""

_PRINT = (
    "@page{size:A4 landscape;margin:9mm}@media print{main{padding:0}th,td{padding:6px 6px}.drift{break-inside:auto}}"
)


def write_field_report(path: Path, field: FieldRun) -> None:
    """Write the page, whole or not at all; it needs nothing but itself.

    Raises
    ------
    DataError : the file cannot be written.
    """
    write_text(path, render_field(field))


def render_field(field: FieldRun) -> str:
    """The page as text."""
    found = tallies(field)
    compared = drifts(found)
    said, subject = alarms(compared), subject_of(found)
    name = f"{field.base} on {field.device}"
    sections = [
        _header(field, name), _verdict(field, found, said), _tiles(found, compared), _kinds(),
        _methods(field, found), endings_section(found), *([] if subject is None else [_along(field, found, subject)]),
        _pair(_parts(found), _distribution(found)), _drift(found, compared, said), _notes(field), _facts(field),
    ]  # fmt: skip
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>In the field: {escape(name)}</title>\n<style>{CSS}{_PRINT}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n<footer>Written by nas field; every number on this page is in field.json.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _header(field: FieldRun, name: str) -> str:
    counts = {len(run.shots) for run in field.methods}
    shots = f"{max(counts)} inferences a method" if counts else "no inferences"
    facts = [
        f"{shots}, one every {ms_text(field.every_ms)}" if counts else shots,
        f"cloud {field.cloud}",
        f"link {field.trace} by {field.link}, round trip {ms_text(field.rtt_ms)}",
        *([] if field.policy == "switch" else [f"driven by {field.policy}"]),
        *([f"device played by slowing this machine down: {field.slowdown}"] if field.slowdown else []),
        field.machine, f"commit {field.commit}", field.date,
    ]  # fmt: skip
    return f"<header><h1>In the field: {escape(name)}</h1><p>{escape(' · '.join(filter(None, facts)))}</p></header>"


def _verdict(field: FieldRun, found: Sequence[Tally], said: Sequence[str]) -> str:
    lead, *rest = field_verdict(field, found)
    best = best_of(found)
    calm = "" if best is not None and best.name == "tree" else " warn"
    more = "".join(f"<p>{_prose(sentence)}</p>" for sentence in rest)
    alarm = _alarms(["The predictions do not hold here; what to do stands below."] if said else [])
    return f'<section class="verdict{calm}"><p class="lead">{_prose(lead)}</p>{more}{alarm}</section>'


def _alarms(said: Sequence[str]) -> str:
    badge = '<span class="badge alarm">ALARM</span>'
    return "".join(f'<p class="alarm">{badge} {_prose(sentence)}</p>' for sentence in said)


def _prose(sentence: str) -> str:
    """Escaped, with numbers and their units on one line."""
    return escape(sentence).replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")


def _tiles(found: Sequence[Tally], compared: Sequence[Drift]) -> str:
    subject = subject_of(found)
    if subject is None:
        return ""
    device = next((one for one in found if one.name == "device_only" and one is not subject), None)
    than = "" if device is None else f"device alone: {cells.ms(device.mean_ms)}"
    p95 = "" if device is None else f"device alone: {cells.ms(device.p95_ms)}"
    off = sum(one.alarming for one in compared)
    alone = f"{subject.alone} went on here" if subject.alone else "none went on here"
    tiles = [
        (f"{subject.title}, mean", cells.ms(subject.mean_ms), "measured", than),
        (f"{subject.title}, 95 %", cells.ms(subject.p95_ms), "measured", p95),
        ("accuracy of the paths", cells.percent(subject.accuracy), "", "as the bundle says"),
        ("handed over", _share(subject.handed_over), "measured", alone),
        ("over the oracle", _signed(subject.over_oracle), "computed", f"with hindsight {cells.ms(subject.oracle_ms)}"),
        ("parts mispredicted", f"{off} of {len(compared)}", "", f"by {100 * DRIFT_SHARE:.0f} % and {DRIFT_MS:g} ms"),
    ]
    return '<div class="tiles six">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(what: str, value: str, kind: str, more: str) -> str:
    return (
        f'<div class="tile"><div class="what">{escape(what)}</div><b>{escape(value)}</b>{cells.kind(kind)}'
        f'<div class="more">{escape(more) or "&nbsp;"}</div></div>'
    )


def _kinds() -> str:
    entries = "".join(f"<span>{cells.kind(name)} {escape(what)}</span>" for name, what in KINDS.items())
    return f'<div class="legend">{entries}</div>'


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One number of every method; `better` is max or min, None where a column has no best."""

    name: str
    kind: str
    pick: Callable[[Tally], float]
    show: Callable[[float], str]
    better: Callable[[Iterable[float]], float] | None = None


def _columns(field: FieldRun, found: Sequence[Tally]) -> list[_Column]:
    columns = [
        _Column(name="mean", kind="measured", pick=lambda m: m.mean_ms, show=cells.ms, better=min),
        _Column(name="median", kind="measured", pick=lambda m: m.median_ms, show=cells.ms, better=min),
        _Column(name="95 % under", kind="measured", pick=lambda m: m.p95_ms, show=cells.ms, better=min),
        _Column(name="handed over", kind="measured", pick=lambda m: m.handed_over, show=_share),
        _Column(name="accuracy", kind="bundle's", pick=lambda m: m.accuracy, show=cells.percent, better=max),
        _Column(name="reward", kind="mixed", pick=lambda m: m.reward, show=cells.plain, better=max),
        _Column(name="emulated mean", kind="simulated", pick=lambda m: m.emulated_ms, show=cells.ms),
        _Column(name="replayed mean", kind="computed", pick=lambda m: m.replayed_ms, show=cells.ms),
        _Column(name="over the oracle", kind="computed", pick=lambda m: m.over_oracle, show=_signed, better=min),
    ]
    if any(one.labelled for one in found):
        right = _Column(name="images right", kind="measured", pick=lambda m: m.right, show=_share, better=max)
        columns.insert(4, right)
    if field.deadline_ms is not None:
        columns.insert(
            4, _Column(name="late", kind="measured", pick=lambda m: float(m.late), show=lambda v: f"{v:.0f}")
        )
    return [column for column in columns if any(math.isfinite(column.pick(one)) for one in found)]


def _methods(field: FieldRun, found: Sequence[Tally]) -> str:
    """The table, best reward first."""
    if not found:
        return ""
    rows = sorted(found, key=lambda m: m.reward if math.isfinite(m.reward) else -math.inf, reverse=True)
    columns, chosen = _columns(field, found), best_of(found)
    best = {column.name: _best(column, rows) for column in columns}
    body = "".join(_row(one, columns, best, chosen=one is chosen and len(rows) > 1) for one in rows)
    bound_ms = mean(field.oracle_ms)
    if math.isfinite(bound_ms):
        shown = [cells.ms(bound_ms) if column.name == "mean" else "–" for column in columns]
        body += (
            '<tr class="bound"><td><span class="swatch m-bound"></span>Bound: hindsight oracle '
            f"</td>{''.join(f'<td>{escape(cell)}</td>' for cell in shown)}</tr>"
        )
    groups = [(kind, len(list(same))) for kind, same in itertools.groupby(column.kind for column in columns)]
    above = "".join(f'<th colspan="{span}">{cells.kind(kind)}</th>' for kind, span in groups)
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    note = (
        "Every method had its turn over the same trace. Reward weighs accuracy and mean latency with the paper's "
        "weights; ★ marks the best of a column; the best choice is the simplest method whose reward ties with the "
        "highest."
    )
    thead = f'<thead><tr class="group"><th></th>{above}</tr><tr><th>method</th>{head}</tr></thead>'
    return (
        f'<section><h2>Methods, in turns over the trace</h2><p class="note">{note}</p><div class="scroll">'
        f"<table>{thead}<tbody>{body}</tbody></table></div></section>"
    )


def _row(one: Tally, columns: Sequence[_Column], best: dict[str, float | None], *, chosen: bool) -> str:
    pill = '<span class="pill">best choice</span>' if chosen else ""
    body = []
    for column in columns:
        value = column.pick(one)
        mark = ' class="best"' if best[column.name] is not None and value == best[column.name] else ""
        body.append(f"<td{mark}>{escape(column.show(value))}</td>")
    swatch = f'<span class="swatch {method_class(one.name)}"></span>'
    kind = "chosen" if chosen else ""
    return f'<tr class="{kind}"><td>{swatch}{escape(one.title)}{pill}</td>{"".join(body)}</tr>'


def _best(column: _Column, rows: Sequence[Tally]) -> float | None:
    """The best value of a column; None where none is marked, or all are equal."""
    finite = [value for one in rows if math.isfinite(value := column.pick(one))]
    return column.better(finite) if column.better is not None and len(set(finite)) > 1 else None


def _along(field: FieldRun, found: Sequence[Tally], subject: Tally) -> str:
    chart = field_charts.trace_chart(field, found, subject)
    if not chart:
        return ""
    note = (
        "Above, the link as the trace says, where the tree forks, and the type that was taken; in the middle, how long "
        f"an inference started then took; below, the path of {subject.title}. Trace: {field.trace_origin}"
    )
    return (
        f"<section><h2>Along the trace {cells.kind('measured')}</h2><figure><figcaption>{escape(note)}</figcaption>"
        f'<div class="scroll">{chart}</div></figure>{_leaf_key(subject)}</section>'
    )


def _leaf_key(subject: Tally) -> str:
    known = {leaf.leaf: leaf for leaf in subject.run.leaves}
    ends = [shot.nodes[-1] for shot in subject.run.shots if shot.nodes]
    entries = []
    for leaf, colour in field_charts.leaf_colours(subject).items():
        said = f": {known[leaf].text}" if leaf in known and known[leaf].text else ""
        entries.append(
            f'<span><span class="swatch" style="--c:{colour}"></span>leaf {leaf}{escape(said)} '
            f'<span class="dim">×{ends.count(leaf)}</span></span>'
        )
    return f'<div class="key">{"".join(entries)}</div>'


def _parts(found: Sequence[Tally]) -> str:
    chart = field_charts.parts_chart(found)
    note = "Mean over all inferences of a method. Wait is what no other part explains."
    key = "".join(f'<span><span class="swatch p-{part}"></span>{part}</span>' for part in PARTS)
    return _figure("Where the time went", chart, note, key)


def _distribution(found: Sequence[Tally]) -> str:
    chart = field_charts.distribution_chart(found)
    note = "How many of the inferences took no longer than that. Further left is better; a long tail to the right is a "
    note += "method that a bad link caught out."
    key = "".join(
        f'<span><span class="swatch {method_class(one.name)}"></span>{escape(one.title)}</span>'
        for one in found
        if one.total_ms.size
    )
    return _figure("Distribution", chart, note, key)


def _drift(found: Sequence[Tally], compared: Sequence[Drift], said: Sequence[str]) -> str:
    """Predicted against measured, with an alarm where they drift apart."""
    rows = [(one, leaf) for one in found for leaf in one.run.leaves if leaf.shots > 0]
    if not rows:
        return ""
    unused = sum(len(one.run.leaves) for one in found) - len(rows)
    limit = f"{100 * DRIFT_SHARE:.0f} % and {DRIFT_MS:g} ms"
    if said:
        badge = '<span class="badge alarm">ALARM</span>'
    elif compared:
        badge = '<span class="badge">in line</span>'
    else:
        badge = ""
    note = (
        f"Means over the inferences that a path answered as planned. An alarm means off by more than {limit}: the "
        "search worked with numbers that do not hold here, and may have chosen wrongly."
    )
    note += f" {unused} paths were never taken." if unused > 1 else " One path was never taken." if unused else ""
    if not compared:
        note += " No part was measured on a path answered as planned, so nothing is compared."
    elif not said:
        note += f" All {len(compared)} parts lie within that."
    head = "".join(f"<th>{part}<br>predicted → measured</th>" for part in ("device", "transfer", "cloud"))
    table = (
        f'<div class="scroll"><table><thead><tr><th>path</th><th>taken</th>{head}</tr></thead>'
        f"<tbody>{''.join(_leaf_row(one, leaf) for one, leaf in rows)}</tbody></table></div>"
    )
    chart = field_charts.drift_chart(compared)
    key = "".join(
        f'<span><span class="swatch p-{part}"></span>{part}</span>' for part in ("device", "transfer", "cloud")
    )
    figure = f'<figure><div class="scroll half">{chart}</div><div class="key">{key}</div></figure>' if chart else ""
    kind = " alarm" if said else ""
    return (
        f'<section class="drift{kind}"><h2>Do the predictions hold? {badge}</h2>{_alarms(said)}'
        f'<p class="note">{escape(note)}</p>{table}{figure}</section>'
    )


def _leaf_row(one: Tally, leaf: Leaf) -> str:
    text = f"{one.title}, leaf {leaf.leaf}" + (f": {leaf.text}" if leaf.text else "")
    parts = "".join(_part_cell(drift(one.title, leaf, part)) for part in ("device", "transfer", "cloud"))
    swatch = f'<span class="swatch {method_class(one.name)}"></span>'
    return f'<tr><td class="path">{swatch}{escape(text)}</td><td>{leaf.shots}×</td>{parts}</tr>'


def _part_cell(one: Drift | None) -> str:
    if one is None or not (one.predicted_ms or one.measured_ms):
        return "<td>–</td>"
    change = f" {round(one.percent) + 0:+d} %" if math.isfinite(one.percent) else ""
    times = f'{cells.ms(one.predicted_ms)} → {cells.ms(one.measured_ms)}<span class="of">{change}</span>'
    return (
        f'<td class="off">{times} <span class="badge alarm">ALARM</span></td>' if one.alarming else f"<td>{times}</td>"
    )


def _notes(field: FieldRun) -> str:
    played = (
        f"This machine played the device, slowed down: {field.slowdown}."
        if field.slowdown
        else "Nothing slowed this machine down; it was the device as it is."
    )
    link = {
        "namespaces": "The link is two network namespaces joined by the kernel, which shapes it as the trace says.",
        "relay": "The link is a relay on this machine that delays and paces bytes as the trace says.",
    }.get(field.link, f"The link: {field.link}.")
    notes = [
        ("measured", f"Latencies, their parts, and who answered: wall-clock times of this run. {played} {link}"),
        ("bundle's", "Accuracy: of the paths taken, as measured on test images when the tree was searched; the few "
                         "images of this run say little about it."),
        ("simulated", "Emulated mean: the tree's own predictions, played along the trace from the same starts, the "
                      "bandwidth known at every fork."),
        ("computed", "Replayed mean: the same with this run's measured block, server and round-trip times. What is "
                     "left to the measured mean is the estimator, the switch and the link itself."),
        ("computed", "Oracle: for every start the best of all paths of all methods, with measured parts and the true "
                     "trace. Nothing that must decide beforehand reaches it, except by luck."),
        ("mixed", "Reward: eq. 7 with the paper's weights, of the bundle's accuracy and the measured mean latency."),
    ]  # fmt: skip
    rows = "".join(f"<dt>{cells.kind(kind)}</dt><dd>{escape(said)}</dd>" for kind, said in notes)
    return f"<section><h2>What is measured, emulated and computed</h2><dl>{rows}</dl></section>"


def _facts(field: FieldRun) -> str:
    shots = ", ".join(f"{run.name} {len(run.shots)}" for run in field.methods)
    facts = {
        "base network": field.base, "device": field.device, "slowed down": field.slowdown or "no",
        "cloud": field.cloud, "link": field.link, "trace": f"{field.trace}: {field.trace_origin}",
        "round trip": ms_text(field.rtt_ms), "edges": _mbps(field.edges_mbps),
        "bandwidth types": _mbps(field.representative_mbps), "an inference every": ms_text(field.every_ms),
        "deadline": "none" if field.deadline_ms is None else ms_text(field.deadline_ms), "inferences": shots,
        "bundles": ", ".join(f"{run.name} {run.bundle}" for run in field.methods), "machine": field.machine,
        "policy": field.policy, "commit": field.commit, "date": field.date,
    }  # fmt: skip
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value)
    return f'<section><h2>Configuration and provenance</h2><dl class="wide">{rows}</dl></section>'


def _figure(title: str, chart: str, note: str, key: str) -> str:
    if not chart:
        return ""
    return (
        f"<section><h2>{escape(title)} {cells.kind('measured')}</h2><figure><figcaption>{escape(note)}</figcaption>"
        f'<div class="scroll">{chart}</div></figure><div class="key">{key}</div></section>'
    )


def _pair(*sections: str) -> str:
    shown = [section for section in sections if section]
    return f'<div class="pair">{"".join(shown)}</div>' if shown else ""


def _mbps(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values if usable(value)) + " Mbit/s" if values else "none"


def _share(percent: float) -> str:
    return f"{percent:.1f} %" if math.isfinite(percent) else "–"


def _signed(percent: float) -> str:
    return f"{percent:+.1f} %" if math.isfinite(percent) else "–"
