"""Calls of gRPC whose message has not arrived yet: each holds a thread, so none may do so for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from runtime.server.fronts.connections import PATIENCE_S

_LOOK_S = 0.25


class Cancellable(Protocol):
    """A call, as its handler holds it."""

    def cancel(self) -> object:
        """End it."""
        ...


class Arrivals:
    """Cancels calls that keep a thread waiting. Safe from any thread; a thread of its own looks from `start` to `stop`.

    busy_from : from so many waiting calls on each has `PATIENCE_S`, else `read_s`. clock : seconds, rising.
    """

    def __init__(self, busy_from: int, read_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._busy_from, self._read_s, self._clock = busy_from, read_s, clock
        self._since: dict[Cancellable, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nas-arrivals", daemon=True)

    @contextmanager
    def waiting(self, call: Cancellable) -> Iterator[None]:
        """While a thread waits for what a call has to say."""
        self._since[call] = self._clock()
        try:
            yield
        finally:
            del self._since[call]

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self) -> None:
        """Cancel whoever has kept a thread for too long."""
        waiting = list(self._since.items())
        patience_s = min(PATIENCE_S, self._read_s) if len(waiting) >= self._busy_from else self._read_s
        now = self._clock()
        for call, since in waiting:
            if now - since >= patience_s:
                call.cancel()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            self.look()
