"""The page of an emulation: every link with the latencies along it, and how the methods compare."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from modeltree.files import write_text
from modeltree.tree import ModelTree
from nas.emulation.methods import Comparison, EmulatedLink, EmulatedRow
from nas.names import TITLES
from nas.report.pieces import blocks, cells, trace
from nas.report.pieces.blocks import section
from nas.report.pieces.charts import chart
from nas.report.pieces.colours import BOUND, colours
from nas.report.pieces.table import Cell, Entry, named, table
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
    return blocks.page(
        title=f"Emulation: {tree.base} on {tree.device}",
        facts=[f"{len(trees)} methods", f"{len(links)} link{'s' * (len(links) > 1)}", f"bandwidth {links[0].measure}"],
        sections=[
            blocks.verdict(verdicts),
            *([_mean(links, whole)] if len(links) > 1 else []),
            *(_link(link, trees) for link in links),
        ],
        footer="Written by nas emulate.",
    )


def _mean(links: Sequence[EmulatedLink], whole: Comparison) -> Markup:
    note = f"Every number averaged over {len(links)} links, each counting alike."
    return section("Mean over links", _table(whole, links[0].measure), note=note, kind="simulated")


def _link(link: EmulatedLink, trees: Mapping[str, ModelTree]) -> Markup:
    played = link.trace
    note = (
        f"{played.mean_mbps:.2f} Mbit/s on average, round trip {played.rtt_ms:.4g} ms. Above, the link, and where "
        "trees fork; below, how long an inference started then takes: predicted compute, exact transfer. "
        f"{trace.HINT} {played.origin}"
    )
    series = along(link, trees)
    edges = sorted({edge for tree in trees.values() for edge in tree.types.edges_mbps})
    picture = charts.trace_chart(series, edges)
    label = f"bandwidth and latency along {played.name}"
    drawn = Markup() if picture is None else chart(picture, label=label, names=charts.with_means(series))
    return section(played.name, drawn, _table(link, link.measure), note=note, kind="simulated")


def along(link: EmulatedLink, trees: Mapping[str, ModelTree]) -> Series:
    """What a link's chart is drawn from: its bandwidth and every method's latency at every start."""
    return Series(
        time_s=link.starts_s.tolist(), bandwidth_mbps=[link.trace.at(start_s) for start_s in link.starts_s.tolist()],
        latency_ms={name: link.latency_ms[name].tolist() for name in trees},
    )  # fmt: skip


def _table(seen: Comparison, measure: str) -> Markup:
    estimated = measure == "estimated"
    titles = ["method", "mean latency", "95 % under", "accuracy", "reward", "handed over", "over the oracle"]
    titles += ["over surgery", *(["over perfect measuring"] if estimated else []), "paths by the node they end at"]
    colour = colours(row.method for row in seen.rows)
    return table(titles, [_row(row, seen, colour, estimated=estimated) for row in (*seen.rows, seen.oracle)])


def _row(row: EmulatedRow, seen: Comparison, colour: Mapping[str, str], *, estimated: bool) -> Entry:
    bound = row is seen.oracle
    title = "Bound: hindsight oracle" if bound else TITLES.get(row.method, row.method)
    numbers = [
        cells.ms(row.latency_ms), cells.ms(row.p95_latency_ms), cells.percent(row.accuracy), cells.plain(row.reward),
        cells.share(100 * row.handed_over), _signed(math.nan if bound else row.over_percent(seen.oracle)),
        _signed(row.over_percent(seen.surgery_of(row.method))),
        *([_signed(math.nan if bound else row.over_perfect_percent)] if estimated else []),
    ]  # fmt: skip
    paths = ", ".join(f"{leaf}: {100 * share:.0f} %" for leaf, share in row.paths.items())
    first = named(title, BOUND if bound else colour[row.method])
    return Entry(cells=[first, *numbers, Cell(text=paths, classes="text")], classes="bound" if bound else "")


def _signed(percent: float | None) -> str:
    return "" if percent is None or math.isnan(percent) else cells.signed(percent)
