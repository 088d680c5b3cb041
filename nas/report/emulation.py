"""The page of an emulation: every link with the latencies along it, and how the methods compare."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from modeltree.files import write_text
from modeltree.tree import ModelTree
from nas.emulation.methods import Comparison, EmulatedLink, Row
from nas.names import TITLES
from nas.report.pieces import cells
from nas.report.pieces.style import CSS
from nas.report.pieces.svg import escape, method_class
from nas.report.search import charts
from nas.results.summary import Series


def write_emulation(
    path: Path, links: Sequence[EmulatedLink], whole: Comparison, trees: Mapping[str, ModelTree],
    verdicts: Sequence[str],
) -> None:  # fmt: skip
    """Write the page, whole or not at all; it needs nothing but itself.

    Raises
    ------
    DataError : the file cannot be written.
    """
    write_text(path, render_emulation(links, whole, trees, verdicts))


def render_emulation(
    links: Sequence[EmulatedLink], whole: Comparison, trees: Mapping[str, ModelTree], verdicts: Sequence[str]
) -> str:  # fmt: skip
    """The page as text."""
    tree = next(iter(trees.values()))
    lead, *rest = verdicts
    facts = [f"{len(trees)} methods", f"{len(links)} link{'s' * (len(links) > 1)}", f"bandwidth {links[0].measure}"]
    sections = [
        f"<header><h1>Emulation: {escape(tree.base)} on {escape(tree.device)}</h1>"
        f"<p>{escape(' · '.join(facts))}</p></header>",
        f'<section class="verdict"><p class="lead">{escape(lead)}</p>'
        f"{''.join(f'<p>{escape(sentence)}</p>' for sentence in rest)}</section>",
        *([_mean(links, whole)] if len(links) > 1 else []),
        *(_link(link, trees) for link in links),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Emulation: {escape(tree.base)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n<footer>Written by nas emulate.</footer>\n</main>\n</body>\n</html>\n"
    )


def _mean(links: Sequence[EmulatedLink], whole: Comparison) -> str:
    note = f"Every number averaged over {len(links)} links, each counting alike."
    return f"<section><h2>Mean over links {_kind()}</h2>{_note(note)}{_table(whole, links[0].measure)}</section>"


def _link(link: EmulatedLink, trees: Mapping[str, ModelTree]) -> str:
    trace = link.trace
    series = Series(
        time_s=link.starts_s.tolist(), bandwidth_mbps=[trace.at(start_s) for start_s in link.starts_s.tolist()],
        latency_ms={name: link.latency_ms[name].tolist() for name in trees},
    )  # fmt: skip
    edges = sorted({edge for tree in trees.values() for edge in tree.types.edges_mbps})
    note = (
        f"{trace.mean_mbps:.2f} Mbit/s on average, round trip {trace.rtt_ms:.4g} ms. Above, the link, and where trees "
        f"fork; below, how long an inference started then takes: predicted compute, exact transfer. {trace.origin}"
    )
    chart = f"<figure>{charts.trace_chart(series, edges)}</figure>"
    return f"<section><h2>{escape(trace.name)} {_kind()}</h2>{_note(note)}{chart}{_table(link, link.measure)}</section>"


def _table(seen: Comparison, measure: str) -> str:
    estimated = measure == "estimated"
    titles = ["method", "mean latency", "95 % under", "accuracy", "reward", "handed over", "over the oracle"]
    titles += ["over surgery", *(["over perfect measuring"] if estimated else []), "paths by the node they end at"]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = "".join(_row(row, seen, estimated=estimated) for row in (*seen.rows, seen.oracle))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(row: Row, seen: Comparison, *, estimated: bool) -> str:
    bound = row is seen.oracle
    title = "Bound: hindsight oracle" if bound else TITLES.get(row.method, row.method)
    shown = [
        cells.ms(row.latency_ms), cells.ms(row.p95_latency_ms), cells.percent(row.accuracy), cells.plain(row.reward),
        f"{100 * row.handed_over:.1f} %", "" if bound else _signed(row.over_percent(seen.oracle)),
        _signed(row.over_percent(seen.surgery_of(row.method))),
    ]  # fmt: skip
    shown += ([("" if bound else _signed(row.over_perfect_percent))] if estimated else []) + [_paths(row)]
    colour, kind = ("m-bound", "bound") if bound else (method_class(row.method), "")
    swatch = f'<span class="swatch {colour}"></span>'
    body = "".join(f"<td>{escape(cell)}</td>" for cell in shown)
    return f'<tr class="{kind}"><td>{swatch}{escape(title)}</td>{body}</tr>'


def _paths(row: Row) -> str:
    return ", ".join(f"{leaf}: {100 * share:.0f} %" for leaf, share in row.paths.items())


def _signed(percent: float | None) -> str:
    return "" if percent is None else f"{percent:+.1f} %"


def _kind() -> str:
    return cells.kind("simulated")


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
