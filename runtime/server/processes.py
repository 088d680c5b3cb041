"""Several server processes behind the same ports: the kernel hands each new connection to one of them (SO_REUSEPORT).

A process has one interpreter, and so one thread that runs Python at a time; where fronts and not models are what limits
a server, more processes answer more. Each has the whole bundle in memory (its libraries' pages are shared), a queue and
limits of its own.
"""

import contextlib
import logging
import multiprocessing
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from modeltree.errors import ConfigError, NasError
from runtime.execution.native import available_cpus
from runtime.server.memory import bound_arenas
from runtime.server.open_files import SERVED_FILES, allow_files
from runtime.server.serving import ServeConfig, Server, place, url_of

_LOOK_S = 1.0
_START_S = 600.0
_END_S = 30.0
_SWAP = "swap"

_log = logging.getLogger(__name__)


class Processes:
    """So many servers of one bundle, from their making to `stop`. A context manager.

    Raises
    ------
    ConfigError : an address or option is off, or the system cannot share a port. NasError : one could not start.
    """

    def __init__(self, config: ServeConfig, count: int) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigError("this system cannot share a port among processes: serve with one")
        if config.metrics is not None and place(f"http://{config.metrics}")[2] == 0:
            raise ConfigError("with several processes metrics need a port: each process takes the next one behind it")
        context = multiprocessing.get_context("spawn")
        self._drain_s = config.drain_s
        self._children: list[tuple[Any, Connection]] = []
        self.about = ""
        with _reserved(config) as shared:
            self.urls = shared.listen
            try:
                for number in range(count):
                    here, there = context.Pipe()
                    process = context.Process(target=_serve, args=(_of(shared, number, count), there), daemon=False)
                    process.start()
                    there.close()
                    self._children.append((process, here))
                for _, pipe in self._children:
                    self.about = _started(pipe)
            except BaseException:
                self.stop()
                raise

    def run(self, stop: threading.Event, swap: threading.Event) -> bool:
        """Serve until `stop` is set; hand `swap` on. False where a process has ended of itself."""
        while not stop.is_set():
            ended = wait([process.sentinel for process, _ in self._children], _LOOK_S)
            if ended and not stop.is_set():
                _log.error("%d of %d server processes ended of themselves", len(ended), len(self._children))
                return False
            if swap.is_set():
                swap.clear()
                for _, pipe in self._children:
                    pipe.send(_SWAP)
        return True

    def stop(self) -> bool:
        """Have all of them end what they do; whether all did in time."""
        for _, pipe in self._children:
            pipe.close()
        for process, _ in self._children:
            process.join(self._drain_s + _END_S)
        late = [process for process, _ in self._children if process.is_alive()]
        for process in late:
            process.kill()
        return not late


def _of(config: ServeConfig, number: int, count: int) -> ServeConfig:
    """What one of the processes is told: its share of the processors, and a port of its own for metrics."""
    cpus = max(1, available_cpus() // count)
    workers = cpus if config.workers is None else config.workers
    threads = max(1, cpus // workers) if config.threads is None else config.threads
    metrics = config.metrics
    if metrics is not None:
        _, host, port = place(f"http://{metrics}")
        metrics = url_of("http", host, port + number).removeprefix("http://")
    return replace(config, workers=workers, threads=threads, metrics=metrics)


@contextlib.contextmanager
def _reserved(config: ServeConfig) -> Iterator[ServeConfig]:
    """The configuration with every port named. Where any port will do, one is held until the processes have it."""
    with contextlib.ExitStack() as held:
        urls = []
        for scheme, host, port in map(place, config.listen):
            if port == 0:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sock = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind((host, 0))
                port = sock.getsockname()[1]
            urls.append(url_of(scheme, host, port))
        yield replace(config, listen=tuple(urls), shared=True)


def _started(pipe: Connection) -> str:
    """What a process serves.

    Raises
    ------
    NasError : it could not start; says why.
    """
    try:
        if not pipe.poll(_START_S):
            raise NasError(f"a server process did not start within {_START_S:.0f} s: see its log")
        about, error = pipe.recv()
    except EOFError as gone:
        raise NasError("a server process ended before it served: see its log") from gone
    if error is not None:
        raise ConfigError(error)
    return about


def _serve(config: ServeConfig, pipe: Connection) -> None:
    """One process: serves until its parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    bound_arenas()
    allow_files(SERVED_FILES)
    stop, swap = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        server = Server(config)
    except NasError as error:
        pipe.send(("", str(error)))
        return
    pipe.send((server.engine.about, None))

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while pipe.recv() == _SWAP:
                swap.set()
        stop.set()

    threading.Thread(target=listen, name="nas-parent", daemon=True).start()
    server.run(stop, swap)
    server.stop()
