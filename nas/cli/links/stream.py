"""`nas stream`: tasks with deadlines from several devices to one server, for real, policy by policy."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modeltree.streams.tasks import Arrivals, Task
    from nas.field.stream.play import Cast
    from nas.field.stream.record import StreamRecord, StreamRun, StreamTally


def stream(
    bundle: Annotated[Path, typer.Argument(help="A bundle of `nas compile`; --method actions has exits and cuts")],
    devices: Annotated[int, typer.Option(min=1, help="End devices, a process and a link each")] = 3,
    rate: Annotated[float, typer.Option(help="p: chance of a task in a slot, in all")] = 0.1,
    k: Annotated[float, typer.Option("--k", help="Deadline in slots an image")] = 3.0,
    slot_ms: Annotated[float, typer.Option(help="Length of a slot")] = 10.0,
    tasks: Annotated[
        str, typer.Option(help="How many are drawn, or a CSV: arrival_s,device,images,deadline_ms, or RayCloudSim's")
    ] = "200",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="edf, rolling, greedy, random, device, EXIT/CUT, or a file of nas policy train; again for more"
        ),
    ] = None,
    mbps: Annotated[float, typer.Option(help="Of each device's link")] = 1.0,
    link: Annotated[
        str | None, typer.Option(help="In place of --mbps: a scene, or a CSV or mahimahi file; each device's own")
    ] = None,
    rtt_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Round trip; the link's unless said, 4 ms without one")
    ] = None,
    order: Annotated[str, typer.Option(help="Of the queues on devices and server: fcfs or edf")] = "fcfs",
    slowdown: Annotated[
        float, typer.Option(min=0.0, help="Devices take so many times what the tree predicts; 0: this machine as it is")
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="Of the server: batches at once")] = 1,
    kill_at_s: Annotated[float | None, typer.Option(help="Kill the server then, and start it again")] = None,
    down_s: Annotated[float, typer.Option(help="How long it stays away")] = 2.0,
    one_at_a_time: Annotated[
        bool, typer.Option("--one-at-a-time", help="Each task answered before the next is begun, to compare with")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images, labelled by the names of their folders")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and images")] = 0,
    costs_only: Annotated[
        Path | None, typer.Option("--costs", help="Only measure what exits and cuts take, into this JSON file")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for stream.json and stream.html")] = Path("runs/stream"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Play a stream of tasks for real, and beside it what the model says of the same arrivals."""
    import tempfile

    import msgspec

    from modeltree.files import check_writable, write_bytes, write_text
    from modeltree.link.scenes import load_trace
    from modeltree.streams.costs import encode_table
    from modeltree.streams.system import StreamSystem, play, total_gain
    from modeltree.streams.tasks import Arrivals
    from nas.cli.display.progress import stages
    from nas.decisions.streams.exact import upper_bound
    from nas.field.images import field_images
    from nas.field.stream.play import Cast, StreamConfig, play_policy
    from nas.field.stream.record import tally
    from nas.report.streams import render_stream
    from runtime.execution.bundle import Bundle
    from runtime.stream.opening import check_planner, open_planner

    arrivals = Arrivals(p=rate, k=k, devices=devices, slot_ms=slot_ms)
    trace = None if link is None else load_trace(link, seed=seed, rtt_ms=rtt_ms)
    if trace is not None:
        mbps, rtt_ms = trace.mean_mbps, trace.rtt_ms
    config = StreamConfig(
        bundle=bundle, arrivals=arrivals, mbps=mbps, trace=trace, rtt_ms=4.0 if rtt_ms is None else rtt_ms,
        order=order, slowdown=slowdown, workers=workers,
        kill_at_s=kill_at_s, down_s=down_s, pipelined=not one_at_a_time,
    )  # fmt: skip
    check_writable(out / "stream.json" if costs_only is None else costs_only)
    for name in policy or ():
        check_planner(name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = _tasks(tasks, arrivals, seed)
    shown = field_images(Bundle.open(bundle).manifest, images, count=64, seed=seed)
    runs: list[StreamRun] = []
    with tempfile.TemporaryDirectory(prefix="nas-stream-") as folder, Cast(config, Path(folder)) as cast:
        if costs_only is not None:
            write_bytes(costs_only, encode_table(cast.table))
            print(costs_only)
            return
        system = StreamSystem(table=cast.table, mbps=mbps, trace=trace, strict=False)
        bound = upper_bound(system, found, devices=devices)
        for name in policy or ["edf", "rolling"]:
            predicted = total_gain(play(system, found, open_planner(name, system, arrivals), devices=devices))
            with stages(quiet=quiet or as_json) as progress:
                run = play_policy(cast, name, found, shown, progress)
            runs.append(msgspec.structs.replace(run, predicted_gain=predicted, bound=bound))
        record = _record(cast, runs, "drawn" if tasks.isdecimal() else tasks)
    write_bytes(out / "stream.json", msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    write_text(out / "stream.html", render_stream(record))
    tallies = [tally(run) for run in runs]
    if as_json:
        print(json.dumps([msgspec.to_builtins(one) for one in tallies]))
        return
    _print(tallies)
    print(
        "gain, in time, late, ms: measured, real processes over a shaped link; model: predicted for the same arrivals; "
        f"bound: no plan gains more by the model.\n{out / 'stream.html'}"
    )


def _tasks(text: str, arrivals: "Arrivals", seed: int) -> "list[Task]":
    import numpy as np

    from modeltree.errors import ConfigError
    from modeltree.streams.tasks import read_tasks

    if not text.isdecimal():
        return read_tasks(Path(text), devices=arrivals.devices, slot_ms=arrivals.slot_ms)
    if int(text) < 1:
        raise ConfigError("--tasks is 0: it must be at least 1, or a file")
    return arrivals.draw(int(text), np.random.default_rng([seed, 21]))


def _record(cast: "Cast", runs: "Sequence[StreamRun]", tasks_from: str) -> "StreamRecord":
    from dataclasses import fields

    from nas.field.stream.record import StreamRecord
    from nas.jobs.machine import commit, load_average, processor, today
    from runtime.execution.bundle import Bundle

    config = cast.config
    table = {f.name: [float(v) for v in getattr(cast.table, f.name)] for f in fields(cast.table)}
    return StreamRecord(
        bundle=str(config.bundle), base=Bundle.open(config.bundle).manifest.tree.base, devices=config.arrivals.devices,
        mbps=config.mbps, rtt_ms=config.rtt_ms, order=config.order, slowdown=config.slowdown, tasks_from=tasks_from,
        machine=f"{processor()}, load average {load_average():.1f} after", commit=commit(), date=today(), table=table,
        runs=tuple(runs), link="" if config.trace is None else config.trace.name,
    )  # fmt: skip


def _print(tallies: "Sequence[StreamTally]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for title in ("policy", "gain", "model", "bound", "in time", "late", "dropped", "server", "retried", "p95 ms",
                  "worst late ms", "plan us"):  # fmt: skip
        table.add_column(title, justify="left" if title == "policy" else "right", no_wrap=True)
    for one in tallies:
        table.add_row(
            one.policy, f"{one.gain:.2f}", _number(one.predicted_gain), _number(one.bound),
            f"{one.in_time} of {one.tasks}", str(one.late), str(one.dropped), str(one.by_server), str(one.retried),
            f"{one.p95_latency_ms:.1f}", f"{one.worst_lateness_ms:.1f}", f"{one.plan_us:.0f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
