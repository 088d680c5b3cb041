"""A socket whose every wait ends at one moment, however the bytes drip.

A timeout of the standard library's sockets is one for each call: a peer that sends a byte a second holds the caller for
as long as it likes. Here a moment is set, and reading or writing past it raises TimeoutError.
"""

import io
import socket
import time
from collections.abc import Callable
from typing import Any


class PatientSocket:
    """What `http.client` and our REST front need of a socket.

    until : the moment, in seconds of `clock`; may be moved.
    """

    def __init__(self, sock: socket.socket, until: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.sock, self.until, self._clock = sock, until, clock
        self.sent_bytes = self.received_bytes = 0

    def time_left(self) -> socket.socket:
        """The socket, with the time that is left as its timeout.

        Raises
        ------
        TimeoutError : none is left.
        """
        if (left := self.until - self._clock()) <= 0:
            raise TimeoutError("the time for this request is over")
        self.sock.settimeout(left)
        return self.sock

    def sendall(self, data: bytes) -> None:
        """Send all of it before the moment."""
        self.time_left().sendall(data)
        self.sent_bytes += len(data)

    def recv(self, most: int) -> bytes:
        """So many bytes at most, once there are some; none where the other end has closed."""
        data = self.time_left().recv(most)
        self.received_bytes += len(data)
        return data

    def recv_into(self, buffer: Any) -> int:
        """As `recv`, into a buffer; how many bytes."""
        count = self.time_left().recv_into(buffer)
        self.received_bytes += count
        return count

    def makefile(self, mode: str = "rb", _buffering: int = -1) -> io.BufferedReader:
        """A reader that keeps to the moment."""
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Nothing: `http.client` calls this while an answer is still being read. See `shut`."""

    def shut(self) -> None:
        """Really close it."""
        self.sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, patient: PatientSocket) -> None:
        self._patient = patient

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._patient.recv_into(buffer)
