"""`nas emulate`: what the methods of a run would have done on a recorded link."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from modeltree.tree import ModelTree
    from nas.emulation.methods import Comparison, EmulatedLink, EmulatedRow


def emulate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN|BUNDLE...", help="Run directories, bundles, or folders of bundles")
    ],
    trace: Annotated[
        list[str] | None,
        typer.Option(help="A CSV or mahimahi file, or a scene; may be given again. The one searched for unless said"),
    ] = None,
    rtt_ms: Annotated[float | None, typer.Option(min=0.0, help="Round-trip time; the trace's unless said")] = None,
    starts: Annotated[int, typer.Option(min=1, help="Inferences on each link, spread evenly over it")] = 200,
    measure: Annotated[
        str, typer.Option(help="perfect (the bandwidth is known, as in the paper) or estimated (as the runtime does)")
    ] = "perfect",
    policy: Annotated[
        str, typer.Option(help="What chooses the forks: switch (the bandwidth's type), measured, exact, or a file")
    ] = "switch",
    seed: Annotated[int | None, typer.Option(min=0, help="Of a scene; 0, or the search's, unless said")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page, report.html say, with a chart for each link")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
) -> None:  # fmt: skip
    """Play recorded links to every method: predicted compute, exact transfers, the hindsight oracle as the bound."""
    from modeltree.files import check_writable, write_text
    from modeltree.link.scenes import load_trace
    from nas.emulation.methods import emulate_methods, mean_over, verdicts
    from nas.results.trees import read_methods, searched_links

    if out is not None:
        check_writable(out)
    found = read_methods(paths)
    if trace:
        traces = [load_trace(name, seed=seed or 0, rtt_ms=rtt_ms) for name in trace]
    else:
        traces = searched_links(found, seed=seed, rtt_ms=rtt_ms)
    links = [emulate_methods(found.trees, one, starts=starts, measure=measure, policy=policy) for one in traces]
    whole = mean_over(links) if len(links) > 1 else links[0]
    said = verdicts(whole, found.trees)
    if out is not None:
        from nas.report.emulation import render_emulation

        write_text(out, render_emulation(links, whole, found.trees, said))
    if as_json:
        print(json.dumps(_plain(links, whole, said)))
        return
    _print(links, whole, found.trees)
    for sentence in said:
        print(f"* Emulated: {sentence}")
    if out is not None:
        print(f"\n{out}")


def _print(links: "Sequence[EmulatedLink]", whole: "Comparison", trees: "Mapping[str, ModelTree]") -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    measure = links[0].measure
    for link in links:
        print(
            f"{link.trace.name}: {link.trace.mean_mbps:.2f} Mbit/s on average, round trip {link.trace.rtt_ms:.4g} ms, "
            f"{link.starts_s.size} inferences in {link.trace.end_s:g} s"
        )
        console.print(_table(link, estimated=measure == "estimated"))
    if len(links) > 1:
        print(f"Mean over {len(links)} links")
        console.print(_table(whole, estimated=measure == "estimated"))
    known = "known at every fork" if measure == "perfect" else "as the runtime estimates it"
    print(
        f"Emulated: predicted compute, exact transfer; the bandwidth is {known}, for the oracle beforehand; forks by "
        f"policy {links[0].policy}."
    )


def _table(seen: "Comparison", *, estimated: bool) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    surgery = any(seen.surgery_of(row.method) for row in seen.rows)
    table = Table(box=SIMPLE_HEAD)
    titles = ["method", "mean ms", "p95 ms", "accuracy %", "reward", "handed over %", "vs oracle %"]
    early = any(row.left_early for row in seen.rows)
    titles += ["left early %"] * early + ["vs surgery %"] * surgery + ["vs perfect %"] * estimated
    for title in titles:
        table.add_column(title, justify="left" if title == "method" else "right", no_wrap=True)
    for row in (*seen.rows, seen.oracle):
        cells = [
            row.method, f"{row.latency_ms:.2f}", f"{row.p95_latency_ms:.2f}", f"{row.accuracy:.2f}",
            f"{row.reward:.2f}", f"{100 * row.handed_over:.1f}",
            "" if row is seen.oracle else _signed(row.over_percent(seen.oracle)),
        ]  # fmt: skip
        cells += [f"{100 * row.left_early:.1f}"] * early
        cells += [_signed(row.over_percent(seen.surgery_of(row.method)))] * surgery
        cells += ["" if row is seen.oracle else _signed(row.over_perfect_percent)] * estimated
        table.add_row(*cells, end_section=row is seen.rows[-1])
    return table


def _signed(percent: float | None) -> str:
    return "" if percent is None else f"{percent:+.1f}"


def _plain(links: "Sequence[EmulatedLink]", whole: "Comparison", said: Sequence[str]) -> dict[str, Any]:
    return {
        "origin": "emulated",
        "measure": links[0].measure,
        "policy": links[0].policy,
        "links": [
            {"trace": link.trace.name, "trace_origin": link.trace.origin, "mean_mbps": link.trace.mean_mbps,
             "rtt_ms": link.trace.rtt_ms, "starts": link.starts_s.size} | _rows(link)
            for link in links
        ],
        "mean": _rows(whole),
        "verdict": list(said),
    }  # fmt: skip


def _rows(seen: "Comparison") -> dict[str, Any]:
    return {"methods": [_row(row, seen) for row in seen.rows], "oracle": _row(seen.oracle, seen)}


def _row(row: "EmulatedRow", seen: "Comparison") -> dict[str, Any]:
    return {
        "method": row.method, "latency_ms": row.latency_ms, "p95_latency_ms": row.p95_latency_ms,
        "accuracy": row.accuracy, "reward": row.reward, "handed_over": row.handed_over,
        "left_early": row.left_early,
        "paths": {str(leaf): share for leaf, share in row.paths.items()},
        "over_oracle_percent": row.over_percent(seen.oracle),
        "over_surgery_percent": row.over_percent(seen.surgery_of(row.method)),
        "over_perfect_percent": row.over_perfect_percent,
    }  # fmt: skip
