"""Who gets in, and how much of it: token, rate and concurrency, the same for every front."""

import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modeltree.errors import ConfigError, NasError
from runtime.server.interface import Busy


class Unauthenticated(NasError):
    """No token, or not the one."""


class TooLarge(NasError):
    """More bytes than the server takes at once."""


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """PEM files: who the server is, and with `ca` who may sign the certificate that each device must show."""

    certificate: Path
    key: Path
    ca: Path | None = None

    def __post_init__(self) -> None:
        for name, file in vars(self).items():
            if file is not None and not file.is_file():
                raise ConfigError(f"TLS {name} {file} is not a file: pass a PEM file")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server bears.

    max_message_bytes : of a request. max_requests : at work or waiting at the engine, all fronts together.
    max_connections : of the REST front, where each takes a thread. max_grpc_connections : of the gRPC front, where it
    takes a few kilobytes. max_rate, burst : requests a second and at once from one address; None: any.
    read_s : for a request to arrive once it has begun. idle_s : between two of one connection.
    """

    max_message_bytes: int = 16 * 2**20
    max_requests: int = 64
    max_connections: int = 256
    max_grpc_connections: int = 2048
    max_rate: float | None = None
    burst: int = 20
    read_s: float = 30.0
    idle_s: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigError(f"limit {name} is {value}: it must be above 0")


class Admission:
    """Lets requests in, or says why not.

    token : that every request must carry; None asks for none. clock : seconds, rising.
    """

    def __init__(
        self, limits: Limits, *, token: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._token = None if token is None else token.encode()
        self._places = threading.BoundedSemaphore(limits.max_requests)
        self._buckets = Buckets(limits.max_rate, limits.burst, clock)

    def check_token(self, authorization: str | None) -> None:
        """Whether a header `Bearer TOKEN` carries the token; takes as long whatever is wrong with it.

        Raises
        ------
        Unauthenticated : it does not.
        """
        if self._token is None:
            return
        given = (authorization or "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            which = "carries another token" if given else "carries no token"
            raise Unauthenticated(f"the request {which}: send the server's as `authorization: Bearer TOKEN`")

    @contextmanager
    def place(self, peer: str) -> Iterator[None]:
        """Hold a place for one request.

        Raises
        ------
        Busy : there is none, or this peer has had its share.
        """
        if not self._buckets.take(peer):
            raise Busy(f"more than {self.limits.max_rate} requests a second from {peer}: send fewer")
        if not self._places.acquire(blocking=False):
            raise Busy(f"{self.limits.max_requests} requests are being answered already: try again later")
        try:
            yield
        finally:
            self._places.release()


class Buckets:
    """A token bucket for each peer, for the `most` that were heard of last.

    rate : tokens a second; None lets everything pass. burst : tokens that a bucket holds.
    """

    def __init__(self, rate: float | None, burst: int, clock: Callable[[], float], most: int = 4096) -> None:
        self.rate, self.burst, self._clock, self._most = rate, burst, clock, most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, peer: str) -> bool:
        """Whether the peer had a token left; it has one less now."""
        if self.rate is None:
            return True
        with self._lock:
            now = self._clock()
            level, since = self._levels.pop(peer, (float(self.burst), now))
            level = min(self.burst, level + (now - since) * self.rate)
            passes = level >= 1
            self._levels[peer] = (level - passes, now)
            if len(self._levels) > self._most:
                self._levels.popitem(last=False)
        return passes
