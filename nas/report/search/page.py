"""report.html: what a run found on one page that needs nothing but itself."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeltree.files import write_text
from modeltree.render import ms_text, render_text
from modeltree.tree import ModelTree
from nas.report.pieces import cells
from nas.report.pieces.style import CSS
from nas.report.pieces.svg import escape
from nas.report.search import charts
from nas.report.search.drawing import draw_tree
from nas.report.search.endings import endings_section
from nas.report.search.table import methods_section
from nas.results.summary import Method, Summary, read_summary
from nas.results.verdict import best_choice, verdict_of

FILE = "report.html"

TECHNIQUES = {
    "svd": "F1, a fully connected layer as two thin ones; the rate is the rank's share",
    "ksvd": "F2, a fully connected layer as a dictionary and sparse codes",
    "gap": "F3, global average pooling and one classifier instead of the fully connected layers",
    "absorbed": "made superfluous by the technique in front of it",
    "mobilenet": "C1, a depthwise and a pointwise convolution",
    "mobilenet_v2": "C2, an inverted residual; the rate is the expansion",
    "fire": "C3, a Fire layer; the rate is the squeezed channels' share",
    "prune": "W1, the insignificant filters removed; the rate is the share kept",
    "tucker2": "T2, a Tucker decomposition over channels; the rate is the rank's share",
}
"""What stands in a tree, for a reader who has not seen the paper. Said here because `transforms` needs torch."""


def write_report(run_folder: Path, summary: Mapping[str, Any], tree: ModelTree) -> Path:
    """Write `report.html` into the run folder, whole or not at all; returns its path.

    Parameters
    ----------
    summary : the numbers of the run, see `nas.results.summary.Summary`; what is missing or None is left out.

    Raises
    ------
    FormatError : not the summary of a run. DataError : the folder cannot be written.
    """
    path = Path(run_folder) / FILE
    write_text(path, render_page(read_summary(summary), tree))
    return path


def render_page(summary: Summary, tree: ModelTree) -> str:
    """The page as text."""
    name = f"{summary.base.name or tree.base} on {summary.scenario.device or tree.device}"
    beside = "".join([_finetuning(summary), _timings(summary)])
    sections = [
        _header(summary, tree, name), _verdict(summary, tree), _tiles(summary), _kinds(), _tree(tree),
        methods_section(summary), _pair(_search(summary), _tradeoff(summary)), _along_trace(summary),
        _pair(_predictor(summary), f'<div class="stack">{beside}</div>' if beside else ""), endings_section(summary),
        _dropped(summary), _setup(summary),
    ]  # fmt: skip
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Model tree: {escape(name)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n<footer>Written by nas; every number on this page is in the run folder.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _header(summary: Summary, tree: ModelTree, name: str) -> str:
    scenario, base = summary.scenario, summary.base
    facts = [
        f"{len(tree.places) - 1} blocks, {tree.types.count} bandwidth types, {len(tree.leaves())} branches",
        f"cloud {scenario.cloud or tree.cloud}",
        f"link {scenario.trace or tree.trace} with a round trip of {ms_text(tree.rtt_ms)}",
    ]
    if math.isfinite(base.accuracy):
        facts.append(f"base network at {base.accuracy:.2f} % on test images")
    if base.macs:
        facts.append(cells.macs(base.macs))
    return f"<header><h1>Model tree: {escape(name)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def _verdict(summary: Summary, tree: ModelTree) -> str:
    lead, *rest = verdict_of(summary, tree)
    best = best_choice(summary)
    calm = "" if best is not None and best.method == "tree" else " warn"
    more = "".join(f"<p>{escape(sentence)}</p>" for sentence in rest)
    return f'<section class="verdict{calm}"><p class="lead">{escape(lead)}</p>{more}</section>'


def _tiles(summary: Summary) -> str:
    tree, device = summary.method("tree"), summary.method("device_only")
    if tree is None:
        return ""
    tiles = [
        ("latency of the tree", cells.ms(tree.latency_ms), tree.latency_origin, _than(tree, device, "latency_ms")),
        ("accuracy of the tree", cells.percent(tree.accuracy), tree.accuracy_origin, _than(tree, device, "accuracy")),
        ("reward of the tree", cells.plain(tree.reward), cells.reward_kind(tree), "accuracy and latency in one"),
    ]
    if tree.along_trace is not None:
        oracle = summary.oracle_along_trace
        more = "" if oracle is None else f"with hindsight {cells.ms(oracle.latency_ms)}"
        tiles.append(("latency along the trace", cells.ms(tree.along_trace.latency_ms), "simulated", more))
    if summary.exact is not None:
        more = "of the exact optimum"
        tiles.append(("search result", f"{summary.exact.found_percent:.2f} %", "predicted", more))
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(what: str, value: str, kind: str, more: str) -> str:
    return (
        f'<div class="tile"><div class="what">{escape(what)}</div><b>{escape(value)}</b>{cells.kind(kind)}'
        f'<div class="more">{escape(more) or "&nbsp;"}</div></div>'
    )


def _than(tree: Method, device: Method | None, field: str) -> str:
    if device is None:
        return ""
    value = getattr(device, field)
    return f"all on the device: {cells.ms(value) if field == 'latency_ms' else cells.percent(value)}"


def _kinds() -> str:
    entries = "".join(f"<span>{cells.kind(name)} {escape(what)}</span>" for name, what in cells.KINDS.items())
    return f'<div class="legend">{entries}</div>'


def _tree(tree: ModelTree) -> str:
    used = sorted({action.technique for node in tree.nodes for action in node.actions} - {"keep"})
    known = "".join(
        f"<span><code>{escape(name)}</code> {escape(TECHNIQUES.get(name, 'a technique of your own'))}</span>"
        for name in used
    )
    note = (
        "Read from left to right: before every block the device measures the link, takes the fork that matches, and "
        "runs what the card says, until a card ends in the cloud or in a result. The colour is the speed of the link, "
        "from orange (slowest) to blue (fastest); the thicker a line, the likelier its way."
    )
    return (
        f'<section><h2>The tree</h2><p class="note">{note}</p><div class="scroll tall">{draw_tree(tree)}</div>'
        f'<div class="techniques">{known}</div>'
        f"<details><summary>The same as text</summary><pre>{escape(render_text(tree))}</pre></details></section>"
    )


def _search(summary: Summary) -> str:
    exact = summary.exact.reward if summary.exact is not None else None
    chart = charts.search_chart(summary.curves or {}, exact)
    note = "How fast the two controllers and their rivals find good trees."
    if exact is not None:
        note += " The dashed line is the best tree there is, by dynamic programming over the predictor."
    return _figure("Search", chart, note, "predicted")


def _tradeoff(summary: Summary) -> str:
    chart = charts.tradeoff_chart(summary.branches or [], summary.methods)
    tree = summary.method("tree")
    kind = tree.accuracy_origin if tree is not None else ""
    note = "Up and left is better. Circles are the branches of the tree, larger where they are likelier."
    return _figure("Accuracy against latency", chart, note, kind)


def _along_trace(summary: Summary) -> str:
    if summary.along_trace is None:
        return ""
    chart = charts.trace_chart(summary.along_trace, summary.scenario.edges_mbps)
    origin = summary.scenario.trace_origin
    note = "Above, the link, and where the tree forks; below, how long an inference started then takes."
    return _figure("Along the trace", chart, f"{note} Trace: {origin}" if origin else note, "simulated")


def _predictor(summary: Summary) -> str:
    if summary.predictor is None:
        return ""
    chart = charts.predictor_chart(summary.predictor)
    rank, error = cells.plain(summary.predictor.rank_correlation, 3), cells.plain(summary.predictor.mean_error, 2)
    note = (
        "What the search believed and what is true; on the dashed line they agree. "
        f"Rank correlation {rank}, mean error {error} points."
    )
    return _figure("Can the accuracy predictor be trusted?", chart, note, "measured")


def _finetuning(summary: Summary) -> str:
    tuned = summary.finetuning
    if tuned is None:
        return ""
    rows = [
        ("before", tuned.before, f"{tuned.before:.2f}", "m-random"),
        ("after", tuned.after, f"{tuned.after:.2f}", "m-tree"),
        ("base network", tuned.base, f"{tuned.base:.2f}", "m-bound"),
    ]
    note = (
        f"All branches together against the base network's answers, {tuned.steps:,} steps: "
        f"{tuned.after - tuned.before:+.2f} points, {tuned.after - tuned.base:+.2f} against the base network."
    )
    return _figure("Fine-tuning the tree", charts.bars(rows, "%"), note, "measured")


def _dropped(summary: Summary) -> str:
    if not summary.dropped:
        return ""
    rows = []
    for why, group in itertools.groupby(sorted(summary.dropped, key=lambda d: d.why), key=lambda d: d.why):
        layers: dict[str, list[str]] = {}
        for item in group:
            layers.setdefault(item.layer, []).append(item.choice)
        chips = "".join(
            f'<span class="chip"><code>{escape(layer)}</code> {escape(", ".join(choices))}</span>'
            for layer, choices in layers.items()
        )
        rows.append(f'<tr><td class="text">{escape(why)}</td><td class="text">{chips}</td></tr>')
    note = (
        "MACs are not milliseconds: these compressions were left out of the search because, by the device's profile, "
        "they buy nothing."
    )
    return (
        f'<section><h2>Dropped before the search {cells.kind("predicted")}</h2><p class="note">{note}</p>'
        '<table><thead><tr><th>why</th><th class="text">layer and technique</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _timings(summary: Summary) -> str:
    spent = {name: value for name, value in (summary.seconds or {}).items() if value is not None}
    rows = [(name, s, cells.seconds(s), "m-tree" if name == "total" else "m-bound") for name, s in spent.items()]
    note = "Seconds of this run, on the machine named under provenance."
    return _figure("Where the time went", charts.bars(rows, "s"), note, "measured")


def _setup(summary: Summary) -> str:
    scenario = summary.scenario
    facts: dict[str, Any] = dict(summary.config)
    facts |= {
        "device profile": _with_origin(scenario.device, scenario.device_origin),
        "cloud profile": _with_origin(scenario.cloud, scenario.cloud_origin),
        "link": _with_origin(scenario.trace, scenario.trace_origin),
        "round trip": ms_text(scenario.rtt_ms),
        "bandwidth types": ", ".join(f"{v:.3g}" for v in scenario.bandwidth_mbps) + " Mbit/s",
        "sliced at places": ", ".join(map(str, summary.base.places)),
    }
    facts |= summary.provenance or {}
    shown = [(key, value) for key, value in facts.items() if value is not None and value != ""]
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(_fact(value))}</dd>" for key, value in shown)
    return f'<section><h2>Configuration and provenance</h2><dl class="wide">{rows}</dl></section>'


def _with_origin(name: str, origin: str) -> str:
    return f"{name}: {origin}" if name and origin else name or origin


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _figure(title: str, chart: str, note: str, kind: str) -> str:
    if not chart:
        return ""
    return (
        f"<section><h2>{escape(title)} {cells.kind(kind)}</h2><figure><figcaption>{escape(note)}</figcaption>"
        f"{chart}</figure></section>"
    )


def _pair(*sections: str) -> str:
    shown = [section for section in sections if section]
    return f'<div class="pair">{"".join(shown)}</div>' if shown else ""
