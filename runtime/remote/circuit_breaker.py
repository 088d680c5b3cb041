"""When to leave a failing server alone, and when to try it again."""

import random
import threading
from collections.abc import Callable


class Breaker:
    """Closed while calls succeed; after a failure open for a time that doubles with every further one. Thread-safe.

    Calls that were under way together fail together: all but the first of them tell nothing new and do not count.

    Parameters
    ----------
    clock : seconds. rng : spreads the waits of many devices, so that they do not all come back at once.
    first_s, longest_s : the first wait and the longest.
    """

    def __init__(
        self, clock: Callable[[], float], rng: random.Random, *, first_s: float = 0.2, longest_s: float = 30.0
    ) -> None:
        self.clock, self.rng = clock, rng
        self.first_s, self.longest_s = first_s, longest_s
        self.failures = 0
        self._until = self._failed_s = -float("inf")
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether a call may be tried now. After the wait, one failure is enough to wait again, twice as long."""
        return self.clock() >= self._until

    def succeeded(self) -> None:
        """Forget the failures."""
        with self._lock:
            self.failures, self._until = 0, -float("inf")

    def failed(self, began_s: float | None = None) -> None:
        """Wait: 1/2 to 1 of first_s * 2**(failures in a row).

        began_s : when the call was made, on the same clock; None: after the last failure.
        """
        with self._lock:
            if began_s is not None and began_s < self._failed_s:
                return
            wait = min(self.longest_s, self.first_s * 2.0 ** min(self.failures, 30))
            self.failures += 1
            self._failed_s = self.clock()
            self._until = self._failed_s + wait * self.rng.uniform(0.5, 1.0)
