"""One interface for work that is done here or elsewhere: serially, or in a pool of processes.

Work comes as a `setup`, run once per worker on a picklable context, and a `work` function run on what `setup` returned
and a picklable task. Both are functions at the top of a module, so that any process can find them.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from modeltree.errors import ConfigError, unknown
from nas.jobs.memory import keep_freed_memory
from nas.jobs.threads import torch_threads
from nas.names import EXECUTORS


class Executor(Protocol):
    """Runs tasks and gives results as they come."""

    def run(
        self, setup: Callable[[Any], Any], work: Callable[[Any, Any], Any], context: Any, tasks: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index of the task, result), in the order in which tasks end. An error in a task is raised here."""


class SerialExecutor:
    """Everything in this process, one task after the other, with one thread: the same numbers as a pool gives."""

    def run(self, setup: Any, work: Any, context: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `Executor.run`."""
        if not tasks:
            return
        with torch_threads(1):
            state = setup(context)
            for index, task in enumerate(tasks):
                yield index, work(state, task)


class ProcessExecutor:
    """A pool of processes of one thread each. They end with this process, however it ends.

    Where the system can, they are forked from a process that has imported what they need and done nothing else, and
    that serves every later pool: importing torch in each takes longer than many a task.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers is {workers}: it must be at least 1")
        self.workers = workers

    def run(self, setup: Any, work: Any, context: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `Executor.run`."""
        if not tasks:
            return
        pool = concurrent.futures.ProcessPoolExecutor(
            min(self.workers, len(tasks)),
            mp_context=_ready_made((setup, work)),
            initializer=_start_worker,
            initargs=(setup, work, context),
        )
        try:
            futures = {pool.submit(_work, task): index for index, task in enumerate(tasks)}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ready_made(functions: Sequence[Callable[..., Any]]) -> multiprocessing.context.BaseContext:
    """How to start workers that find the modules of some functions imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nas.jobs.executors", *(function.__module__ for function in functions)])
    return context


_worker: dict[str, Any] = {}  # what a worker process was started with; empty everywhere else


def _start_worker(setup: Any, work: Any, context: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    _worker.update(work=work, state=setup(context))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(task: Any) -> Any:
    return _worker["work"](_worker["state"], task)


def executor(name: str, workers: int) -> Executor:
    """The executor of that name; an unknown one lists the known."""
    if name == "serial":
        return SerialExecutor()
    if name == "processes":
        return ProcessExecutor(workers)
    raise unknown("executor", name, EXECUTORS)
