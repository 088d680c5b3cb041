"""Who is connected to a front, and who has to go when there is no place left.

A connection costs a thread, so that there is a bound on them. Nobody may keep others out by holding connections: when
all places are taken, the newcomer gets that of a connection that has no request to be answered, from the address that
has most; where no address has more than the newcomer's own, of one that has been waited for long enough.
"""

import contextlib
import enum
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE_S = 1.0
"""How long an unfinished request is waited for where others wait for its place."""


class Stage(enum.IntEnum):
    """Where a connection is; the lower, the sooner it has to go. `STRANGER`: no request of it was answered yet."""

    STRANGER = 0
    IDLE = 1
    SENDING = 2
    ANSWERED = 3


@dataclass(kw_only=True, eq=False)
class Connection:
    """since : when its stage began. begun : whether a request has begun, which a server that ends waits for."""

    sock: socket.socket
    address: str
    since: float
    stage: Stage = Stage.STRANGER
    known: bool = False
    begun: bool = False
    thread: threading.Thread | None = None


class Connections:
    """The places of one front. Safe from any thread.

    most : connections at once. clock : seconds, rising.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._open: dict[Connection, None] = {}
        self._lock = threading.Lock()
        self._draining = False

    def entered(self, sock: socket.socket, address: str) -> Connection | None:
        """A place for a new connection, if need be that of another, which is shut; None where there is none."""
        made = Connection(sock=sock, address=address, since=self._clock())
        with self._lock:
            if self._draining:
                return None
            if len(self._open) >= self._most:
                if (gone := self._evicted(address)) is None:
                    return None
                del self._open[gone]
                shut(gone.sock)
            self._open[made] = None
        return made

    def left(self, one: Connection) -> None:
        """It is closed; perhaps because of us."""
        with self._lock:
            self._open.pop(one, None)

    def reached(self, one: Connection, stage: Stage) -> bool:
        """It goes on to a stage; False where it has lost its place meanwhile, or the server ends."""
        with self._lock:
            if one not in self._open:
                return False
            one.known |= one.stage is Stage.ANSWERED
            one.stage = stage if one.known or stage is Stage.ANSWERED else Stage.STRANGER
            one.begun = stage > Stage.IDLE
            one.since = self._clock()
            return not (self._draining and stage is Stage.SENDING)

    def drain(self, until: float) -> None:
        """Give no place any more, wait for what is being answered, then shut every connection."""
        with self._lock:
            self._draining = True
        while self._clock() < until:
            with self._lock:
                if not any(one.begun for one in self._open):
                    break
            time.sleep(0.005)
        with self._lock:
            still = list(self._open)
        for one in still:
            shut(one.sock)
            if one.thread is not None:
                one.thread.join(1.0)

    def _evicted(self, newcomer: str) -> Connection | None:
        """Whose place a newcomer gets."""
        counts = Counter(one.address for one in self._open)
        share = counts[newcomer] + 1
        now = self._clock()
        may_go = [
            one
            for one in self._open
            if one.stage is not Stage.ANSWERED
            and (
                counts[one.address] > share
                or (now - one.since >= PATIENCE_S and (one.stage is not Stage.SENDING or one.address == newcomer))
            )
        ]
        return min(may_go, key=lambda one: (-counts[one.address], one.stage, one.since), default=None)


def shut(sock: socket.socket) -> None:
    """End what a thread waits for on a socket, TLS or not; the thread closes it."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
