"""Numbers of a server for Prometheus, in a registry of its own, so that servers in one process do not mix."""

import http.server
import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modeltree.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_END_S = 10.0
IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_log = logging.getLogger(__name__)


def prometheus() -> Any:
    """The package `prometheus_client`.

    Raises
    ------
    ConfigError : it is not installed.
    """
    try:
        return importlib.import_module("prometheus_client")
    except ImportError as error:
        raise ConfigError(
            f"a server needs the package prometheus_client ({error}): pip install 'nas-modeltree[cloud]'"
        ) from error


class EngineMeasures:
    """What an engine tells Prometheus. Safe from any thread.

    registry : where it is told; a new one holds the process's memory, processor time and open files as well.
    gauges : by name, what it is and a function that reads it.
    """

    def __init__(
        self, gauges: Mapping[str, tuple[str, Callable[[], float]]], registry: "CollectorRegistry | None" = None
    ) -> None:
        library = prometheus()
        if registry is None:
            registry = library.CollectorRegistry()
            library.ProcessCollector(registry=registry)
        self.registry: CollectorRegistry = registry
        counter, histogram = library.Counter, library.Histogram
        here, models = {"registry": registry}, ("model",)
        self._requests = counter("nas_requests", "Requests by model and outcome.", (*models, "outcome"), **here)
        self._swaps = counter("nas_swaps", "Bundles that were to take over.", ("outcome",), **here)
        self._bytes = counter("nas_tensor_bytes", "Bytes of tensors.", ("direction",), **here)
        self._images = histogram("nas_batch_images", "Images that ran at once.", models, buckets=IMAGES, **here)
        self._service = histogram("nas_service_seconds", "Time of a batch.", models, buckets=SECONDS, **here)
        self._wait = histogram("nas_wait_seconds", "From arrival to the first batch.", models, buckets=SECONDS, **here)
        for name, (about, read) in gauges.items():
            library.Gauge(name, about, **here).set_function(read)

    def ended(self, model: str, outcome: str) -> None:
        """A request has ended; the model is "" where nobody knows it."""
        self._requests.labels(model, outcome).inc()

    def swapped(self, outcome: str) -> None:
        """A bundle was to take over."""
        self._swaps.labels(outcome).inc()

    def ran(self, model: str, images: int, seconds: float) -> None:
        """A batch went well."""
        self._images.labels(model).observe(images)
        self._service.labels(model).observe(seconds)

    def answered(self, model: str, waited_s: float, in_bytes: int, out_bytes: int) -> None:
        """A request went well."""
        self.ended(model, "ok")
        self._wait.labels(model).observe(waited_s)
        self._bytes.labels("in").inc(in_bytes)
        self._bytes.labels("out").inc(out_bytes)


class MetricsServer:
    """Answers `/metrics`, `/live` and `/ready` over plain HTTP; meant for the machine itself or a private network.

    checks : by path, whether all is well; answers 200 or 503.

    Raises
    ------
    ConfigError : it cannot listen there, or prometheus_client is missing.
    """

    def __init__(
        self, registry: "CollectorRegistry", checks: Mapping[str, Callable[[], bool]], *, host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:  # fmt: skip
        try:
            self._server = http.server.ThreadingHTTPServer((host, port), _handler(registry, checks))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error}): choose another address") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="nas-metrics", daemon=True
        )

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_END_S)
        self._server.server_close()


def _handler(registry: "CollectorRegistry", checks: Mapping[str, Callable[[], bool]]) -> type:
    """prometheus_client's own handler, with health checks beside its metrics."""

    class Handler(prometheus().MetricsHandler):  # type: ignore[misc]
        timeout = 5.0

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/metrics":
                super().do_GET()
            elif path in checks:
                self._say(*((200, "ok\n") if checks[path]() else (503, "no\n")))
            else:
                self._say(404, f"see /metrics, {', '.join(checks)}\n")

        def _say(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            _log.debug(format, *args)

    return Handler.factory(registry)
