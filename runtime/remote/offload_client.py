"""The cloud as a session sees it: asked in threads of its own, given up in time, left alone after failures.

Whatever a call ends with goes where it is of use: its bytes and seconds to the link's watcher, success or failure to
the breaker, the server's own time into what the next call is expected to take.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import numpy as np

from modeltree.errors import NasError
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.workers import Workers
from runtime.selection.reweighing import LATE
from runtime.wire.pictures import PictureToSend
from runtime.wire.transports.interface import Exchange, Reply, TimedOut, Transport, Unreachable

CALLS_IN_FLIGHT = 4
"""Calls whose end nobody waits for any more may linger; with so many of them the server is not asked."""

_SHARE = 0.2
_HURRIED = 4
"""So many urgent calls in a row that ran out of time count as a failure."""


class Link(Protocol):
    """What is asked of the link's watcher (`runtime.remote.link_monitor.LinkWatch`)."""

    def bandwidth_type(self) -> tuple[int, float]:
        """The bandwidth type now, and the estimate in Mbit/s behind it."""

    def observe(self, exchange: Exchange, *, finished: bool = True) -> None:
        """A hand-over, or (not `finished`) one that was given up."""

    def expected_s(self, size_bytes: int) -> float | None:
        """Seconds that so many bytes should take, the round trip included; None while nothing is known."""


class Served(NamedTuple):
    """The server's own time for a model, a running mean, and how long ago it last answered."""

    seconds: float
    age_s: float


class Call:
    """A hand-over under way."""

    def __init__(self, model: str, size_bytes: int, began_s: float) -> None:
        self.model, self.size_bytes, self.began_s = model, size_bytes, began_s
        self.future: Future[Reply]
        self.urgent = False
        self.settled = False
        self.overdue = False


class Cloud:
    """A server behind a transport.

    Parameters
    ----------
    probed : a `Prober` tries the link while it is idle; after the link failed, a probe must pass before an inference is
        risked on it again.
    clock : seconds, rising.
    """

    def __init__(
        self, transport: Transport, link: Link, breaker: Breaker, clock: Callable[[], float], *, probed: bool = False
    ) -> None:
        self.transport, self.link, self.breaker, self.clock = transport, link, breaker, clock
        self.probed = probed
        self._server_s: dict[str, float] = {}
        self._served_s: dict[str, float] = {}  # when a model last answered
        self._coding_s: dict[str, float] = {}  # what is sent to a model
        self._usual_s: dict[str, float] = {}  # from coding to the answer, of calls that were answered
        self._threads = Workers(CALLS_IN_FLIGHT, "nas-handover")
        self._in_flight: set[Call] = set()
        self._lock = threading.Lock()
        self._hurried = 0
        self._came_late = False

    def why_not(self) -> str | None:
        """Why it is not asked just now; None where it may be."""
        if not self.breaker.closed:
            return f"the server failed {self.breaker.failures} times in a row and is left alone for a while"
        if self.breaker.doubted and self.probed:
            return "the link failed, and no probe has passed since"
        if self.calls >= CALLS_IN_FLIGHT:
            return f"{CALLS_IN_FLIGHT} calls to the server are still unanswered"
        with self._lock:
            if any(call.overdue for call in self._in_flight):
                return "an answer of the server is overdue"
        return None

    @property
    def calls(self) -> int:
        """How many are under way."""
        with self._lock:
            self._in_flight = {call for call in self._in_flight if not call.future.done()}
            return len(self._in_flight)

    def expected_s(self, model: str, size_bytes: int) -> float | None:
        """Seconds until an answer should be there; None while the link or the model is not known."""
        link_s, server_s = self.link.expected_s(size_bytes), self._server_s.get(model)
        return None if link_s is None or server_s is None else self._coding_s.get(model, 0.0) + link_s + server_s

    def served(self, model: str) -> Served | None:
        """What a model takes there; None where it never answered."""
        with self._lock:
            if model not in self._served_s:
                return None
            return Served(self._server_s[model], max(0.0, self.clock() - self._served_s[model]))

    def ask(
        self, model: str, x: np.ndarray | PictureToSend, *, bits: int, timeout_s: float, shape_out: tuple[int, ...],
        urgent: bool = False, coding_s: float = 0.0,
    ) -> Call:  # fmt: skip
        """Begin a hand-over; `Call.future` brings the reply or a `NasError`.

        x : (1, *shape) what crosses, float32.

        urgent : the time is what a deadline leaves, so that one that runs out is nobody's fault; several in a row are.
        coding_s : that coding takes at least, where a slower device is played.

        Raises
        ------
        Closed : this was closed, or the machine has no thread left.
        """
        size_bytes = x.likely_bytes if isinstance(x, PictureToSend) else x.size * bits // 8
        call = Call(model, max(1, size_bytes), self.clock())
        call.urgent = urgent
        call.future = self._threads.submit(self._run, call, x, bits, timeout_s, shape_out, coding_s)
        with self._lock:
            self._in_flight.add(call)
        return call

    def overdue(self, call: Call) -> None:
        """It should have been answered: until it is, or is given up, the server is not asked again."""
        with self._lock:
            call.overdue = True

    def answered_late(self) -> bool:
        """Whether an overdue answer has come since this was last asked: its time was the outage's, which is over."""
        with self._lock:
            came, self._came_late = self._came_late, False
            return came

    def give_up(self, call: Call) -> None:
        """Nobody waits for it any more; that is the server's or the link's fault, unless there was too little time."""
        self._settle(call, None, TimedOut("given up"))

    def close(self) -> None:
        """Close the connection; calls in flight are not waited for."""
        self._threads.close()
        self.transport.close()

    def _run(
        self, call: Call, x: np.ndarray | PictureToSend, bits: int, timeout_s: float, shape_out: tuple[int, ...],
        coding_s: float,
    ) -> Reply:  # fmt: skip
        try:
            reply = self.transport.infer(
                call.model, x, bits=bits, timeout_s=timeout_s, shape_out=shape_out, coding_s=coding_s
            )
        except NasError as error:
            self._settle(call, None, error)
            raise
        except Exception as error:
            self._settle(call, None, NasError(str(error)))
            raise NasError(f"the call failed: {type(error).__name__}: {error}") from error
        self._settle(call, reply, None)
        return reply

    def _settle(self, call: Call, reply: Reply | None, error: NasError | None) -> None:
        """Note how a call ended, once."""
        with self._lock:
            if call.settled:
                return
            call.settled = True
        if reply is not None:
            with self._lock:
                self._came_late |= call.overdue
                self._served_s[call.model] = self.clock()
                for means, new_s in (
                    (self._server_s, reply.server_s), (self._coding_s, reply.encode_s),
                    (self._usual_s, reply.encode_s + reply.seconds),
                ):  # fmt: skip
                    before_s = means.get(call.model, new_s)
                    means[call.model] = before_s + _SHARE * (new_s - before_s)
            self.breaker.succeeded()
            self._hurried = 0
            self.link.observe(reply)
            return
        spent_s = self.clock() - call.began_s
        if isinstance(error, TimedOut):
            given_up = Exchange(sent_bytes=call.size_bytes, received_bytes=0, seconds=spent_s, server_s=0.0)
            self.link.observe(given_up, finished=False)
            self._hurried += call.urgent
            if spent_s < LATE * self._usual_s.get(call.model, 0.0) or (call.urgent and self._hurried % _HURRIED):
                return  # the deadline was near, and nobody failed
        self.breaker.failed(call.began_s, link=isinstance(error, TimedOut | Unreachable))
