"""Numbers for Prometheus, in its text exposition format 0.0.4; written here since the format is this small.

counter      only rises                     gauge   asked for when somebody looks
histogram    how many values were at most so large, their sum and their number
"""

import bisect
import http.server
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from modeltree.errors import ConfigError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_log = logging.getLogger(__name__)


class Metrics:
    """All numbers of a server. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, tuple[str, str, Callable[[], list[str]]]] = {}

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> "Counter":
        """A new counter; its name ends in `_total`."""
        found = Counter(name, tuple(labels), self._lock)
        self._add(name, "counter", about, found.lines)
        return found

    def histogram(self, name: str, about: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> "Histogram":
        """A new histogram with these upper bounds."""
        found = Histogram(name, tuple(labels), tuple(bounds), self._lock)
        self._add(name, "histogram", about, found.lines)
        return found

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A number that `read` gives when asked."""
        self._add(name, "gauge", about, lambda: [f"{name} {_number(read())}"])

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        lines: list[str] = []
        for name, (kind, about, read) in list(self._families.items()):
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *read()]
        return "\n".join(lines) + "\n"

    def _add(self, name: str, kind: str, about: str, read: Callable[[], list[str]]) -> None:
        if name in self._families:
            raise ConfigError(f"metric {name} is there already: names must differ")
        self._families[name] = (kind, about, read)


class Counter:
    """See `Metrics.counter`."""

    def __init__(self, name: str, labels: tuple[str, ...], lock: threading.Lock) -> None:
        self._name, self._labels, self._lock = name, labels, lock
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Raise it, for these values of its labels."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def value(self, *labels: str) -> float:
        """What it has come to."""
        with self._lock:
            return self._values.get(labels, 0.0)

    def lines(self) -> list[str]:
        with self._lock:
            found = dict(self._values)
        return [f"{self._name}{_labelled(zip(self._labels, key))} {_number(value)}" for key, value in found.items()]


class Histogram:
    """See `Metrics.histogram`."""

    def __init__(self, name: str, labels: tuple[str, ...], bounds: tuple[float, ...], lock: threading.Lock) -> None:
        self._name, self._labels, self._bounds, self._lock = name, labels, bounds, lock
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value, for these values of its labels."""
        with self._lock:
            counts, total = self._values.setdefault(labels, ([0] * (len(self._bounds) + 1), [0.0]))
            counts[bisect.bisect_left(self._bounds, value)] += 1
            total[0] += value

    def lines(self) -> list[str]:
        with self._lock:
            found = {key: (list(counts), total[0]) for key, (counts, total) in self._values.items()}
        lines = []
        for key, (counts, total) in found.items():
            names, below = list(zip(self._labels, key)), 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts):
                below += count
                lines.append(f"{self._name}_bucket{_labelled([*names, ('le', bound)])} {below}")
            lines.append(f"{self._name}_sum{_labelled(names)} {_number(total)}")
            lines.append(f"{self._name}_count{_labelled(names)} {below}")
        return lines


class MetricsServer:
    """Answers `/metrics`, `/live` and `/ready` over plain HTTP; meant for the machine itself or a private network.

    checks : by path, whether all is well; answers 200 or 503.

    Raises
    ------
    ConfigError : it cannot listen there.
    """

    def __init__(
        self, metrics: Metrics, checks: Mapping[str, Callable[[], bool]], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        class Handler(_Handler):
            answers = {"/metrics": lambda: (200, metrics.text())} | {
                path: lambda check=check: (200, "ok\n") if check() else (503, "no\n") for path, check in checks.items()
            }

        try:
            self._server = http.server.ThreadingHTTPServer((host, port), Handler)
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
            self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5.0
    answers: Mapping[str, Callable[[], tuple[int, str]]] = {}

    def do_GET(self) -> None:
        status, text = self.answers.get(self.path.split("?")[0], lambda: (404, "see /metrics, /live, /ready\n"))()
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", CONTENT_TYPE)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        _log.debug(format, *args)


def _labelled(pairs: object) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)  # type: ignore[attr-defined]
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
