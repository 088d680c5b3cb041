"""The page of `nas stream`: who was busy when, and what every policy gained, lost and was late by."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from nas.field.stream.record import StreamRecord, StreamRun, StreamTally, TaskLine, tally
from nas.report.pieces import blocks, cells, charts
from nas.report.pieces.blocks import section
from nas.report.pieces.table import table

_SHOWN_TASKS = 60
_COLOURS = {"device": "var(--tree)", "link": "var(--surgery)", "server": "var(--jpeg)"}
_NOTE = (
    "Everything is measured, real processes over a shaped link, but two columns: the model's gain is what it foretells "
    "for the same arrivals, and no plan gains more than the bound, by the model. Late: answered behind the deadline; "
    "dropped: no answer, most of them known on arrival and so not run. A task that is late or dropped gains nothing."
)


def render_stream(record: StreamRecord) -> str:
    """The page as text, which needs nothing but itself."""
    tallies = [tally(run) for run in record.runs]
    link = f" on average, {record.link}" if record.link else ""
    facts = [
        f"{len(record.runs[0].lines)} tasks, {record.tasks_from}", f"{record.devices} devices",
        f"{record.mbps:.4g} Mbit/s each{link}, round trip {record.rtt_ms:g} ms", f"queues {record.order}",
        f"devices take {record.slowdown:g} times what the tree predicts" if record.slowdown else "",
        f"{record.machine}, {record.date}, commit {record.commit}",
    ]  # fmt: skip
    sections = [
        blocks.verdict(sentences(tallies)),
        section("Policies", _compared(tallies), note=_NOTE),
        *(section(f"Who was busy when: {run.policy}", _gantt(run), note=_gantt_note(run)) for run in record.runs),
        section("Lateness", _lateness(record.runs), note="Answers against their deadlines; right of 0 is too late."),
    ]
    return blocks.page(
        title=f"Stream of tasks: {record.base}", facts=facts, sections=sections, footer="Written by nas stream."
    )


def sentences(tallies: Sequence[StreamTally]) -> list[str]:
    """What it comes to."""
    best = max(tallies, key=lambda one: one.gain)
    lines = [
        f"{best.policy} gains most: {best.gain:.2f} of {best.tasks} tasks, {best.in_time} in time, {best.late} late, "
        f"{best.dropped} dropped."
    ]
    for one in tallies:
        if one.predicted_gain:
            share = 100 * one.gain / one.predicted_gain
            lines.append(f"{one.policy}: {share:.1f} % of what the model foretells for the same arrivals.")
    return lines


def _compared(tallies: Sequence[StreamTally]) -> Markup:
    columns: dict[str, Callable[[StreamTally], object]] = {
        "policy": lambda one: one.policy, "gain": lambda one: cells.points(one.gain),
        "model": lambda one: cells.points(one.predicted_gain), "bound": lambda one: cells.points(one.bound),
        "in time": lambda one: one.in_time, "late": lambda one: one.late, "dropped": lambda one: one.dropped,
        "by the server": lambda one: one.by_server, "retried here": lambda one: one.retried,
        "p95 ms": lambda one: cells.plain(one.p95_latency_ms),
        "worst lateness ms": lambda one: cells.plain(one.worst_lateness_ms),
        "decision us": lambda one: cells.whole(one.plan_us),
    }  # fmt: skip
    return table(list(columns), [[str(show(one)) for show in columns.values()] for one in tallies])


def gantt_rows(lines: Iterable[TaskLine]) -> Iterator[dict[str, Any]]:
    """A bar for each stay of a task: on its device, on its link, at the server."""
    for line in lines:
        task = {"task": line.number, "exit": line.exit, "cut": line.cut, "images": line.images, "why": line.why}
        if line.computed_ms > line.began_ms > 0:
            yield task | _bar(f"device {line.device}", "device", line.began_ms, line.computed_ms)
        if line.sent_ms and line.answered_by == "server":
            served = line.ended_ms - line.server_ms
            yield task | _bar(f"link {line.device}", "link", line.sent_ms, served)
            yield task | _bar("server", "server", served, line.ended_ms)


def _bar(row: str, kind: str, begins_ms: float, ends_ms: float) -> dict[str, Any]:
    return {"row": row, "kind": kind, "begins_s": begins_ms / 1e3, "ends_s": max(begins_ms, ends_ms) / 1e3}


def _gantt(run: StreamRun) -> Markup:
    bars = list(gantt_rows(run.lines[:_SHOWN_TASKS]))
    if not bars:
        return Markup()
    names = sorted({row["row"] for row in bars}, key=lambda name: (name == "server", name.split()[0], name))
    drawn = alt.Chart(charts.rows(bars)).mark_bar(height=11, opacity=0.75, stroke="var(--paper)", strokeWidth=0.5)
    picture = drawn.encode(
        x=alt.X("begins_s:Q").scale(zero=False, nice=False).title("seconds"), x2="ends_s:Q",
        y=alt.Y("row:N").sort(names).title(None),
        color=alt.Color("kind:N").scale(domain=list(_COLOURS), range=list(_COLOURS.values())).legend(None),
        tooltip=charts.tips({"task:O": "task", "images:Q": "images", "exit:O": "exit", "cut:O": "cut",
                             "begins_s:Q": "from, s", "ends_s:Q": "to, s", "why:N": "why"}),
    ).properties(width=charts.WIDTH, height=18 * len(names))  # fmt: skip
    key = blocks.colour_key([(colour, kind, "") for kind, colour in _COLOURS.items()])
    return charts.chart(picture, label=f"tasks over time, {run.policy}", left=70) + key


def _gantt_note(run: StreamRun) -> str:
    shown = min(len(run.lines), _SHOWN_TASKS)
    down = ""
    if run.server_down_ms:
        down = " The server was away from {:.1f} to {:.1f} s.".format(*(one / 1e3 for one in run.server_down_ms))
    return (
        f"The first {shown} tasks. The server's part is its own time, waiting there included; the link's is from the "
        f"first byte to that.{down}"
    )


def _lateness(runs: Sequence[StreamRun]) -> Markup:
    found = [
        {"policy": run.policy, "late_ms": line.lateness_ms, "task": line.number}
        for run in runs
        for line in run.lines
        if line.answered_by != "nobody"
    ]
    if not found:
        return Markup()
    drawn = alt.Chart(charts.rows(found[: charts.MAX_ROWS])).mark_tick(thickness=1.2, opacity=0.5, color="var(--tree)")
    picture = drawn.encode(
        x=alt.X("late_ms:Q").title("ms behind the deadline"), y=alt.Y("policy:N").title(None),
        tooltip=charts.tips({"task:O": "task", "late_ms:Q": "ms behind"}),
    ).properties(width=charts.WIDTH, height=34 * len(runs))  # fmt: skip
    return charts.chart(picture, label="lateness of every answer", left=70)
