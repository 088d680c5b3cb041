"""Time that the device keeps for tasks that the server has: each can still be answered here if no answer comes.

A task that is handed over keeps a place here until it ends. The last moment at which the device must begin it follows
from all places together, latest deadline first:

    L_i = min(L_(i+1), until_i) - alone_i

At L_1 the earliest of them is due, whatever the device is busy with [earliest deadline first with slack].
"""

import math
import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

_NEWEST = 0.1
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Place(Generic[_T]):
    item: _T
    until_s: float
    alone_s: float


class Reserve(Generic[_T]):
    """Safe from any thread; an item leaves it once, by `claim` or by being due."""

    def __init__(self) -> None:
        self._places: dict[int, _Place[_T]] = {}
        self._lock = threading.Lock()
        self._failing = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, item: _T, until_s: float, alone_s: float) -> None:
        """Keep a place: the item must be done by then, and takes so long on the device alone."""
        with self._lock:
            self._places[id(item)] = _Place(item=item, until_s=until_s, alone_s=alone_s)

    def claim(self, item: _T, *, answered: bool) -> bool:
        """Give a place up, because the server answered or because the device begins it; False where it has none."""
        with self._lock:
            place = self._places.pop(id(item), None)
            if place is not None:
                self._note(not answered)
            return place is not None

    def due(self, now_s: float, next_s: float = 0.0) -> _T | None:
        """The item that the device must begin now; None while there is time for something else of `next_s` seconds."""
        with self._lock:
            if not self._places or now_s + next_s <= self._latest_s():
                return None
            first = min(self._places.values(), key=lambda place: place.until_s)
            del self._places[id(first.item)]
            self._note(True)
            return first.item

    def wait_s(self, now_s: float) -> float:
        """Seconds until something is due; infinity where nothing is kept."""
        with self._lock:
            return max(0.0, self._latest_s() - now_s)

    @property
    def expected_s(self) -> float:
        """What the device is likely to spend on what is kept: its time, times the share that failed of late."""
        with self._lock:
            return self._failing * math.fsum(place.alone_s for place in self._places.values())

    def _latest_s(self) -> float:
        latest_s = math.inf
        for place in sorted(self._places.values(), key=lambda place: -place.until_s):
            latest_s = min(latest_s, place.until_s) - place.alone_s
        return latest_s

    def _note(self, failed: bool) -> None:
        self._failing += _NEWEST * (failed - self._failing)
