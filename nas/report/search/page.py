"""report.html: what a run found on one page that needs nothing but itself."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from modeltree.files import write_text
from modeltree.tree import ModelTree
from modeltree.tree.render import ms_text, render_text
from nas.names import TECHNIQUES
from nas.report.pieces import blocks, cells, trace
from nas.report.pieces.blocks import section
from nas.report.pieces.charts import figure
from nas.report.pieces.colours import BOUND
from nas.report.pieces.table import Cell, table
from nas.report.search import charts
from nas.report.search.drawing import draw_tree
from nas.report.search.endings import endings_section
from nas.report.search.link_states import link_states_section
from nas.report.search.table import methods_section
from nas.results.summary import Summary, read_summary
from nas.results.verdict import best_choice, verdict_of

FILE = "report.html"

BAR_NAMES = 130
"""Pixels for the names of bars."""


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
    best = best_choice(summary)
    halves = blocks.stack(_finetuning(summary), _timings(summary))
    return blocks.page(
        title=f"Model tree: {summary.base.name or tree.base} on {summary.scenario.device or tree.device}",
        facts=_facts(summary, tree),
        sections=[
            blocks.verdict(verdict_of(summary, tree), warn=best is None or best.method != "tree"),
            _tiles(summary), blocks.legend(blocks.KINDS), _tree(tree), link_states_section(summary),
            methods_section(summary),
            blocks.pair(_search(summary), _tradeoff(summary)), _along_trace(summary),
            blocks.pair(_predictor(summary), halves), endings_section(summary), _savings(summary), _dropped(summary),
            _setup(summary),
        ],
        footer="Written by nas; every number on this page is in the run folder.",
    )  # fmt: skip


def _facts(summary: Summary, tree: ModelTree) -> list[str]:
    scenario, base = summary.scenario, summary.base
    facts = [
        f"{len(tree.places) - 1} blocks, {tree.types.count} bandwidth types, {len(tree.leaves())} branches",
        f"cloud {scenario.cloud or tree.cloud}",
        f"link {scenario.trace or tree.trace} with a round trip of {ms_text(tree.rtt_ms)}",
    ]
    if math.isfinite(base.accuracy):
        facts.append(f"base network at {base.accuracy:.2f} % on test images")
    return [*facts, cells.macs(base.macs) if base.macs else ""]


def _tiles(summary: Summary) -> Markup:
    tree, device, exact = summary.method("tree"), summary.method("device_only"), summary.exact
    if tree is None:
        return Markup()
    latency, accuracy = ("", "") if device is None else (
        f"all on the device: {text}" for text in (cells.ms(device.latency_ms), cells.percent(device.accuracy))
    )  # fmt: skip
    tiles = [
        ("latency of the tree", cells.ms(tree.latency_ms), tree.latency_origin, latency),
        ("accuracy of the tree", cells.percent(tree.accuracy), tree.accuracy_origin, accuracy),
        ("reward of the tree", cells.plain(tree.reward), cells.reward_kind(tree), "accuracy and latency in one"),
    ]
    if tree.along_trace is not None:
        oracle = summary.oracle_along_trace
        more = "" if oracle is None else f"with hindsight {cells.ms(oracle.latency_ms)}"
        tiles.append(("latency along the trace", cells.ms(tree.along_trace.latency_ms), "simulated", more))
    if exact is not None:
        tiles.append(("search result", f"{exact.found_percent:.2f} %", "predicted", "of the exact optimum"))
    return blocks.tiles(tiles)


def _tree(tree: ModelTree) -> Markup:
    used = sorted({action.technique for node in tree.nodes for action in node.actions} - {"keep"})
    words = TECHNIQUES | {"absorbed": "made superfluous by the technique in front of it"}
    note = (
        "Read from left to right: before every block the device measures the link, takes the fork that matches, and "
        "runs what the card says, until a card ends in the cloud or in a result. The colour is the speed of the link, "
        "from orange (slowest) to blue (fastest); the thicker a line, the likelier its way."
    )
    return section(
        "The tree",
        blocks.block("scroll", draw_tree(tree)),
        blocks.block("techniques", [(name, words.get(name, "a technique of your own")) for name in used]),
        blocks.details("The same as text", blocks.block("text", render_text(tree))),
        note=note,
    )


def _search(summary: Summary) -> Markup:
    exact = summary.exact.reward if summary.exact is not None else None
    curves = summary.curves or {}
    picture = charts.search_chart(curves, exact)
    note = "How fast the two controllers and their rivals find good trees."
    if exact is not None:
        note += " The dashed line is the best tree there is, by dynamic programming over the predictor."
    names = [(name, charts.SEARCHERS.get(name, name)) for name, points in curves.items() if points]
    return figure("Search", picture, note=note, kind="predicted", names=names)


def _tradeoff(summary: Summary) -> Markup:
    picture = charts.tradeoff_chart(summary.branches or [], summary.methods)
    tree = summary.method("tree")
    kind = tree.accuracy_origin if tree is not None else ""
    note = "Up and left is better. Circles are the branches of the tree, larger where they are likelier."
    names = [(method.method, method.title) for method in charts.deployable(summary.methods)]
    return figure("Accuracy against latency", picture, note=note, kind=kind, names=names)


def _along_trace(summary: Summary) -> Markup:
    if summary.along_trace is None:
        return Markup()
    picture = charts.trace_chart(summary.along_trace, summary.scenario.edges_mbps)
    origin = summary.scenario.trace_origin
    note = "Above, the link, and where the tree forks; below, how long an inference started then takes. " + trace.HINT
    note += f" Trace: {origin}" if origin else ""
    names = charts.with_means(summary.along_trace)
    return figure("Along the trace", picture, note=note, kind="simulated", names=names)


def _predictor(summary: Summary) -> Markup:
    if summary.predictor is None:
        return Markup()
    rank, error = cells.rank(summary.predictor.rank_correlation), cells.points(summary.predictor.mean_error)
    note = (
        "What the search believed and what is true; on the dashed line they agree. "
        f"Rank correlation {rank}, mean error {error} points."
    )
    picture = charts.predictor_chart(summary.predictor)
    return figure("Can the accuracy predictor be trusted?", picture, note=note, kind="measured")


def _finetuning(summary: Summary) -> Markup:
    tuned = summary.finetuning
    if tuned is None:
        return Markup()
    rows = [
        ("before", tuned.before, f"{tuned.before:.2f}", "var(--random)"),
        ("after", tuned.after, f"{tuned.after:.2f}", "var(--tree)"),
        ("base network", tuned.base, f"{tuned.base:.2f}", BOUND),
    ]
    note = (
        f"All branches together against the base network's answers, {tuned.steps:,} steps: "
        f"{tuned.after - tuned.before:+.2f} points, {tuned.after - tuned.base:+.2f} against the base network."
    )
    return figure("Fine-tuning the tree", charts.bars(rows, "%"), note=note, kind="measured", left=BAR_NAMES)


def _savings(summary: Summary) -> Markup:
    rows = [
        [one.layer, one.choice, str(one.covers), cells.ms(one.base_ms), f"{one.saves_ms:.3g} ms",
         f"{one.measured_ms[0] - one.measured_ms[1]:.3g} ms" if one.measured_ms else "", f"{one.drop:+.2f}",
         one.why_not or "yes"]
        for one in sorted(summary.savings or [], key=lambda one: -one.saves_ms)
    ]  # fmt: skip
    head = ["layer", "technique", "layers replaced", "takes now", "saves", "saves here, measured", "points lost alone"]
    head += ["offered"]
    note = (
        "Every compression by itself. Milliseconds are those of the device's profile, what folds into neighbours left "
        "aside; points of accuracy were measured on search images."
    )
    return section("What each compression saves", table(head, rows), note=note, kind="predicted")


def _dropped(summary: Summary) -> Markup:
    rows = []
    for why, group in itertools.groupby(sorted(summary.dropped or [], key=lambda d: d.why), key=lambda d: d.why):
        layers: dict[str, list[str]] = {}
        for item in group:
            layers.setdefault(item.layer, []).append(item.choice)
        chips = blocks.block("chips", [(layer, ", ".join(choices)) for layer, choices in layers.items()])
        rows.append([Cell(text=why, classes="text"), Cell(text=chips, classes="text")])
    note = (
        "MACs are not milliseconds: these compressions were left out of the search because, by the device's profile, "
        "they buy nothing."
    )
    return section("Dropped before the search", table(["why", "layer and technique"], rows), note=note,
                   kind="predicted")  # fmt: skip


def _timings(summary: Summary) -> Markup:
    spent = {name: value for name, value in (summary.seconds or {}).items() if value is not None}
    rows = [(name, s, cells.seconds(s), "var(--tree)" if name == "total" else BOUND) for name, s in spent.items()]
    note = "Seconds of this run, on the machine named under provenance."
    return figure("Where the time went", charts.bars(rows, "s"), note=note, kind="measured", left=BAR_NAMES)


def _setup(summary: Summary) -> Markup:
    scenario = summary.scenario
    entries: dict[str, Any] = dict(summary.config)
    entries |= {
        "device profile": _with_origin(scenario.device, scenario.device_origin),
        "cloud profile": _with_origin(scenario.cloud, scenario.cloud_origin),
        "link": _with_origin(scenario.trace, scenario.trace_origin),
        "round trip": ms_text(scenario.rtt_ms),
        "bandwidth types": ", ".join(f"{v:.3g}" for v in scenario.bandwidth_mbps) + " Mbit/s",
        "sliced at places": ", ".join(map(str, summary.base.places)),
    }
    entries |= summary.provenance or {}
    shown = [(name, _fact(value)) for name, value in entries.items() if value is not None and value != ""]
    return section("Configuration and provenance", blocks.facts(shown))


def _with_origin(name: str, origin: str) -> str:
    return f"{name}: {origin}" if name and origin else name or origin


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
