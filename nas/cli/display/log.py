"""What long work prints where there is no terminal: a line every ten seconds with stage, done, total and time left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nas.jobs.progress import StageProgress

EVERY_S = 10.0
_HOUR_S, _MINUTE_S = 3600, 60


@dataclass
class _Stage:
    title: str
    began_s: float
    done: int = 0
    total: int = 0
    text: str = ""


class ProgressLog:
    """The stage at hand, as lines. Safe from any thread.

    titles : stage -> what it is called. write : takes a line. clock : seconds.
    """

    def __init__(self, titles: dict[str, str], write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._titles, self._write, self._clock = titles, write, clock
        self._lock = threading.Lock()
        self._stage: _Stage | None = None

    def progress(self, stage: str, done: int, total: int, text: str) -> None:
        """Take note; a stage that begins is a line of its own, and so is the end of the one before."""
        with self._lock:
            title = self._titles.get(stage, stage)
            again = self._stage is not None and done < self._stage.done  # the next of several alike
            if self._stage is None or self._stage.title != title or again:
                self._line()
                self._stage = _Stage(title, self._clock())
            begins = not self._stage.total
            self._stage.done, self._stage.total, self._stage.text = done, total, text
            if begins:
                self._line()

    def line(self) -> None:
        """Print where things stand; nothing before the first stage."""
        with self._lock:
            self._line()

    def _line(self) -> None:
        if self._stage is not None:
            self._write(_line(self._stage, self._clock()))


def _line(stage: _Stage, now_s: float) -> str:
    spent_s = now_s - stage.began_s
    words = [f"{stage.title}: {stage.done} of {stage.total}" if stage.total else stage.title, stage.text]
    words.append(f"{duration(spent_s)} so far")
    if 0 < stage.done < stage.total:
        words.append(f"about {duration(spent_s * (stage.total - stage.done) / stage.done)} left")
    return ", ".join(word for word in words if word)


def duration(seconds: float) -> str:
    """12 s, 3:05 min, 1:02 h."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}:{whole % _MINUTE_S:02} min"
    return f"{whole // _HOUR_S}:{whole % _HOUR_S // _MINUTE_S:02} h"


@contextlib.contextmanager
def logged(
    titles: dict[str, str], write: Callable[[str], None], *, every_s: float = EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[StageProgress]:  # fmt: skip
    """A callback (stage, done, total, text); a thread prints a line every `every_s` s, however rarely it is called."""
    log, over = ProgressLog(titles, write, clock), threading.Event()

    def tell() -> None:
        while not over.wait(every_s):
            log.line()

    thread = threading.Thread(target=tell, name="progress log", daemon=True)
    thread.start()
    try:
        yield log.progress
    finally:
        over.set()
        thread.join(timeout=every_s)
        log.line()
