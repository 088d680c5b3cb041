"""Threads that nobody has to wait for: not who gave them work, nor the end of the session, nor that of the process.

The executors of the standard library wait for their threads at the end of the process, leave those who wait for work
that was cancelled waiting for ever, and answer work that comes too late with an error that is not ours.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from modeltree.errors import NasError

_T = TypeVar("_T")
_LOOK_S = 5.0
"""How often an idle thread looks whether anybody is left who might give it work."""


class Closed(NasError):
    """The session was closed, or its process is another one now."""


class Workers:
    """At most `most` daemon threads, begun when there is work. They end with `close`, or when this is dropped."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._work: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = 0
        self._free = threading.Semaphore(0)
        self._closed = False
        self._lock = threading.Lock()
        weakref.finalize(self, self._work.put, None).atexit = False

    def submit(self, work: Callable[..., _T], *arguments: Any) -> "Future[_T]":
        """Have it done in a thread; the future brings what it returns or raises, or `Closed`.

        Raises
        ------
        Closed : this was closed, or the machine has no thread left.
        """
        future: Future[_T] = Future()
        with self._lock:
            if self._closed:
                raise Closed("the session was closed: open another")
            self._work.put((future, work, arguments))
            if not self._free.acquire(blocking=False) and self._threads < self._most:
                self._begin(future)
        return future

    def close(self) -> None:
        """Take no more work, and fail what nobody has begun. May be called again; waits for nothing."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(Empty):
            while True:
                task = self._work.get_nowait()
                if task is not None and task[0].set_running_or_notify_cancel():
                    task[0].set_exception(Closed("the session was closed meanwhile: open another"))
        self._work.put(None)

    def _begin(self, first: Future) -> None:
        thread = threading.Thread(
            target=_serve, args=(self._work, self._free, weakref.ref(self)), name=self._name, daemon=True
        )  # fmt: skip
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads and first.cancel():
                raise Closed(f"no thread to work in ({error}): end other processes") from error
        else:
            self._threads += 1


_Task = tuple[Future, Callable[..., Any], tuple[Any, ...]]


def _serve(work: "SimpleQueue[_Task | None]", free: threading.Semaphore, owner: "weakref.ref[Workers]") -> None:
    """Do what comes; None is the end, and is left for the other threads."""
    while True:
        try:
            task = work.get_nowait()
        except Empty:
            free.release()
            task = _next(work, owner)
        if task is None:
            work.put(None)
            return
        _do(*task)
        del task  # else it would be kept until the next


def _next(work: "SimpleQueue[_Task | None]", owner: "weakref.ref[Workers]") -> "_Task | None":
    """The next task; None at the end, or when nobody is left."""
    while True:
        with contextlib.suppress(Empty):
            return work.get(timeout=_LOOK_S)
        if owner() is None:
            return None


def _do(future: Future, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work(*arguments))
    except BaseException as error:  # whoever asked gets it
        future.set_exception(error)
