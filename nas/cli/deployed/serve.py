"""`nas serve`: the cloud's side, answering devices that hand over."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a link to one")],
    listen: Annotated[
        list[str] | None,
        typer.Option(help="grpc://, grpcs://, http:// or https://host:port; again for more. grpc://127.0.0.1:8001 "
                     "and http://127.0.0.1:8000 unless said; these are the ports where none is named"),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate, for grpcs and https")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its key")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM file of those who may sign the certificate that every device must show")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a token that every request must carry")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Batches at once; one a processor unless said. With 1, one device is answered sooner"),
    ] = None,
    order: Annotated[str, typer.Option(help="Of the queue: fcfs (first come), or edf (earliest deadline)")] = "fcfs",
    processes: Annotated[
        int,
        typer.Option(min=1, help="Servers on the same ports, sharing the processors; each its own metrics port"),
    ] = 1,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are told that we are busy")] = 128,
    max_message_mb: Annotated[float, typer.Option(min=0.001, help="Largest request, in MB of 10^6 bytes")] = 16.0,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second from one address")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Answer /metrics (Prometheus), /live and /ready here")
    ] = None,
    backend: Annotated[str, typer.Option(help="tvm: the bundle's libraries; onnx: its ONNX forms in ONNX Runtime")] = (
        "tvm"
    ),
    target: Annotated[str | None, typer.Option(help="Of the bundle; the one that runs here unless said")] = None,
    weights: Annotated[str, typer.Option(help="Kind of weights, one that the bundle was compiled with")] = "f32",
    lazy: Annotated[bool, typer.Option("--lazy", help="Load a model when it is first asked for")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Serve another bundle once it lies there; so does SIGHUP")] = (
        False
    ),
    keep_old: Annotated[
        float,
        typer.Option(min=0.0, metavar="S", help="After a swap, seconds that models of the bundle before stay for "
                     "devices that still run it; until the next swap at most"),
    ] = 600.0,
    placement: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run stages of this placement, pass the rest on")
    ] = None,
    member: Annotated[str | None, typer.Option(help="Who we are in the placement")] = None,
    peer_ca: Annotated[
        Path | None, typer.Option(help="PEM file of those who may sign members' certificates; else --client-ca")
    ] = None,
    drain_s: Annotated[float, typer.Option(min=0.0, help="Time for what is being answered when we end")] = 30.0,
) -> None:  # fmt: skip
    """Serve every hand-over of a bundle until SIGTERM or Ctrl-C; what is being answered is answered first."""
    import logging
    import signal
    import threading

    from modeltree.errors import ConfigError
    from runtime.server.fronts.admission import ServerTls
    from runtime.server.memory import bound_arenas
    from runtime.server.open_files import SERVED_FILES, allow_files
    from runtime.server.processes import Processes
    from runtime.server.serving import ServeConfig, Server
    from runtime.wire.protocol.token import read_token

    if (placement is None) != (member is None):
        raise ConfigError("a member needs a placement and its name in it: pass --placement and --member")
    if (tls_cert is None) != (tls_key is None) or (client_ca is not None and tls_cert is None):
        raise ConfigError("TLS needs a certificate and its key: pass --tls-cert and --tls-key")
    tls = None if tls_cert is None or tls_key is None else ServerTls(certificate=tls_cert, key=tls_key, ca=client_ca)
    config = ServeConfig(
        bundle=bundle, listen=tuple(listen or ("grpc://127.0.0.1:8001", "http://127.0.0.1:8000")), backend=backend,
        target=target, variant=weights, workers=workers, eager=not lazy, max_queue=max_queue, order=order,
        max_message_bytes=int(max_message_mb * 1e6), max_rate=rate,
        token=None if token_file is None else read_token(token_file), tls=tls, metrics=metrics, watch=watch,
        keep_old_s=keep_old, drain_s=drain_s,
    )  # fmt: skip
    if placement is not None and member is not None:
        from runtime.chain.neighbours import Identity
        from runtime.chain.serving import as_member

        identity = Identity(token=config.token, ca=peer_ca or client_ca, certificate=tls_cert, key=tls_key)
        config, wrap = as_member(config, placement, member, identity)
    else:
        wrap = None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    bound_arenas()
    allow_files(SERVED_FILES)
    stop, swap = threading.Event(), threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: swap.set())
    if processes > 1 and wrap is not None:
        raise ConfigError("a member of a placement runs in one process: leave --processes out")
    server: Server | Processes
    if processes > 1:
        server = Processes(config, processes)
    else:
        server = Server(config) if wrap is None else Server(config, wrap)
    each = "" if processes == 1 else f"{processes} processes, each of "
    print(f"{bundle}: {each}{server.about} on {', '.join(server.urls)}", flush=True)
    alone = server.run(stop, swap)
    if not server.stop():
        logging.warning("some requests were not answered within %g s", drain_s)
    if not alone:
        raise typer.Exit(1)
