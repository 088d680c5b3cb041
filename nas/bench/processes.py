"""A process that holds one object, answers calls to it, and is stopped while nobody waits for an answer.

Engines keep thread pools that spin for a while after a call, and a spinning thread on another's core is a disturbed
measurement. So every engine lives in a process of its own, which is sent SIGSTOP as soon as it has answered.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from modeltree.errors import NasError

_PR_SET_PDEATHSIG = 1


class Child:
    """`make(*arguments)` in a new process. Use as a context manager.

    make : a class or function that the process can import by name.
    environment : variables set before `make` is called: for libraries that read them when they are loaded.

    Raises
    ------
    NasError : making it failed; carries the reason.
    """

    def __init__(
        self, make: Callable[..., object], *arguments: object, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._name = getattr(make, "__name__", str(make))
        work = (theirs, make, arguments, dict(environment or {}))
        self._process = context.Process(target=_serve, args=work, daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(self, method: str, *arguments: object) -> Any:
        """What the object's method answers.

        Raises
        ------
        NasError : it raised, or the process is gone.
        """
        self._signal(signal.SIGCONT)
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise NasError(f"the process of {self._name} is gone: look at what it printed") from error
        return self._answer()

    def close(self) -> None:
        """End the process, stopped or not."""
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        try:
            succeeded, value = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise NasError(f"the process of {self._name} died: it may need more memory than there is") from error
        self._signal(signal.SIGSTOP)
        if not succeeded:
            raise NasError(f"{self._name} failed: {value}")
        return value

    def _signal(self, number: signal.Signals) -> None:
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)


def _serve(
    pipe: Connection, make: Callable[..., object], arguments: tuple[object, ...], environment: Mapping[str, str]
) -> None:
    """The child's side: make, then answer until the other end is closed."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us
    os.environ.update(environment)
    try:
        held = make(*arguments)
    except Exception as error:  # whatever an engine raises is told, not printed
        pipe.send((False, _told(error)))
        return
    pipe.send((True, None))
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(held, method)(*given)))
        except Exception as error:
            pipe.send((False, _told(error)))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _die_with_parent() -> None:
    """A stopped process would outlive a parent that was killed, for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
