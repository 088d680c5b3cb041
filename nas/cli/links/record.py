"""`nas record`: write a trace of the link to a server."""

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runtime.link.recording import Measured


def record(
    server: Annotated[str, typer.Option(help="grpc://, grpcs://, http:// or https://host:port of nas serve")],
    out: Annotated[Path, typer.Option(help="CSV file for the trace")],
    seconds: Annotated[float, typer.Option(help="For how long; Ctrl-C ends it before")] = 60.0,
    every_ms: Annotated[float, typer.Option(help="From one value to the next")] = 500.0,
    most_mb: Annotated[
        float, typer.Option(help="MB of 10^6 bytes that may be sent; probes get smaller so that they last")
    ] = 100.0,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that the server asks for")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of who signed the server's certificate")] = None,
) -> None:
    """Record how fast the link to a server is, for nas search and nas emulate.

    Measuring takes about 40 % of what the link carries: --most-mb limits it.
    """
    import time

    from modeltree.errors import ConfigError, NasError
    from modeltree.link.traces import write_trace
    from runtime.link.recording import BYTES_PER_MB, RecordConfig, trace_of
    from runtime.link.recording import record as measure
    from runtime.wire.protocol.token import read_token
    from runtime.wire.transports import open_transport

    config = RecordConfig(seconds=seconds, every_ms=every_ms, most_mb=most_mb)
    if out.exists():
        raise ConfigError(f"{out} is there already: pass another --out, or remove it")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is not a folder: make it, or pass another --out")
    token = None if token_file is None else read_token(token_file)
    measured: list[Measured] = []
    ended: NasError | KeyboardInterrupt | None = None
    with open_transport(server, token=token, ca=ca) as transport:
        try:
            for one in measure(transport, config, clock=time.monotonic, sleep=time.sleep):
                measured.append(one)
                _show(one)
        except (NasError, KeyboardInterrupt) as error:
            if not measured:
                raise
            ended = error
    if sys.stderr.isatty():
        print(file=sys.stderr)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    trace = trace_of(measured, name=out.stem, origin=f"nas record, uplink, {date}, a value every {every_ms:g} ms")
    write_trace(trace, out)
    low, middle, high = (trace.quantile(q) for q in (0.25, 0.5, 0.75))
    print(
        f"{out}: {trace.end_s:.1f} s, mean {trace.mean_mbps:.2f} Mbit/s (quartiles {low:.2f}, {middle:.2f}, "
        f"{high:.2f}), round trip {trace.rtt_ms:.1f} ms; {measured[-1].sent_bytes / BYTES_PER_MB:.1f} MB sent"
    )
    if isinstance(ended, NasError):
        raise ended


def _show(one: "Measured") -> None:
    """The last value, on one line at a terminal that is written over by the next."""
    if sys.stderr.isatty():
        rtt = "   out" if one.rtt_ms is None else f"{one.rtt_ms:6.1f}"
        text = f"{one.end_s:7.1f} s {one.mbps:8.2f} Mbit/s, round trip {rtt} ms, {one.sent_bytes / 1e6:.1f} MB sent"
        print(f"\r{text}", end="", file=sys.stderr, flush=True)
