"""Sending what is left of an inference to the next member, another way where one fails: device and members alike.

The feature map stays with the sender until an answer is there. A sender waits for the next member as long as the stages
behind it are expected to take, several times over and once for every hop, since each of those may send another way too;
so the one nearest to a failure notices it first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modeltree.errors import NasError
from runtime.chain.neighbours import Neighbours
from runtime.chain.placement_file import Placement
from runtime.chain.route import Route, routes
from runtime.wire.transports import BusyError, TimedOut, TransportError

LEAST_PATIENCE_S = 0.25
_TIMES = 4.0
_NO_DEADLINE_S = 60.0


class NobodyLeft(NasError):
    """No member can take what is left of an inference in time; says what came of those that were asked."""


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """An answer: (n, classes). first : the member that was asked last; attempts : how many were."""

    output: np.ndarray
    first: str
    attempts: int
    seconds: float


Note = Callable[[str, str, float], None]
"""Told of every call: to whom, how it ended in a word, seconds."""


def patience_s(placement: Placement, stage: int) -> float:
    """How long to wait for the member of a stage."""
    hops = len(placement.stages) - stage
    slowest = max(one.expected_ms for one in placement.stages[stage:])
    return hops * max(LEAST_PATIENCE_S, _TIMES * slowest / 1e3)


def forward(
    neighbours: Neighbours, wanted: Route, x: np.ndarray, *, classes: tuple[int, ...] | None, until: float,
    clock: Callable[[], float] = time.monotonic, note: Note = lambda to, how, seconds: None,
    bits: int | None = None,
) -> Forwarded:  # fmt: skip
    """Have what is left of an inference done by the members.

    Parameters
    ----------
    wanted : the route to begin with; where its members fail, others of the placement take their stages.
    x : (n, ...), the feature map that the first stage of the route takes; kept until there is an answer.
    classes : shape of one image's answer, where known.
    until : a moment of the clock, infinite for none.

    Raises
    ------
    NobodyLeft : nobody answered.
    """
    placement, began, tried = neighbours.placement, clock(), []
    route: Route | None = wanted
    failed: set[str] = set()
    while route is not None:
        first, started = route.members[0], clock()
        timeout_s = min(until - started, patience_s(placement, route.stage), _NO_DEADLINE_S)
        if timeout_s <= 0:
            tried.append("the deadline is over")
            break
        try:
            reply = neighbours.transport(first).infer(
                route.name, x, bits=placement.bits if bits is None else bits, timeout_s=timeout_s, shape_out=classes
            )
        except TransportError as error:
            tried.append(f"{first}: {error}")
            note(first, type(error).__name__.lower(), clock() - started)
            if not isinstance(error, BusyError) and not (isinstance(error, TimedOut) and started + timeout_s >= until):
                neighbours.failed(first, started)
            failed.add(first)
            left = wanted.retries - len(failed)
            route = None if left < 0 else routes(placement, wanted.stage, left, neighbours.healthy - failed)
            continue
        except KeyError:  # a member that a newer placement no longer has
            failed.add(first)
            route = routes(placement, wanted.stage, max(wanted.retries - 1, 0), neighbours.healthy - failed)
            continue
        neighbours.worked(first)
        note(first, "ok", clock() - started)
        return Forwarded(output=reply.output, first=first, attempts=len(failed) + 1, seconds=clock() - began)
    raise NobodyLeft(f"nobody can go on from stage {wanted.stage}: {'; '.join(tried)[:400] or 'no member is healthy'}")
