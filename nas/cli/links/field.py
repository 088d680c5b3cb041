"""`nas field`: every method of a search over a link shaped live to a trace, with real processes and real bytes."""

import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nas.field.record import FieldRun
    from nas.field.tally import Tally


def field(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles, and folders of them")],
    trace: Annotated[str, typer.Option(help="A CSV or mahimahi file, or a scene")],
    link: Annotated[
        str, typer.Option(help="namespaces (root; the kernel shapes packets), relay (no rights), or auto")
    ] = "auto",
    slowdown: Annotated[
        str,
        typer.Option(help="What makes this machine play the device: none, profile (what the tree predicts), or a "
                     "number of times"),
    ] = "none",
    count: Annotated[int, typer.Option(min=1, help="Inferences of each method")] = 200,
    every_ms: Annotated[
        float | None, typer.Option(min=0.0, help="From start to start; spread over the trace, 250 at most, unless said")
    ] = None,
    offset_s: Annotated[float, typer.Option(min=0.0, help="Where in the trace to begin")] = 0.0,
    rtt_ms: Annotated[float | None, typer.Option(min=0.0, help="Round-trip time; the trace's unless said")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images, in folders named like classes where labels are known")
    ] = None,
    deadline_ms: Annotated[float | None, typer.Option(min=0.0, help="For each inference")] = None,
    mode: Annotated[
        str, typer.Option(help="only-device, prefer-device, prefer-cloud (walks the tree as searched) or only-cloud")
    ] = "prefer-cloud",
    policy: Annotated[
        str,
        typer.Option(
            help="What chooses the forks: measured (times met of late), switch (the bandwidth's type), exact, or a file"
        ),
    ] = "measured",
    interleaved: Annotated[
        bool, typer.Option("--interleaved", help="All methods at once, alternating, instead of one after the other")
    ] = False,
    target: Annotated[str | None, typer.Option(help="Of the bundles, on the device")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a block; all processors unless said")] = None,
    weights: Annotated[str, typer.Option(help="Kind of weights, one that the bundles were compiled with")] = "f32",
    seed: Annotated[int, typer.Option(min=0, help="Of a scene, and of which images")] = 0,
    check: Annotated[
        Path | None, typer.Option(help="Run directory: compare every answer with its torch networks")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Of --check, a share of the largest logit; 1e-3 for f32 unless said")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for field.json and field.html")] = Path("runs/field"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:  # fmt: skip
    """Play a recorded link to every method, measured: server, shaped link and device in processes of their own."""
    from modeltree.files import check_writable, write_text
    from modeltree.link.scenes import load_trace
    from nas.cli.display.progress import stages
    from nas.field.config import FieldConfig
    from nas.field.play import play_, prepared, worst_error, write_field
    from nas.report.field.page import render_field

    config = FieldConfig(
        bundles=tuple(bundles), trace=load_trace(trace, seed=seed, rtt_ms=rtt_ms), link=link, count=count,
        every_ms=every_ms, offset_s=offset_s, images=images, slowdown=slowdown, target=target, weights=weights,
        threads=threads, mode=mode, policy=policy, deadline_ms=deadline_ms, interleaved=interleaved, check=check,
        seed=seed,
    )  # fmt: skip
    check_writable(out / "field.json")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends our processes as Ctrl-C does
    played = prepared(config)
    written: list[Path] = []
    try:
        with stages(quiet=quiet or as_json) as progress:
            play_(played, progress)
    finally:
        if played.runs:
            record = played.record
            written = [write_field(record, out), out / "field.html"]
            write_text(written[1], render_field(record))
            if len(played.runs) < len(played.methods):
                print(f"{len(played.runs)} of {len(played.methods)} methods were finished: {out}", file=sys.stderr)
    if as_json:
        print(json.dumps(_plain(record)))
    else:
        _print(record, played.images.origin)
        print(", ".join(map(str, written)))
    if check is not None:
        from nas.field.checking import tolerance_of

        allowed = tolerance_of(weights) if tolerance is None else tolerance
        worst = worst_error(played.runs)
        if not worst <= allowed:
            print(
                f"nas: an answer is off by {worst:.3g} of the largest logit: rounding makes at most {allowed:.3g}; "
                f"look for the shot in {written[0]} and run nas show BUNDLE --verify", file=sys.stderr,
            )  # fmt: skip
            raise typer.Exit(1)


def _print(record: "FieldRun", origin: str) -> None:
    from rich.console import Console

    from nas.field.met import misses_text
    from nas.field.tally import endings, tallies
    from nas.field.verdict import field_verdict

    methods = tallies(record)
    shots = ", ".join(dict.fromkeys(str(len(one.run.shots)) for one in methods))
    print(
        f"{record.trace} over {record.link}: {_mean(record.trace_mbps):.2f} Mbit/s on average, round trip "
        f"{record.rtt_ms:.4g} ms, {shots} inferences a method, one every {record.every_ms:.4g} ms, {origin}"
    )
    if record.interleaved:
        print("All methods at once, their inferences alternating.")
    if record.policy != "measured":
        print(f"Driven by {record.policy}.")
    print(f"Device: {record.slowdown or 'this machine as it is'}. Cloud: {record.cloud}.")
    Console(width=None if sys.stdout.isatty() else 160).print(_table(methods))
    print(
        "Measured: ms of real processes over the shaped link. Emulated: the tree's predictions on the trace. Computed: "
        "replayed, with the\nparts measured here, and the oracle, the best path of all methods in hindsight. Accuracy: "
        "the bundle's, over the paths taken."
    )
    for line in misses_text(record.methods):
        print(line)
    for one in methods:
        if ends := endings(one.run):
            print(f"{one.name} ended: {', '.join(f'{what} {percent:.1f} %' for what, percent in ends.items())}")
    for sentence in field_verdict(record, methods):
        print(f"* {sentence}")


def _table(methods: "Sequence[Tally]") -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    titles = ["method", "measured ms: mean", "median", "p95", "accuracy %", "reward", "handed over %", "emulated ms",
              "replayed ms", "vs surgery %", "vs oracle %"]  # fmt: skip
    for title in titles:
        table.add_column(title, justify="left" if title == "method" else "right", overflow="fold")
    for one in methods:
        values = [one.mean_ms, one.median_ms, one.p95_ms, one.accuracy, one.reward, one.handed_over, one.emulated_ms,
                  one.replayed_ms]  # fmt: skip
        cells = [_number(value) for value in values]
        table.add_row(one.name, *cells, _signed(over_surgery(one, methods)), _signed(one.over_oracle))
    return table


def over_surgery(one: "Tally", others: "Sequence[Tally]") -> float:
    """Percent of measured time above surgery's; NaN for surgery, and where it was not played."""
    base = next((other.mean_ms for other in others if other.name == "surgery"), math.nan)
    return math.nan if one.name == "surgery" else 100 * (one.mean_ms / base - 1)


def _plain(record: "FieldRun") -> dict[str, Any]:
    from nas.field.met import misses
    from nas.field.tally import PARTS, endings, tallies
    from nas.field.verdict import field_verdict

    methods = tallies(record)
    return {
        "origin": "measured", "trace": record.trace, "link": record.link, "rtt_ms": record.rtt_ms,
        "slowdown": record.slowdown, "policy": record.policy, "interleaved": record.interleaved,
        "every_ms": record.every_ms,
        "methods": [_finite({
            "method": one.name, "shots": len(one.run.shots), "measured_mean_ms": one.mean_ms,
            "measured_median_ms": one.median_ms, "measured_p95_ms": one.p95_ms,
            "measured_parts_ms": dict(zip(PARTS, one.parts_ms, strict=True)), "accuracy": one.accuracy,
            "right_percent": one.right, "reward": one.reward, "handed_over_percent": one.handed_over,
            "emulated_mean_ms": one.emulated_ms, "replayed_mean_ms": one.replayed_ms,
            "over_surgery_percent": over_surgery(one, methods), "over_oracle_percent": one.over_oracle,
            "late": one.late, "endings_percent": endings(one.run), "checked": one.checked, "error": one.error,
        }) for one in methods],
        "predicted_against_met": [vars(one) for one in misses(record.methods)],
        "verdict": field_verdict(record, methods),
    }  # fmt: skip


def _finite(told: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {key: _known(value) for key, value in told.items()}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}" if math.isfinite(value) else ""
