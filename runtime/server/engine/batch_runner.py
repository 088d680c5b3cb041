"""Running a batch, and running it again one by one where it fails, so that only what is at fault fails."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from modeltree.errors import NasError
from runtime.server.engine.batch_queue import Batch, Part, Request
from runtime.server.engine.model import Model

_log = logging.getLogger(__name__)


def run(batch: Batch, clock: Callable[[], float]) -> tuple[tuple[float, float] | None, dict[Request, NasError]]:
    """Run a batch and write its rows to its requests' outputs.

    Returns
    -------
    Seconds and work, None if it did not run as one; and the requests that failed, with why.
    """
    started, worked = clock(), time.thread_time()
    try:
        _run(batch.model, batch.parts, batch.size)
    except Exception as error:
        _log.warning("a batch of %d for %s failed: %s", batch.size, batch.model.name, error)
        return None, _one_by_one(batch, error)
    return (clock() - started, time.thread_time() - worked), {}


def _run(model: Model, parts: Sequence[Part], size: int) -> None:
    y = model.run(_gathered([part.request.x[part.first : part.last] for part in parts], size))
    at = 0
    for part in parts:
        count = part.last - part.first
        part.request.output[part.first : part.last] = y[at : at + count]
        at += count


def _gathered(parts: Sequence[np.ndarray], batch: int) -> np.ndarray:
    """Images of several requests as one batch, filled up with zeros; without a copy where one part is all of it."""
    if len(parts) == 1 and len(parts[0]) == batch:
        return parts[0]
    x = np.zeros((batch, *parts[0].shape[1:]), np.float32)
    at = 0
    for part in parts:
        x[at : at + len(part)] = part
        at += len(part)
    return x


def _one_by_one(batch: Batch, error: Exception) -> dict[Request, NasError]:
    if len(batch.parts) == 1:
        return {batch.parts[0].request: _told(error)}
    failed = {}
    for part in batch.parts:
        try:
            _run(batch.model, [part], batch.size)
        except Exception as fault:
            failed[part.request] = _told(fault)
    return failed


def _told(error: Exception) -> NasError:
    if isinstance(error, NasError):
        return error
    _log.error("a model failed", exc_info=error)
    return NasError("the model failed: the server's log says how")
