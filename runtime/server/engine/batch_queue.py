"""The queue between those who ask and the workers: bounded, in order of arrival or of deadlines, taken out in batches.

Refusing at once is kinder than answering late: the device has the rest too and goes on by itself. So a request is let
in only if there is room and, as far as measured service times tell, an answer before its deadline.
"""

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from modeltree.errors import NasError, unknown
from runtime.server.engine.model import Model
from runtime.server.interface import Busy, Draining

ORDERS = ("fcfs", "edf")
_LOOK_S = 5.0
"""How often an idle worker looks whether it is still wanted, should nobody have told it."""
_SHARE = 0.1
"""Weight of the newest in the running mean of how long an answer takes from the worker to its caller."""
_WAYS_OUT = 2
"""The answer then goes through the front, for which the same is reckoned again."""


class Retired(Exception):
    """The model was swapped for another while this request was on its way."""


@dataclass(kw_only=True, eq=False)
class Request:
    """Images of one caller, of which batches take as many as fit.

    tell : called once, from any thread and outside every lock, when `output` or `error` is there.
    until : when the answer is of no use any more; infinite for never. taken, left : images given out, and not done yet.
    started, finished : when its first image was given out, and its last was done.
    """

    model: Model
    x: np.ndarray
    output: np.ndarray
    tell: "Callable[[Request], None]"
    arrived: float
    until: float = math.inf
    started: float = 0.0
    finished: float = 0.0
    taken: int = 0
    left: int = field(init=False)
    error: NasError | None = None
    done: bool = False

    def __post_init__(self) -> None:
        self.left = len(self.x)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images `first` to `last`, not included, of a request."""

    request: Request
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a worker runs at once. size : of the library; the parts may be fewer images."""

    model: Model
    size: int
    parts: tuple[Part, ...]


class _Queue(deque[Request]):
    """One model's requests. images : of theirs that no worker has taken; counted, since every arrival asks for it."""

    images = 0


class Waiting:
    """Requests that no worker has taken, and what the workers have in hand. Safe from any thread.

    max_requests, max_bytes : that wait at most. workers : how many take. clock : seconds, rising.
    order : one of `ORDERS`: first come first served, or earliest deadline first.
    """

    def __init__(
        self, *, max_requests: int, max_bytes: int, workers: int, clock: Callable[[], float], order: str = "fcfs"
    ) -> None:
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        self._by_deadline = order == "edf"
        self.max_requests, self.max_bytes, self.workers = max_requests, max_bytes, workers
        self._clock = clock
        self._changed = threading.Condition()
        self._queues: dict[Model, _Queue] = {}
        self._running: dict[Batch, float] = {}
        self._retired: weakref.WeakSet[Model] = weakref.WeakSet()
        self._ended: list[Request] = []
        self._requests = self._bytes = 0
        self._return_s = 0.0
        self._draining = self._closed = False

    @property
    def size(self) -> tuple[int, int]:
        """Requests and bytes that wait."""
        return self._requests, self._bytes

    @property
    def backlog_s(self) -> float:
        """Seconds until what waits and runs now is done, as measured service times tell."""
        with self._changed:
            return self._ahead_s(self._clock()) / self.workers

    @property
    def draining(self) -> bool:
        """Whether nothing new is let in."""
        return self._draining

    def put(self, request: Request) -> None:
        """Let a request in.

        Raises
        ------
        Busy : no room, or no answer before its deadline. Draining : nothing new is let in. Retired : see there.
        """
        with self._changed:
            if self._draining:
                raise Draining("the server is shutting down: ask another, or go on without")
            if request.model in self._retired:
                raise Retired
            if self._requests and (
                self._requests >= self.max_requests or self._bytes + request.x.nbytes > self.max_bytes
            ):
                raise Busy(f"{self._requests} requests of {self._bytes} bytes wait already: try again later")
            if request.x.nbytes > self.max_bytes:
                raise Busy(f"the request has {request.x.nbytes} bytes, {self.max_bytes} may wait: send fewer images")
            self._refuse_late(request)
            queue = self._queues.setdefault(request.model, _Queue())
            self._enter(queue, request)
            queue.images += len(request.x)
            self._requests += 1
            self._bytes += request.x.nbytes
            self._changed.notify()

    def take(self) -> Batch | None:
        """Wait for work and take a batch of the model whose request came first; None when the queue is closed."""
        with self._telling():
            while not self._queues:
                if self._closed:
                    return None
                self._changed.wait(_LOOK_S)
            batch = self._next()
            self._running[batch] = self._clock() + batch.model.times.expected_s(batch.size)
            return batch

    def finished(self, batch: Batch, took: tuple[float, float] | None, failed: dict[Request, NasError]) -> None:
        """A batch has run: its outputs are written, but for the requests in `failed`. took : seconds, and work; None
        if it did not run as one."""
        with self._telling():
            del self._running[batch]
            if took is not None:
                batch.model.times.note(batch.size, *took)
            for part in batch.parts:
                request = part.request
                request.left -= part.last - part.first
                if request.left == 0 or request in failed:
                    self._end(request, failed.get(request))
            self._changed.notify_all()

    def returned(self, request: Request) -> None:
        """The caller has its answer. What it waited for a processor to go on is time that later ones need too."""
        with self._changed:
            self._return_s += _SHARE * (self._clock() - request.finished - self._return_s)

    def abandon(self, request: Request, error: NasError) -> None:
        """The caller has gone: what is still waiting of it goes too."""
        with self._telling():
            if not request.done:
                self._end(request, error)
                self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Let nothing new in and wait for what is here; whether all of it ended in time."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: not self._queues and not self._running, timeout_s)

    def close(self) -> None:
        """Send the workers home and everybody who still waits away."""
        with self._changed:
            self._draining = self._closed = True
            waiting = [request for queue in self._queues.values() for request in queue]
            waiting += [part.request for batch in self._running for part in batch.parts]
        for request in waiting:
            self.abandon(request, Draining("the server shut down before it came to this: go on without"))
        with self._changed:
            self._changed.notify_all()

    def retire(self, models: set[Model], timeout_s: float) -> bool:
        """Let nothing in for these models, and wait for what they have; whether all of it ended in time."""

        def busy() -> bool:
            return any(model in self._queues for model in models) or any(one.model in models for one in self._running)

        with self._changed:
            self._retired |= models
            return self._changed.wait_for(lambda: not busy(), timeout_s)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Hold the lock, and when it is free again tell those whose requests have ended meanwhile."""
        with self._changed:
            yield
            ended, self._ended = self._ended, []
        for request in ended:
            request.tell(request)

    def _end(self, request: Request, error: NasError | None) -> None:
        """There is an answer, or an error; nothing for one that has ended already."""
        if not request.done:
            request.error, request.finished, request.done = error, self._clock(), True
            self._remove(request)
            self._ended.append(request)

    def _refuse_late(self, request: Request) -> None:
        now = self._clock()
        room = self._slack_s(request, now)
        times = request.model.times
        if request.until - now <= times.fastest_s:
            left = request.until - now
            raise Busy(f"an answer takes {times.fastest_s:.4f} s at best, {left:.4f} s are left: allow more time")
        if not self._queues and len(self._running) < self.workers:
            return  # nobody is in front; and were the times wrong, they would never be measured again
        expected = self._ahead_s(now, request) / self.workers + times.expected_s(len(request.x))
        if room < expected:
            raise Busy(f"an answer would take {expected:.3f} s, {room:.3f} s are left: try again later")

    def _ahead_s(self, now: float, request: Request | None = None) -> float:
        """Work of the workers before a request's turn; all that is here without one."""
        ahead = sum(max(0.0, end - now) for end in self._running.values())
        for model, queue in self._queues.items():
            images = queue.images
            if self._by_deadline and request is not None:
                images = sum(len(one.x) - one.taken for one in queue if one.until <= request.until)
            ahead += model.times.expected_s(images)
        return ahead

    def _enter(self, queue: _Queue, request: Request) -> None:
        """Put a request in its place: behind all, or behind those whose deadline is no later."""
        at = len(queue)
        while self._by_deadline and at and queue[at - 1].until > request.until:
            at -= 1
        queue.insert(at, request)

    def _turn(self, model: Model) -> float:
        """What decides which model comes next: the first of its queue has the earliest arrival, or deadline."""
        first = self._queues[model][0]
        return first.until if self._by_deadline else first.arrived

    def _slack_s(self, request: Request, now: float) -> float:
        """How long a request can still wait for its batch to be done."""
        return request.until - now - _WAYS_OUT * self._return_s

    def _next(self) -> Batch:
        model = min(self._queues, key=self._turn)
        queue, now = self._queues[model], self._clock()
        self._drop_hopeless(queue, model.times.quickest_s, now)
        idle = max(1, self.workers - len(self._running))
        most = min(model.times.batches[-1], math.ceil(queue.images / idle))
        slack: list[float] = []
        for request in queue:
            slack += [self._slack_s(request, now)] * min(len(request.x) - request.taken, most - len(slack))
            if len(slack) == most:
                break
        size = model.times.chosen(slack)
        return Batch(model=model, size=size, parts=self._parts(queue, min(size, most), now))

    def _drop_hopeless(self, queue: _Queue, quickest_s: float, now: float) -> None:
        """Refuse those in front that can only be late, as long as one comes behind them that need not be: else all
        would be answered, each a little too late."""
        if not any(self._slack_s(one, now) >= quickest_s for one in queue):
            return
        while self._slack_s(queue[0], now) < quickest_s:
            self._end(queue[0], Busy("others were in front for too long: try again later"))

    def _parts(self, queue: _Queue, images: int, now: float) -> tuple[Part, ...]:
        """Take the first images off a queue."""
        parts = []
        while images and queue:
            request = queue[0]
            request.started = request.started or now
            last = min(request.taken + images, len(request.x))
            parts.append(Part(request=request, first=request.taken, last=last))
            images -= last - request.taken
            queue.images -= last - request.taken
            request.taken = last
            if last == len(request.x):
                self._remove(request)
        return tuple(parts)

    def _remove(self, request: Request) -> None:
        """Take a request off its queue, if it is there."""
        queue = self._queues.get(request.model)
        if queue is None or request not in queue:
            return
        queue.remove(request)
        queue.images -= len(request.x) - request.taken
        self._requests -= 1
        self._bytes -= request.x.nbytes
        if not queue:
            del self._queues[request.model]
