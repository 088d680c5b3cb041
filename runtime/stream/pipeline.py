"""Tasks with deadlines on a device: decided when they come, computed, sent and answered side by side.

submit ─▶ planner ─▶ device queue ─▶ compute ─▶ link ─▶ server
              │            ▲          ▲            │
           not run         └── what the server refused: the best exit here that is in time
                                      └── what it has not answered when it is due here: between two blocks (`Reserve`)

Three threads: one computes, one hands over, one asks the server how long its queue is; answers come in the client's
threads. So while one task computes, another is sent and a third is served.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from modeltree.errors import DataError, NasError
from modeltree.streams.costs import MOST_IMAGES
from modeltree.streams.system import Observation, Planner, StreamSystem
from modeltree.units import bytes_per_ms, ms_from_s, s_from_ms
from runtime.execution.device import Device
from runtime.images.inputs import Picture, entering
from runtime.remote.offload_client import Cloud
from runtime.stream.planners import Local, best_fit
from runtime.stream.reserve import Reserve
from runtime.stream.results import Overrun, ServerQueue, TaskResult
from runtime.stream.task_queue import TaskQueue
from runtime.stream.ways import Way
from runtime.wire.transports.interface import Exchange, Reply, TimedOut

MOST_WAITING = 64
"""Tasks that wait on the device; more are not run, whatever a planner says."""
_ASK_EVERY_S = 0.05
_QUIET_S = 2.0
_MARGIN_S = 0.003
_LOOK_S = 0.2


@dataclass(kw_only=True)
class Job:
    """A task under way. images : each as the network takes it, and its pixels where it has any."""

    images: tuple[tuple[np.ndarray, np.ndarray | None], ...]
    deadline_ms: float
    action: int
    arrived_s: float
    future: "Future[TaskResult]"
    began_s: float = 0.0
    computed_s: float = 0.0
    sent_s: float = 0.0
    retried: bool = False
    why: str = ""
    foreseen_ms: float = 0.0

    @property
    def until_s(self) -> float:
        """When its answer must be there."""
        return self.arrived_s + s_from_ms(self.deadline_ms)


class TaskStream:
    """A context manager; `submit` may be called from any thread.

    ways : what actions 1.. of the system's table are. system : what they take, as measured; not `strict`.
    planner : chooses an action when a task comes. order : of the device's queue, `fcfs` or `edf`.
    pipelined : False waits for each task's answer before the next is begun, to compare with.
    bandwidth : Mbit/s of the link now; the system's unless given.
    """

    def __init__(
        self, device: Device, cloud: Cloud | None, ways: Sequence[Way], system: StreamSystem, planner: Planner, *,
        order: str = "fcfs", pipelined: bool = True, bandwidth: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.device, self.cloud, self.ways, self.system, self.planner = device, cloud, tuple(ways), system, planner
        self.clock, self._pipelined = clock, pipelined
        self._bandwidth = bandwidth or (lambda: system.mbps)
        self._local = Local(system=system)
        self._jobs: TaskQueue[Job] = TaskQueue(order)
        self._kept: Reserve[Job] = Reserve()
        self._handovers: SimpleQueue[tuple[Job, Job, np.ndarray, int] | None] = SimpleQueue()
        self.server, self._overrun = ServerQueue(clock), Overrun()
        self._busy_until_s = self._link_until_s = self._last_s = clock()
        self._lock = threading.Lock()
        self._under_way: dict[int, Job] = {}
        self._closed = threading.Event()
        works = [self._compute, self._hand_over, *([self._ask] if cloud is not None else [])]
        names = ("nas-stream-compute", "nas-stream-send", "nas-stream-ask")
        self._threads = [threading.Thread(target=w, name=n, daemon=True) for w, n in zip(works, names, strict=False)]
        for thread in self._threads:
            thread.start()

    def submit(self, images: Sequence[Picture], deadline_ms: float) -> "Future[TaskResult]":
        """A task of 1 to 10 images, each as `Session.infer` takes it; the future always brings a result.

        Raises
        ------
        DataError : there are too few or too many, or they do not fit. NasError : the stream is closed.
        """
        if self._closed.is_set():
            raise NasError("the stream is closed: open another")
        if not 1 <= len(images) <= MOST_IMAGES or not deadline_ms > 0:
            raise DataError(
                f"a task has {len(images)} images and {deadline_ms} ms: it must have 1 to {MOST_IMAGES}, more than 0"
            )
        arrived_s, rule = self.clock(), self.device.manifest.tree.preprocessing
        entered = tuple(entering(image, rule) for image in images)  # what does not fit is refused here
        job = Job(images=entered, deadline_ms=float(deadline_ms), action=0, arrived_s=arrived_s,
                  future=Future())  # fmt: skip
        with self._lock:
            self._under_way[id(job.future)] = job
        job.action = self._planned(job)
        if not job.action or len(self._jobs) >= MOST_WAITING:
            self._end(job, None, "nobody", job.why or "it could not be in time: not run")
        else:
            self._jobs.put(job, job.until_s, self._device_s(job, job.action))
        return job.future

    def observe(self, job: Job) -> Observation:
        """What a planner sees of a task that has just come."""
        now = self.clock()
        waits_s = max(0.0, self._busy_until_s - now) + self._jobs.before_s(job.until_s) + self._kept.expected_s
        return Observation(
            images=len(job.images), deadline_ms=ms_from_s(job.until_s - now) - self._overrun.margin_ms,
            device_wait_ms=ms_from_s(waits_s),
            server_wait_ms=self.server.wait_ms(), mbps=self._bandwidth(),
            link_wait_ms=ms_from_s(max(0.0, self._link_until_s - now)),
        )  # fmt: skip

    def close(self, timeout_s: float = 30.0) -> None:
        """Take nothing new, end what is here, stop."""
        self._closed.set()
        until = time.monotonic() + timeout_s
        while self._under_way and time.monotonic() < until:
            time.sleep(0.005)
        self._jobs.close()
        self._handovers.put(None)
        for thread in self._threads:
            thread.join(timeout_s)
        for job in list(self._under_way.values()):
            self._end(job, None, "nobody", "the stream was closed")

    def __enter__(self) -> "TaskStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _planned(self, job: Job) -> int:
        observation = self.observe(job)
        reason = "no server was named" if self.cloud is None else self.cloud.why_not()
        if reason is not None:
            job.why = f"on the device: {reason}"
        action = (self.planner if reason is None else self._local).choose(observation)
        job.foreseen_ms = float(self.system.finish_ms(observation)[action])
        return action

    def _device_s(self, job: Job, action: int) -> float:
        return s_from_ms(float(self.system.device_ms[len(job.images), action]))

    def _compute(self) -> None:
        """The device's thread."""
        while (job := self._jobs.take(_LOOK_S, self._due)) is not None:
            self._guarded(job)
            while not self._pipelined and not job.future.done():
                again, wait_s = self._due()
                if again is not None:
                    self._guarded(again)
                    continue
                with contextlib.suppress(TimeoutError):
                    job.future.exception(min(wait_s, _LOOK_S))

    def _guarded(self, job: Job) -> None:
        try:
            self._run(job)
        except Exception as error:
            self._end(job, None, "nobody", f"a block failed: {error}")

    def _due(self, next_s: float = 0.0) -> tuple[Job | None, float]:
        """A task of the server's that must be begun here before something that takes so long; else, in how long."""
        job = self._kept.due(self.clock(), next_s)
        return job, self._kept.wait_s(self.clock())

    def _run(self, job: Job) -> None:
        if job.future.done() or job.began_s:  # the server answered meanwhile, or it was due and still is in the queue
            return None
        self._kept.claim(job, answered=False)
        if not self._still(job):
            return self._end(job, None, "nobody", "others took too long: it could only be late")
        job.began_s = self.clock()
        made = None
        while made is None:
            self._busy_until_s = self.clock() + self._device_s(job, job.action)
            made = self._made(job, self.ways[job.action - 1])
        job.computed_s = self._busy_until_s = self.clock()
        x, way = np.concatenate(made), self.ways[job.action - 1]
        if way.handover is None:
            return self._end(job, x, "device", job.why or "as planned")
        why = "the server had not answered when it was due here"
        again = replace(job, retried=True, began_s=0.0, computed_s=0.0, why=why)
        self._kept.keep(again, job.until_s - _MARGIN_S, self._alone_s(job))
        self._handovers.put((job, again, x, 8 if x.dtype == np.uint8 else way.bits))
        return None

    def _made(self, job: Job, way: Way) -> list[np.ndarray] | None:
        """What the device makes of a task's images; None where it fell behind and has another action now.

        What is due here goes in between two blocks, unless this is such a task itself.
        """
        made: list[np.ndarray] = []
        for x, pixels in job.images:
            if way.handover is not None and way.handover.place == 0 and pixels is not None:
                made.append(pixels[None])
                continue
            if not job.retried and self._fell_behind(job, len(made)):
                return None
            for block in way.blocks:
                while not job.retried and (due := self._due(self.device.expected_s(block))[0]) is not None:
                    began_s = self.clock()
                    self._guarded(due)
                    self._busy_until_s += self.clock() - began_s
                x = self.device.run(block, x)
            made.append(x)
        return made

    def _fell_behind(self, job: Job, done: int) -> bool:
        """Whether a task under way can only be late, and an exit here can be in time from its beginning: then that is
        its action from now on."""
        observation = self.observe(job)._replace(device_wait_ms=0.0)
        spared_ms = ms_from_s(self._device_s(job, job.action)) * done / len(job.images)
        left_ms = ms_from_s(job.until_s - self.clock())
        if float(self.system.finish_ms(observation)[job.action]) - spared_ms <= left_ms:
            return False
        action = self._local.choose(observation)
        if action in (0, job.action):
            return False
        job.action = action
        return True

    def _still(self, job: Job) -> bool:
        """Whether it can be in time as things are; if another action can where the planned one cannot, that is taken.

        What failed at the server is answered even if late: it was promised, and nobody else has it. It must be done
        before the next such task is due.
        """
        left_ms = ms_from_s(job.until_s - self.clock())
        observation = self.observe(job)._replace(device_wait_ms=0.0)
        if job.retried:
            before_next_ms = ms_from_s(self._kept.wait_s(self.clock()))
            observation = observation._replace(deadline_ms=min(observation.deadline_ms, before_next_ms))
        allowed = self.cloud is not None and not job.retried and self.cloud.why_not() is None
        finish_ms = self.system.finish_ms(observation)
        way = self.ways[job.action - 1]
        if finish_ms[job.action] <= left_ms and (allowed or way.handover is None):
            return True
        action = best_fit(self.system, observation) if allowed else self._local.choose(observation)
        job.action = action or (self._quickest(job) if job.retried else 0)
        return bool(job.action)

    def _hand_over(self) -> None:
        """The link's thread: one task after the other, each begun when the one before should be through."""
        while (item := _next(self._handovers)) is not None:
            job, again, x, bits = item
            handover = self.ways[job.action - 1].handover
            assert self.cloud is not None
            assert handover is not None
            if (wait_s := self._link_until_s - self.clock()) > 0:
                time.sleep(min(wait_s, max(0.0, job.until_s - self.clock())))
            job.sent_s = again.sent_s = self.clock()
            sent = float(self.system.sent_bytes[len(job.images), job.action])
            self._link_until_s = job.sent_s + s_from_ms(sent / bytes_per_ms(self._bandwidth()))
            timeout_s = max(job.until_s - job.sent_s, 1e-3)
            shape_out = self.device.manifest.blocks[handover.block].out_shape
            try:
                call = self.cloud.ask(
                    handover.block, x, bits=bits, timeout_s=timeout_s, shape_out=shape_out, urgent=True
                )
            except NasError as error:
                self._failed(again, error)
                continue
            call.future.add_done_callback(partial(self._answered, job, again))

    def _quickest(self, job: Job) -> int:
        """The action of the quickest exit on this device."""
        on_device = np.flatnonzero(self.system.table.on_device)[1:]
        return int(on_device[self.system.device_ms[len(job.images), on_device].argmin()])

    def _alone_s(self, job: Job) -> float:
        """Within which the quickest exit is almost surely done: as tabled or, if more, as its blocks took of late."""
        action, images = self._quickest(job), len(job.images)
        blocks = self.ways[action - 1].blocks
        mean_s = sum(self.device.expected_s(block) for block in blocks)
        spread_s = sum(self.device.within_s(block) for block in blocks) - mean_s
        return max(self._device_s(job, action), images * mean_s) + images**0.5 * spread_s

    def _answered(self, job: Job, again: Job, future: "Future[Reply]") -> None:
        error = future.exception(0)
        if error is not None:
            self._failed(again, error)
            return
        reply = future.result(0)
        self._kept.claim(again, answered=True)
        self.server.told(reply.waiting_s)
        self._end(job, reply.output, "server", job.why or "as planned", server_s=reply.server_s)

    def _failed(self, job: Job, error: BaseException) -> None:
        """Back to the device, in front of all that waits, unless it was due there before."""
        if isinstance(error, TimedOut):
            self._overrun.note(max(0.0, ms_from_s(self.clock() - job.arrived_s) - job.foreseen_ms))
        if job.began_s or job.future.done():
            return
        job.why = f"the server did not answer: {error}"
        busy_ms = ms_from_s(max(0.0, self._busy_until_s - self.clock()))
        local = self._local.choose(self.observe(job)._replace(device_wait_ms=busy_ms))
        self._jobs.put(job, job.until_s, self._device_s(job, local), first=True)

    def _ask(self) -> None:
        """Ask the server for its queue while tasks come."""
        assert self.cloud is not None
        while not self._closed.wait(_ASK_EVERY_S):
            quiet = self.clock() - self._last_s > _QUIET_S
            if quiet or self.cloud.why_not() is not None or self._link_until_s > self.clock():
                continue
            try:
                told: Exchange = self.cloud.transport.probe(16, 1.0)
            except NasError:
                continue
            self.server.told(told.waiting_s)

    def _end(self, job: Job, outputs: np.ndarray | None, answered_by: str, why: str, *, server_s: float = 0.0) -> None:
        """A task's last step, once."""
        ended = self._last_s = self.clock()
        with self._lock:
            if self._under_way.pop(id(job.future), None) is None:
                return
        in_time = outputs is not None and ended <= job.until_s
        if outputs is not None and not job.retried:
            self._overrun.note(ms_from_s(ended - job.arrived_s) - job.foreseen_ms)
        job.future.set_result(TaskResult(
            outputs=outputs, action=job.action if outputs is not None else 0, images=len(job.images),
            deadline_ms=job.deadline_ms, answered_by=answered_by, why=why, in_time=in_time,
            gain=float(self.system.gains[job.action]) * in_time, arrived_s=job.arrived_s, began_s=job.began_s,
            computed_s=job.computed_s, sent_s=job.sent_s, ended_s=ended, server_s=server_s, retried=job.retried,
        ))  # fmt: skip


def _next(queue: "SimpleQueue[Any]") -> Any:
    """What comes next, however long that takes; it is looked for again and again, so that no wait is without an end."""
    while True:
        with contextlib.suppress(Empty):
            return queue.get(timeout=_LOOK_S)
