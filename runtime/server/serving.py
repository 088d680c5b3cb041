"""A whole server: an engine, the fronts before it, its metrics, and how they start and end together."""

import itertools
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

from modeltree.errors import ConfigError, NasError
from runtime.server.bundle_watcher import Watch
from runtime.server.engine.engine import DRAIN_S, BundleEngine
from runtime.server.fronts.admission import Admission, Limits, ServerTls
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.interface import Engine
from runtime.server.memory import trim
from runtime.server.metrics import MetricsServer

PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 8000}
KEEP_OLD_S = 600.0
_LOOK_S = 1.0
_TRIM_EVERY = 5
_STEP, _LOWEST = 5, 19

_log = logging.getLogger(__name__)


class Front(Protocol):
    """What speaks to devices."""

    port: int

    def start(self) -> None:
        """Listen."""

    def stop(self, grace_s: float = 5.0) -> None:
        """Let what is being answered end within a time, then cut."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve, where, and to whom.

    listen : URLs, `grpc://`, `grpcs://`, `http://` or `https://host:port`; port 0 takes any.
    token : that every request must carry. tls : for the encrypted ones.
    backend, target, variant : what runs the models, whose libraries, and which weights.
    workers, threads : see `BundleEngine`.
    order : of the queue: `fcfs`, first come first served, or `edf`, earliest deadline first.
    max_queue : requests that wait. max_rate : requests a second from one address.
    metrics : `host:port` for Prometheus and health checks. watch : serve another bundle once it lies there.
    keep_old_s : how long, after that, models that only the bundle before had stay for devices that still run it.
    drain_s : for what is being answered at the end. blocks : served beside the rests, see `BundleEngine`.
    shared : whether other processes listen on the same ports.
    """

    bundle: Path
    listen: tuple[str, ...] = ("grpc://127.0.0.1:8001",)
    backend: str = "tvm"
    target: str | None = None
    variant: str = "f32"
    workers: int | None = None
    threads: int | None = None
    eager: bool = True
    order: str = "fcfs"
    max_queue: int = 128
    max_message_bytes: int = 16 * 2**20
    max_rate: float | None = None
    token: str | None = None
    tls: ServerTls | None = None
    metrics: str | None = None
    watch: bool = False
    keep_old_s: float = KEEP_OLD_S
    drain_s: float = DRAIN_S
    blocks: tuple[str, ...] = ()
    shared: bool = False


class Server:
    """Listens from its making to `stop`. A context manager.

    wrap : puts something between the fronts and the engine, as `runtime.chain` does for members.

    Raises
    ------
    ConfigError : an address or option is off. FormatError : the bundle is.
    """

    def __init__(self, config: ServeConfig, wrap: Callable[[BundleEngine], Engine] = lambda engine: engine) -> None:
        self.config = config
        places = [place(url) for url in config.listen]
        if not places:
            raise ConfigError("nowhere to listen: pass at least one address, such as grpc://127.0.0.1:8001")
        for scheme, _, _ in places:
            if scheme in ("grpcs", "https") and config.tls is None:
                raise ConfigError(f"{scheme}:// needs a certificate and its key: pass both")
        if config.tls is not None and not any(scheme in ("grpcs", "https") for scheme, _, _ in places):
            raise ConfigError("a certificate is given but nothing is encrypted: listen on grpcs:// or https://")
        if config.metrics is not None:
            place(f"http://{config.metrics}")
        self._watch = Watch(config.bundle) if config.watch else None
        self.engine = BundleEngine(
            config.bundle, backend=config.backend, target=config.target, variant=config.variant, workers=config.workers,
            threads=config.threads, eager=config.eager, max_requests=config.max_queue,
            max_bytes=max(config.max_message_bytes, 256 * 2**20), keep_old_s=config.keep_old_s, order=config.order,
            blocks=config.blocks,
        )  # fmt: skip
        self.answering = wrap(self.engine)
        self._started: list[Front | MetricsServer] = []
        _step_back()
        try:
            self.urls = self._listen(places)
        except BaseException:
            self._end(0.0)
            raise

    def _listen(self, places: list[tuple[str, str, int]]) -> tuple[str, ...]:
        config = self.config
        limits = Limits(
            max_requests=config.max_queue + self.engine.workers, max_message_bytes=config.max_message_bytes,
            max_rate=config.max_rate,
        )  # fmt: skip
        admission, urls = Admission(limits, token=config.token), []
        handler = RequestHandler(self.answering, max_bytes=limits.max_message_bytes)
        if config.metrics is not None:
            _, host, port = place(f"http://{config.metrics}")
            checks = {"/live": self.engine.live, "/ready": self.answering.ready}
            server = MetricsServer(self.engine.metrics, checks, host=host, port=port)
            self._started.append(server)
            urls.append(f"{url_of('http', host, server.port)}/metrics")
        for scheme, host, port in places:
            made = front(handler, admission, scheme, host, port, config.tls, shared=config.shared)
            self._started.append(made)
            urls.append(url_of(scheme, host, made.port))
        for one in self._started:
            one.start()
        return tuple(urls)

    @property
    def about(self) -> str:
        """What is served, in a few words."""
        return self.engine.about

    def run(self, stop: threading.Event, swap: threading.Event) -> bool:
        """Serve until `stop` is set; look at the bundle anew whenever `swap` is, or the folder changes. Always True."""
        for turn in itertools.count(1):
            if stop.wait(_LOOK_S):
                return True
            if turn % _TRIM_EVERY == 0:
                trim()
            if swap.is_set() or (self._watch is not None and self._watch.changed()):
                swap.clear()
                self.swap()
        raise AssertionError("counting does not end")

    def swap(self) -> bool:
        """Take over what lies in the bundle's folder now; whether it was sound. If not, the old one goes on."""
        try:
            self.engine.swap(timeout_s=self.config.drain_s)
        except NasError as error:
            _log.error("the new bundle is refused, the old one goes on: %s", error)
            return False
        _log.info("%s took over: %s", self.config.bundle, self.engine.about)
        return True

    def stop(self) -> bool:
        """Take nothing new, end what is here, go; whether all of it was done in time."""
        done = self.engine.drain(self.config.drain_s)
        self._end(self.config.drain_s)
        return done

    def _end(self, grace_s: float) -> None:
        for one in reversed(self._started):
            if isinstance(one, MetricsServer):
                one.stop()
            else:
                one.stop(grace_s)
        self.engine.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def front(
    handler: RequestHandler,
    admission: Admission,
    scheme: str,
    host: str,
    port: int,
    tls: ServerTls | None,
    *,
    shared: bool = False,
) -> Front:
    """What speaks a scheme. shared : see `ServeConfig`.

    Raises
    ------
    ConfigError : it cannot listen there, or a package is missing.
    """
    tls = tls if scheme in ("grpcs", "https") else None
    if scheme.startswith("grpc"):
        from runtime.server.fronts.grpc_front import GrpcFront

        return GrpcFront(handler, admission, host=host, port=port, tls=tls, shared=shared)
    try:
        from runtime.server.fronts.rest_front import RestFront
    except ImportError as error:
        raise ConfigError(f"REST needs the package httptools ({error}): pip install 'nas-modeltree[cloud]'") from error
    return RestFront(handler, admission, host=host, port=port, tls=tls, shared=shared)


def place(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address to listen on.

    Raises
    ------
    ConfigError : it is not one.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"address {url!r} is off ({error}): pass something like grpc://127.0.0.1:8001") from error
    extra = parts.username or parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in PORTS or not parts.hostname or extra:
        raise ConfigError(
            f"address {url!r} is off: it must be one of {', '.join(f'{name}://host:port' for name in PORTS)}"
        )
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port


def _step_back() -> None:
    """Let this thread, and those it starts from now on, run after the engine's workers, which are there already.

    Else a hundred devices that are told "busy" and ask again take the processor from the few that are being answered.
    """
    if hasattr(os, "setpriority"):
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, min(_LOWEST, os.getpriority(os.PRIO_PROCESS, here) + _STEP))


def url_of(scheme: str, host: str, port: int) -> str:
    """An address, as `place` reads it."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
