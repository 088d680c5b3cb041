"""What became of a task, and what the server told of its queue."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modeltree.units import ms_from_s

_NEWEST = 0.1
_FIRST_DEVIATION_MS, _LEAST_MARGIN_MS = 2.0, 2.0


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Every task has one, whatever happened. Times are seconds of the stream's clock; 0 where it did not come to that.

    outputs : (images, classes) logits; None where the task was not run, or given up when it could only be late.
    action : of the table, as it was answered at last. answered_by : `device`, `server` or `nobody`. why : in words.
    in_time : whether there is an answer, and before the deadline. gain : eq. 1's, 0 for what is not in time.
    arrived_s, began_s, computed_s, sent_s, ended_s : arrival, first and last block here, hand-over, end.
    server_s : the server's own time, waiting there included. retried : it failed first.
    """

    outputs: np.ndarray | None
    action: int
    images: int
    deadline_ms: float
    answered_by: str
    why: str
    in_time: bool
    gain: float
    arrived_s: float
    began_s: float = 0.0
    computed_s: float = 0.0
    sent_s: float = 0.0
    ended_s: float = 0.0
    server_s: float = 0.0
    retried: bool = False


class ServerQueue:
    """How long a server's queue is, as it said last, less the time since. Safe from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting_s, self._at_s = 0.0, clock()

    def told(self, waiting_s: float | None) -> None:
        """It said so just now; None where it does not say."""
        if waiting_s is not None:
            with self._lock:
                self._waiting_s, self._at_s = waiting_s, self._clock()

    def wait_ms(self) -> float:
        """What is left of it."""
        with self._lock:
            return ms_from_s(max(0.0, self._waiting_s - (self._clock() - self._at_s)))


class Overrun:
    """By how much tasks take longer than was foreseen: a running mean and its deviation, as TCP reckons [RFC 6298].

    What a planner is told of a deadline is less this, so that what it begins is in time almost surely.
    """

    def __init__(self) -> None:
        self._mean_ms, self._deviation_ms = 0.0, _FIRST_DEVIATION_MS

    def note(self, over_ms: float) -> None:
        """A task was answered so much later than foreseen; negative: sooner."""
        away_ms = over_ms - self._mean_ms
        self._mean_ms += _NEWEST * away_ms
        self._deviation_ms += _NEWEST * (abs(away_ms) - self._deviation_ms)

    @property
    def margin_ms(self) -> float:
        """What to keep free in front of a deadline."""
        return max(_LEAST_MARGIN_MS, self._mean_ms + 2 * self._deviation_ms)
