"""Asking every member of a placement what it holds."""

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import URLError

from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import Member, Placement
from runtime.chain.route import routes
from runtime.wire.transports import Transport, TransportError

_TIMEOUT_S = 1.0
_WAITING = re.compile(rb"^nas_waiting_requests(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


def overview(placement: Placement, identity: Identity) -> list[dict[str, Any]]:
    """One entry a member: name, address, stages it holds, round trip and queue in ms, requests waiting.

    A member that is not there has no round trip. The queue's length in time comes with an answer; the number of
    requests comes from the metrics address where one is given.
    """
    threads = ThreadPoolExecutor(max(1, len(placement.members)))
    with Neighbours(placement=placement, connect=lambda member: transport_of(member, identity)) as neighbours:
        try:
            return list(threads.map(lambda member: _row(placement, neighbours, member), placement.members))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _row(placement: Placement, neighbours: Neighbours, member: Member) -> dict[str, Any]:
    neighbours.look(member.name)  # opens the connection
    neighbours.look(member.name)
    neighbour = neighbours.by_name[member.name]
    stages = [] if neighbour.rtt_ms is None else _held(placement, member.name, neighbour.transport)
    return {
        "name": member.name, "address": member.address, "stages": stages, "rtt_ms": neighbour.rtt_ms,
        "queue_ms": None if neighbour.rtt_ms is None else _queue_ms(neighbour.transport),
        "waiting": _waiting(member.metrics),
    }  # fmt: skip


def _held(placement: Placement, name: str, transport: Transport) -> list[int]:
    held = []
    for index, stage in enumerate(placement.stages):
        if name not in stage.members:
            continue
        every = frozenset(member.name for member in placement.members)
        route = routes(placement, index, 0, every, name)
        if route is None:
            continue
        try:
            transport.describe(route.name, _TIMEOUT_S)
        except TransportError:
            continue
        held.append(index)
    return held


def _queue_ms(transport: Transport) -> float | None:
    """How long a member's queue is; None where it does not say, as servers that are not ours do not."""
    try:
        waiting_s = transport.probe(1, _TIMEOUT_S).waiting_s
    except TransportError:
        return None
    return None if waiting_s is None else 1e3 * waiting_s


def _waiting(url: str) -> float | None:
    """Requests in a member's queue, from its metrics."""
    if not url.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            match = _WAITING.search(answer.read(2**20))
    except (URLError, OSError, ValueError):
        return None
    return float(match[1]) if match else None
