"""The members as somebody sees them who asks them: open connections, who is healthy, round trips."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.chain.placement_file import Member, Placement
from runtime.remote.circuit_breaker import Breaker
from runtime.wire.transports import Transport, TransportError, open_transport

PROBE_TIMEOUT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who we are to the members, and whom we trust: see `open_transport`."""

    token: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def transport_of(member: Member, identity: Identity) -> Transport:
    """A connection to a member; certificates go only where the address is encrypted."""
    if member.address.startswith(("grpcs:", "https:")):
        return open_transport(
            member.address, token=identity.token, ca=identity.ca, certificate=identity.certificate, key=identity.key
        )
    return open_transport(member.address, token=identity.token)


@dataclass(kw_only=True)
class Neighbour:
    """One member. rtt_ms : of the last probe that was answered, None before."""

    member: Member
    transport: Transport
    breaker: Breaker
    rtt_ms: float | None = None


@dataclass(kw_only=True)
class Neighbours:
    """All members of a placement but oneself. Thread-safe. A context manager.

    connect : makes the connection to a member.
    every_s : between two looks at each; 0: nobody is looked at, and health comes from calls alone.
    """

    placement: Placement
    connect: Callable[[Member], Transport]
    own_name: str = ""
    every_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self._seen: dict[str, Neighbour] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.take(self.placement)
        self._looker: threading.Thread | None = None
        if self.every_s > 0:
            self._looker = threading.Thread(target=self._look, name="nas-chain-health", daemon=True)
            self._looker.start()

    def take(self, placement: Placement) -> None:
        """Go by another placement: new members are known from now on, those that are gone are forgotten."""
        with self._lock:
            wanted = {member.name: member for member in placement.members if member.name != self.own_name}
            gone = [name for name, neighbour in self._seen.items() if wanted.get(name) != neighbour.member]
            closed = [self._seen.pop(name) for name in gone]
            for name, member in wanted.items():
                if name not in self._seen:
                    breaker = Breaker(self.clock, self.rng, first_s=0.5, longest_s=2.0)
                    self._seen[name] = Neighbour(member=member, transport=self.connect(member), breaker=breaker)
            self.placement = placement
        for neighbour in closed:
            neighbour.transport.close()

    @property
    def healthy(self) -> frozenset[str]:
        """Members that may be asked now."""
        with self._lock:
            return frozenset(name for name, neighbour in self._seen.items() if neighbour.breaker.closed)

    @property
    def by_name(self) -> Mapping[str, Neighbour]:
        """All of them."""
        with self._lock:
            return dict(self._seen)

    def transport(self, name: str) -> Transport:
        """The connection to a member."""
        with self._lock:
            return self._seen[name].transport

    def worked(self, name: str) -> None:
        """A member answered."""
        if (neighbour := self.by_name.get(name)) is not None:
            neighbour.breaker.succeeded()

    def failed(self, name: str, began_s: float) -> None:
        """A call to a member that began at that time was in vain."""
        if (neighbour := self.by_name.get(name)) is not None:
            neighbour.breaker.failed(began_s)

    def look(self, name: str) -> None:
        """Probe one member; its health and its round trip follow."""
        neighbour = self.by_name.get(name)
        if neighbour is None:
            return
        began = self.clock()
        try:
            ready = neighbour.transport.ready(PROBE_TIMEOUT_S)
        except TransportError:
            ready = False
        if ready:
            neighbour.rtt_ms = (self.clock() - began) * 1e3
            neighbour.breaker.succeeded()
        else:
            neighbour.breaker.failed(began)

    def _look(self) -> None:
        while not self._stop.wait(self.every_s):
            lookers = [threading.Thread(target=self.look, args=(name,), daemon=True) for name in self.by_name]
            for looker in lookers:
                looker.start()
            for looker in lookers:
                looker.join(2 * PROBE_TIMEOUT_S)

    def close(self) -> None:
        """Close every connection."""
        self._stop.set()
        if self._looker is not None:
            self._looker.join(2.0)
        for neighbour in self.by_name.values():
            neighbour.transport.close()

    def __enter__(self) -> "Neighbours":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
