"""Going by a placement file as it changes: members that join are known, those that are gone are forgotten."""

import logging
import threading
from pathlib import Path

from modeltree.errors import NasError
from runtime.chain.neighbours import Neighbours
from runtime.chain.placement_file import read_placement

_log = logging.getLogger(__name__)


class FileWatch:
    """Looks at the file from its making to `stop`; what is no placement is logged, and the one before stays."""

    def __init__(self, path: Path, neighbours: Neighbours, *, every_s: float = 1.0) -> None:
        self._path, self._neighbours, self._every_s = path, neighbours, every_s
        self._seen = self._mark()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nas-placement", daemon=True)
        self._thread.start()

    def look(self) -> bool:
        """Take the file over if it has changed; whether a new placement was taken."""
        mark = self._mark()
        if mark == self._seen or mark is None:
            return False
        self._seen = mark
        try:
            self._neighbours.take(read_placement(self._path))
        except NasError as error:
            _log.error("the placement stays as it was: %s", error)
            return False
        _log.info("%s took over", self._path)
        return True

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(5.0)
