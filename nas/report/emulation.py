"""The page of an emulation: every link with the latencies along it, and how the methods compare."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from modeltree.tree import ModelTree
from nas.emulation.methods import Comparison, EmulatedLink, EmulatedRow
from nas.names import TITLES
from nas.report.pieces import blocks, cells, trace
from nas.report.pieces.blocks import section
from nas.report.pieces.charts import chart
from nas.report.pieces.colours import BOUND, colours
from nas.report.pieces.table import Column, bound, cell_of, comparison
from nas.report.search import charts
from nas.results.summary import Series


def render_emulation(
    links: Sequence[EmulatedLink], whole: Comparison, trees: Mapping[str, ModelTree], verdicts: Sequence[str]
) -> str:  # fmt: skip
    """The page as text, which needs nothing but itself."""
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


def _table(played: Comparison, measure: str) -> Markup:
    def over(row: EmulatedRow) -> float | None:
        return None if row is oracle else row.over_percent(oracle)

    oracle, estimated = played.oracle, measure == "estimated"
    columns = [
        Column[EmulatedRow](name="mean latency", pick=lambda row: row.latency_ms, show=cells.ms),
        Column(name="95 % under", pick=lambda row: row.p95_latency_ms, show=cells.ms),
        Column(name="accuracy", pick=lambda row: row.accuracy, show=cells.percent),
        Column(name="reward", pick=lambda row: row.reward, show=cells.plain),
        Column(name="handed over", pick=lambda row: 100 * row.handed_over, show=cells.share),
        Column(name="over the oracle", pick=over, show=cells.signed),
        Column(name="over surgery", pick=lambda row: row.over_percent(played.surgery_of(row.method)),
               show=cells.signed),
        Column(name="over perfect measuring", pick=lambda row: None if row is oracle else row.over_perfect_percent,
               show=cells.signed),
        Column(name="paths by the node they end at", pick=lambda row: row.paths, show=_paths, classes="text"),
    ]  # fmt: skip
    columns = [one for one in columns if estimated or one.name != "over perfect measuring"]
    colour, last = colours(row.method for row in played.rows), [cell_of(column, oracle) for column in columns]
    return comparison(
        played.rows, columns, title=lambda row: TITLES.get(row.method, row.method),
        colour=lambda row: colour[row.method], bounds=[bound("Bound: hindsight oracle", BOUND, last)],
    )  # fmt: skip


def _paths(shares: Mapping[int, float]) -> str:
    return ", ".join(f"{leaf}: {100 * share:.0f} %" for leaf, share in shares.items())
