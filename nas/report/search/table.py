"""The table of all methods: what each is worth, what finding it cost, and what no method can beat."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nas.report.pieces import cells
from nas.report.pieces.svg import escape, method_class
from nas.results.summary import AlongTrace, Exact, Method, Summary
from nas.results.verdict import best_choice

NONE = "–"

ALONG = 3
"""How many columns, the last ones, are simulated along the trace."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One number of every method; `better` is max or min, None where a column has no best."""

    name: str
    pick: Callable[[Method], float]
    show: Callable[[float], str]
    better: Callable[[Iterable[float]], float] | None = None
    origin: Callable[[Method], str] | None = None


def methods_section(summary: Summary) -> str:
    """The section, or nothing if no method was run."""
    if not summary.methods:
        return ""
    rows = sorted(summary.methods, key=lambda m: m.reward if math.isfinite(m.reward) else -math.inf, reverse=True)
    played = any(method.along_trace is not None for method in rows) or summary.oracle_along_trace is not None
    columns, chosen = _columns() if played else _columns()[:-ALONG], best_choice(summary)
    uniform = {column.name: _same_origin(column, rows) for column in columns}
    marked = [_best_of(column, rows) for column in columns]
    body = []
    for method in rows:
        row = [
            _cell(column, method, best, tagged=not uniform[column.name])
            for column, best in zip(columns, marked, strict=True)
        ]
        body.append(_row(method.title, method_class(method.method), row, "chosen" if method is chosen else ""))
    if summary.exact is not None:
        body.append(
            _row("Bound: the predictor's optimum", "m-bound", _exact_row(summary.exact)[: len(columns)], "bound")
        )
    if summary.oracle_along_trace is not None:
        body.append(_row("Bound: hindsight oracle", "m-bound", _oracle_row(summary.oracle_along_trace), "bound"))
    note = (
        "Reward weighs the accuracy and the latency of the same row. ★ marks the best of a column; the best choice is "
        "the simplest method whose reward ties with the highest. Along the trace, inferences start at many moments of "
        "the link, and meet what it really does instead of its average."
    )
    return (
        f'<section><h2>Compared with the alternatives</h2><p class="note">{note}</p><div class="scroll"><table>'
        f"{_head(columns, uniform)}<tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _columns() -> list[_Column]:
    def along(field: str) -> Callable[[Method], float]:
        return lambda m: math.nan if m.along_trace is None else float(getattr(m.along_trace, field))

    return [
        _Column(name="reward", pick=lambda m: m.reward, show=cells.plain, better=max),
        _Column(name="latency", pick=lambda m: m.latency_ms, show=cells.ms, better=min,
                origin=lambda m: m.latency_origin),
        _Column(name="accuracy", pick=lambda m: m.accuracy, show=cells.percent, better=max,
                origin=lambda m: m.accuracy_origin),
        _Column(name="reward seen", pick=lambda m: cells.number(m.predicted_reward), show=cells.plain, better=max),
        _Column(name="evaluations", pick=lambda m: cells.number(m.evaluations), show=cells.count),
        _Column(name="seconds", pick=lambda m: cells.number(m.seconds), show=cells.seconds),
        _Column(name="mean latency", pick=along("latency_ms"), show=cells.ms, better=min),
        _Column(name="95 % under", pick=along("p95_latency_ms"), show=cells.ms, better=min),
        _Column(name="reward ", pick=along("reward"), show=cells.plain, better=max),
    ]  # fmt: skip


def _head(columns: Sequence[_Column], uniform: dict[str, str]) -> str:
    reward_kind = uniform["latency"] if uniform["latency"] == uniform["accuracy"] else "mixed"
    groups = [("", 1), (cells.kind(reward_kind), 1), *((cells.kind(uniform[c.name]), 1) for c in columns[1:3])]
    groups += [(cells.kind("predicted"), 1), (f"search cost, {cells.kind('measured')}", 2)]
    if len(columns) == len(_columns()):
        groups.append((f"along the trace, {cells.kind('simulated')}", ALONG))
    above = "".join(f'<th colspan="{span}">{content}</th>' for content, span in groups)
    names = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    return f'<thead><tr class="group">{above}</tr><tr><th>method</th>{names}</tr></thead>'


def _row(title: str, swatch: str, row: Sequence[str], classes: str) -> str:
    pill = '<span class="pill">best choice</span>' if classes == "chosen" else ""
    cell = "".join(content if content.startswith("<td") else f"<td>{content}</td>" for content in row)
    return f'<tr class="{classes}"><td><span class="swatch {swatch}"></span>{escape(title)}{pill}</td>{cell}</tr>'


def _cell(column: _Column, method: Method, best: float | None, *, tagged: bool) -> str:
    value = column.pick(method)
    tag = cells.kind(column.origin(method)) + " " if tagged and column.origin is not None else ""
    classes = ' class="best"' if best is not None and value == best else ""
    return f"<td{classes}>{tag}{escape(column.show(value))}</td>"


def _same_origin(column: _Column, methods: Sequence[Method]) -> str:
    """The origin that all numbers of a column share, empty if they differ."""
    origins = {column.origin(method) for method in methods} if column.origin is not None else {""}
    return origins.pop() if len(origins) == 1 else ""


def _best_of(column: _Column, methods: Sequence[Method]) -> float | None:
    """The best value of a column; None where none is marked, or all are equal."""
    finite = [value for method in methods if math.isfinite(value := column.pick(method))]
    return column.better(finite) if column.better is not None and len(set(finite)) > 1 else None


def _exact_row(exact: Exact) -> list[str]:
    accuracy = f"{cells.kind('predicted')} {cells.percent(exact.accuracy)}"
    seconds = cells.seconds(cells.number(exact.seconds))
    return [NONE, cells.ms(exact.latency_ms), accuracy, cells.plain(exact.reward), NONE, seconds, *[NONE] * ALONG]


def _oracle_row(oracle: AlongTrace) -> list[str]:
    times = [cells.ms(oracle.latency_ms), cells.ms(oracle.p95_latency_ms)]
    return [*[NONE] * 6, *times, cells.plain(oracle.reward)]
