"""A process of a field run: it talks in lines, dies with us, and tells its last words when it fails."""

import contextlib
import ctypes
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from modeltree.errors import NasError

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 6
_END_S = 5.0


class Child:
    """`call` in a new Python, a context manager: its lines are read as they come, its standard error is kept.

    Parameters
    ----------
    name : for errors. call : module and function, `nas.field.processes.device:main`. arguments : its `sys.argv[1:]`.
    within : puts a command in front of the command line, as `ip netns exec` is; () for none.
    """

    def __init__(self, name: str, call: str, *arguments: str, within: Sequence[str] = ()) -> None:
        self.name = name
        module, _, function = call.partition(":")
        # A session of its own: Ctrl-C at the terminal is ours alone, and we end it in order.
        first = "from nas.field.processes.child import die_with_parent as first"
        code = f"{first}; from {module} import {function} as f; first(); f()"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by end()
        self._process = subprocess.Popen(
            [*within, sys.executable, "-u", "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"field-{name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, told: object) -> None:
        """Send a line of JSON.

        Raises
        ------
        NasError : the process is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failure("ended") from None

    def line(self, timeout_s: float) -> str:
        """The next line that it prints.

        Raises
        ------
        NasError : it ended, or said nothing for so long; with its last words.
        """
        try:
            found = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._failure(f"said nothing for {timeout_s:g} s") from None
        if found is None:
            raise self._failure("ended")
        return found

    def heard(self, timeout_s: float) -> Any:
        """The next line, as JSON."""
        text = self.line(timeout_s)
        try:
            return json.loads(text)
        except ValueError:
            raise self._failure(f"said {text[:200]!r}, which is no JSON") from None

    def must_run(self) -> None:
        """Raise if it has ended, with its last words.

        Raises
        ------
        NasError : it has.
        """
        if self._process.poll() is not None:
            raise self._failure("ended")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()
        self.end()

    def end(self) -> None:
        """Ask it to end, wait a little, kill it; twice does no harm."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self._lines.put(text.rstrip("\n"))
        self._lines.put(None)

    def _failure(self, what: str) -> NasError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        self._errors.seek(0)
        last = [text for text in self._errors.read().splitlines() if text.strip()][-_LAST_LINES:]
        words = "\n  ".join(last) or "nothing"
        code = "" if status is None else f" with status {status}"
        return NasError(f"the {self.name} {what}{code}: mend what its last words say and run again\n  {words}")


def die_with_parent() -> None:
    """Called in the child: a process outlives a parent that was killed, and nobody would ever end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
