"""When to leave a failing server alone, and when to try it again."""

import random
import threading
from collections.abc import Callable

LONGEST_S = 8.0
"""Longest wait: however long a server was away, it is tried again within so many seconds of being back."""


class Breaker:
    """Closed while calls succeed; after a failure open for a time that doubles with every further one. Thread-safe.

    Calls that were under way together fail together: all but the first of them tell nothing new and do not count. After
    a failure of the *link* it is `doubted` until something has passed: then a probe, which costs nobody anything, is
    sent before an inference is risked.

    Parameters
    ----------
    clock : seconds. rng : spreads the waits of many devices, so that they do not all come back at once.
    first_s, longest_s : the first wait and the longest.
    """

    def __init__(
        self, clock: Callable[[], float], rng: random.Random, *, first_s: float = 0.2, longest_s: float = LONGEST_S
    ) -> None:
        self.clock, self.rng = clock, rng
        self.first_s, self.longest_s = first_s, longest_s
        self.failures = 0
        self._doubted = False
        self._until = self._failed_s = -float("inf")
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether a call may be tried now. After the wait, one failure is enough to wait again, twice as long."""
        return self.clock() >= self._until

    @property
    def doubted(self) -> bool:
        """Whether the link failed last, and nothing has passed since."""
        return self._doubted

    def succeeded(self) -> None:
        """Forget the failures."""
        with self._lock:
            self.failures, self._until, self._doubted = 0, -float("inf"), False

    def passed(self) -> None:
        """A probe was answered: the link is there. What the server does with an inference is not known by that."""
        with self._lock:
            self._doubted = False

    def failed(self, began_s: float | None = None, *, link: bool = False) -> None:
        """Wait: 1/2 to 1 of first_s * 2**(failures in a row).

        began_s : when the call was made, on the same clock; None: after the last failure.
        link : it was the link that failed, not the server.
        """
        with self._lock:
            self._doubted |= link
            if began_s is not None and began_s < self._failed_s:
                return
            wait = min(self.longest_s, self.first_s * 2.0 ** min(self.failures, 30))
            self.failures += 1
            self._failed_s = self.clock()
            self._until = self._failed_s + wait * self.rng.uniform(0.5, 1.0)
