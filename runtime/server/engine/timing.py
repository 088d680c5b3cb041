"""How long a model takes for each batch size it was compiled for, and which size is best now.

Nothing here is assumed: whether a batch of eight is faster than eight single images depends on the block and on the
machine, and is decided by what was measured. Two times are kept: what a caller waits (`seconds`), which says whether a
deadline can be kept, and the processor's time (`work`), which says what is worth more. Under load the first also holds
what the fronts take meanwhile, and would make a batch that is filled up with zeros look cheap.
"""

from collections.abc import Sequence

_SHARE = 0.2
"""Weight of the newest time in the running mean."""
_LOOK_EVERY = 50
"""Every so many choices another size is tried, since the machine may have changed; a size never chosen is never
measured."""


class ServiceTimes:
    """Running means of seconds by batch size. Not thread safe: the queue's lock guards it."""

    def __init__(self, batches: Sequence[int]) -> None:
        self.batches = tuple(sorted(set(batches)))
        self.fastest_s = 0.0
        self._seconds: dict[int, float] = {}
        self._work: dict[int, float] = {}
        self._measured_at = dict.fromkeys(self.batches, 0)
        self._notes = self._choices = 0

    def note(self, batch: int, seconds: float, work: float | None = None) -> None:
        """A library of this batch took so long, and so much of the processor's time; None where only one is known."""
        self._notes += 1
        for means, value in ((self._seconds, seconds), (self._work, seconds if work is None else work)):
            before = means.get(batch)
            means[batch] = value if before is None else before + _SHARE * (value - before)
        self._measured_at[batch] = self._notes
        self.fastest_s = min(self.fastest_s or seconds, seconds)

    @property
    def quickest_s(self) -> float:
        """Of the batch size that is done soonest; 0 before anything was measured."""
        return min(self._seconds.values(), default=0.0)

    def expected_s(self, images: int) -> float:
        """For so many images one batch after the other, in the best way known; 0 before anything was measured."""
        if not self._seconds:
            return 0.0
        return images * min(seconds / min(batch, max(images, 1)) for batch, seconds in self._seconds.items())

    def chosen(self, slack_s: Sequence[float]) -> int:
        """The batch size to run now.

        Parameters
        ----------
        slack_s : for each waiting image in turn, how long its request can still wait.

        Returns
        -------
        The size with the least work an image (one that is not full counts its images alone) among those that take
        no longer than any member can wait; the quickest where none is quick enough.
        """
        if not self._seconds:
            return self.batches[0]
        fits = {batch: seconds for batch, seconds in self._seconds.items()
                if seconds <= min(slack_s[: min(batch, len(slack_s))])}  # fmt: skip
        if not fits:
            return min(self._seconds, key=lambda batch: (self._seconds[batch], batch))
        self._choices += 1
        if self._choices % _LOOK_EVERY == 0 and (full := [batch for batch in fits if batch <= len(slack_s)]):
            return min(full, key=lambda batch: self._measured_at[batch])
        return min(fits, key=lambda batch: (self._work[batch] / min(batch, len(slack_s)), batch))
