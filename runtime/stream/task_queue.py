"""The device's queue: first come first served, or earliest deadline first."""

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from modeltree.errors import unknown

ORDERS = ("fcfs", "edf")
_T = TypeVar("_T")


class TaskQueue(Generic[_T]):
    """Safe from any thread. order : one of `ORDERS`."""

    def __init__(self, order: str = "fcfs") -> None:
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        self._by_deadline = order == "edf"
        self._heap: list[tuple[float, int, float, _T]] = []  # (rank, number, seconds, what)
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, item: _T, until_s: float, takes_s: float, *, first: bool = False) -> None:
        """Add what must be done by a time and takes so long; `first` goes in front of what is not."""
        rank = float("-inf") if first else until_s if self._by_deadline else 0.0
        with self._changed:
            heapq.heappush(self._heap, (rank, next(self._numbers), takes_s, item))
            self._changed.notify()

    def take(self, look_s: float, due: Callable[[], tuple[_T | None, float]] | None = None) -> _T | None:
        """The next, waiting for it; None when the queue is closed.

        due : something from elsewhere that goes first, and the seconds until there may be some.
        """
        with self._changed:
            while True:
                item, wait_s = (None, look_s) if due is None else due()
                if item is not None:
                    return item
                if self._heap:
                    return heapq.heappop(self._heap)[3]
                if self._closed:
                    return None
                self._changed.wait(min(look_s, wait_s))

    def before_s(self, until_s: float) -> float:
        """How long what is taken before something with this deadline takes."""
        with self._changed:
            return sum(takes for rank, _, takes, _ in self._heap if not self._by_deadline or rank <= until_s)

    def close(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
