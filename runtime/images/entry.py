"""A picture that came as a file and may be sent as it is: nobody decodes it before somebody needs its pixels."""

import threading
from collections.abc import Callable

import numpy as np


class Entry:
    """What enters a network, decoded once, when it is first asked for; several threads may ask.

    file : the JPEG or WebP file. read : makes of it what the network takes, (1, *shape), and pixels, (c, h, w) uint8.
    """

    def __init__(self, file: bytes, read: Callable[[], tuple[np.ndarray, np.ndarray | None]]) -> None:
        self.file, self._read = file, read
        self._lock = threading.Lock()
        self._known: tuple[np.ndarray, np.ndarray | None] | None = None

    @property
    def x(self) -> np.ndarray:
        """(1, *shape) float32.

        Raises
        ------
        DataError : it cannot be read.
        """
        return self._decoded()[0]

    @property
    def pixels(self) -> np.ndarray | None:
        """(c, h, w) uint8; None where the network takes no pictures."""
        return self._decoded()[1]

    def _decoded(self) -> tuple[np.ndarray, np.ndarray | None]:
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known


def tensor_of(x: np.ndarray | Entry) -> np.ndarray:
    """(1, *shape) as an array."""
    return x.x if isinstance(x, Entry) else x
