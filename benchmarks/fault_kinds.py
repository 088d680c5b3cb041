"""The faults of `faults.py`, each as a context: broken inside, being mended after."""

import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from fault_world import Pulses, World

from runtime.link import Faults

Kind = Callable[[World, str, random.Random], AbstractContextManager[None]]

ENCRYPTED = ("grpcs", "https")


@contextlib.contextmanager
def _nothing(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
    yield


def _of_link(made: Callable[[random.Random], Faults]) -> Kind:
    """A fault of the link, for as long as it lasts."""

    @contextlib.contextmanager
    def kind(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
        world.links.fault(scheme, made(rng))
        yield
        world.links.heal(scheme)

    return kind


@contextlib.contextmanager
def _cut(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
    world.links.cut(scheme)
    yield


@contextlib.contextmanager
def _killed(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
    world.server.kill()
    yield
    world.server.start()


@contextlib.contextmanager
def _stopped(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
    world.server.signal(signal.SIGSTOP)
    yield
    world.server.signal(signal.SIGCONT)


@contextlib.contextmanager
def _slow(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
    pulses = Pulses(world.server, rng.uniform(0.05, 0.3), rng.uniform(0.005, 0.05))
    yield
    pulses.stop()


def _restarted(**how: object) -> Kind:
    """The server started otherwise; back to what it was after."""

    @contextlib.contextmanager
    def kind(world: World, scheme: str, rng: random.Random) -> Iterator[None]:
        world.server.kill()
        world.server.start(**how)  # type: ignore[arg-type]
        world.server.wait()
        yield
        world.server.kill()
        world.server.start()

    return kind


KINDS: dict[str, Kind] = {
    "none": _nothing,
    "server killed": _killed,
    "server stopped": _stopped,
    "server slow": _slow,
    "server busy": _restarted(words=("--max-queue=1", "--rate=3")),
    "connections cut": _cut,
    "black hole": _of_link(lambda rng: Faults(black_hole=True)),
    "bandwidth zero": _of_link(lambda rng: Faults(rate_mbps=0.0)),
    "bandwidth low": _of_link(lambda rng: Faults(rate_mbps=rng.uniform(0.05, 1.0))),
    "delay": _of_link(lambda rng: Faults(extra_ms=rng.uniform(20.0, 300.0))),
    "truncated": _of_link(lambda rng: Faults(truncate_bytes=rng.randrange(6000))),
    "bits flipped": _of_link(lambda rng: Faults(corrupt_share=rng.choice((0.02, 0.1, 0.5)))),
    "certificate expired": _restarted(certificate="expired"),
    "certificate for another host": _restarted(certificate="elsewhere"),
}
"""By name. The last two touch encrypted links only."""


def kinds_for(scheme: str) -> list[str]:
    """What can break there."""
    return [name for name in KINDS if name != "none" and (scheme in ENCRYPTED or not name.startswith("certificate"))]
