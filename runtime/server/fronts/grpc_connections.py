"""Who is connected to the gRPC front, and who has to go when its places run out.

grpcio accepts by itself and tells of a connection only when it makes a call. So where many files are open, the sockets
of this process are looked through: those on the front's port that have made no call yet lose their places, of the
address that has most first. Only Linux lists them (`/proc/self/fd`); elsewhere nobody has to go before the handshake's
time is over.
"""

import contextlib
import ipaddress
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from runtime.server.fronts.connections import PATIENCE_S, shut

Peer = tuple[str, int]
"""Address and port of the other end."""
_LOOK_S = 0.25
_FILES = Path("/proc/self/fd")
_KNOWN = 4


class GrpcConnections:
    """Keeps half of a front's places free of connections that make no call. Safe from any thread.

    port : the front's. most : its places. clock : seconds, rising.
    """

    def __init__(self, port: int, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._port, self._most, self._clock = port, most, clock
        self._known: dict[str, None] = {}
        self._since: dict[Peer, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nas-grpc-connections", daemon=True)

    def called(self, peer: str) -> None:
        """A connection has made a call that was let in. peer : as gRPC calls it."""
        self._known[peer] = None
        while len(self._known) > _KNOWN * self._most:
            with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread was first
                self._known.pop(next(iter(self._known)))

    def start(self) -> None:
        """Look from now on."""
        if _FILES.is_dir():
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self) -> None:
        """Shut connections without a call until no more than half of the places are taken.

        Who has more than an even share goes at once, others when they have been here for `PATIENCE_S`; the oldest
        first.
        """
        spare = self._most // 2
        if len(os.listdir(_FILES)) <= spare:
            self._since.clear()
            return
        with contextlib.ExitStack() as held:
            here = {peer: held.enter_context(sock) for peer, sock in _connections(self._port)}
            now, counts = self._clock(), Counter(address for address, _ in here)
            self._since = {peer: self._since.get(peer, now) for peer in here}
            known = {_peer(name) for name in list(self._known)}
            strangers = sorted((one for one in here if one not in known), key=lambda one: self._since[one])
            share = max(1.0, spare / max(len(counts), 1))
            for _ in range(len(here) - spare):
                may_go = (one for one in strangers if counts[one[0]] > share or now - self._since[one] >= PATIENCE_S)
                if (gone := max(may_go, key=lambda one: counts[one[0]], default=None)) is None:
                    return
                shut(here[gone])
                strangers.remove(gone)
                counts[gone[0]] -= 1

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            self.look()


def _connections(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """Peers connected to a port of this process, each with a file of its own for the socket, which the caller closes.

    What is looked at is a copy of the file, so that nobody can close it, and open another under its number, meanwhile.
    """
    for name in os.listdir(_FILES):
        try:
            if not os.readlink(_FILES / name).startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed meanwhile
            continue
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == port:
                address, number = sock.getpeername()[:2]
                yield (_plain(address), number), sock
                continue
        except OSError:  # it listens, or has gone
            pass
        sock.close()


def _peer(name: str) -> Peer:
    """The other end of a call: `ipv4:10.0.0.7:5012` or `ipv6:%5B::1%5D:5012`."""
    address, _, number = unquote(name.partition(":")[2]).rpartition(":")
    return _plain(address.strip("[]")), int(number) if number.isdecimal() else 0


def _plain(address: str) -> str:
    """An address in one form, whichever family's socket it came through."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)
