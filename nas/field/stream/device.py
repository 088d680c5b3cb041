"""A device's process of a stream: one session, tasks when they are due, a line of JSON for each. No torch.

Standard input brings a `DeviceTask`, and, once we said that we are ready, the moment on CLOCK_MONOTONIC from which
tasks are due.
"""

import json
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from modeltree.streams.costs import load_table
from modeltree.streams.tasks import Arrivals
from modeltree.units import ms_from_s, ms_from_us, s_from_ms
from nas.field.stream.record import TaskLine
from runtime.session import Session
from runtime.stream.pipeline import TaskStream
from runtime.stream.results import TaskResult

_LATEST_S = 60.0


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A task of this device. number : in the whole stream."""

    number: int
    due_ms: float
    images: int
    deadline_ms: float


class DeviceTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is to do.

    table : file of what the ways take. images, labels : file of numpy's, and classes where they are known.
    least_s : block -> seconds that it takes at least. arrivals : statistics for a planner that wants them.
    """

    bundle: str
    server: str | None
    device: int
    tasks: tuple[Due, ...]
    images: str
    labels: tuple[int | None, ...]
    table: str
    planner: str
    order: str
    mbps: float
    pipelined: bool
    least_s: dict[str, float]
    p: float
    k: float
    devices: int
    slot_ms: float


class _Timed:
    """A planner whose decisions are timed."""

    def __init__(self, planner: object) -> None:
        self._planner, self.last_us = planner, 0.0

    def choose(self, seen: object) -> int:
        began_s = time.perf_counter()
        action: int = self._planner.choose(seen)  # type: ignore[attr-defined]
        self.last_us = ms_from_s(time.perf_counter() - began_s) / ms_from_us(1.0)
        return action


def main() -> None:
    """Do what standard input says."""
    task = msgspec.json.decode(sys.stdin.readline(), type=DeviceTask)
    images = np.load(task.images, allow_pickle=False)
    arrivals = Arrivals(p=task.p, k=task.k, devices=task.devices, slot_ms=task.slot_ms)
    with Session.open(task.bundle, server=task.server, least_s=task.least_s, threads=1) as session:
        stream = session.open_stream(
            planner=task.planner, arrivals=arrivals, table=load_table(Path(task.table)), order=task.order,
            mbps=task.mbps, pipelined=task.pipelined,
        )  # fmt: skip
        timed = _Timed(stream.planner)
        stream.planner = timed
        _tell(json.dumps({"measured": session.measure()}))
        begins_s = float(json.loads(sys.stdin.readline()))
        offset_s = time.monotonic() - stream.clock()
        for line in _played(stream, timed, task, images, begins_s - offset_s):
            _tell(msgspec.json.encode(line).decode())


def _played(stream: TaskStream, timed: _Timed, task: DeviceTask, images: np.ndarray, begins_s: float) -> list[TaskLine]:
    """Submit every task when it is due; then wait for all."""
    waiting = []
    for due in task.tasks:
        time.sleep(max(0.0, begins_s + s_from_ms(due.due_ms) - stream.clock()))
        chosen = [(due.number * 7 + i) % len(images) for i in range(due.images)]
        future = stream.submit([images[i] for i in chosen], due.deadline_ms)
        waiting.append((due, chosen, future, timed.last_us))
    return [
        _line(task, due, chosen, future.result(_LATEST_S), stream, begins_s, plan_us)
        for due, chosen, future, plan_us in waiting
    ]


def _line(
    task: DeviceTask, due: Due, chosen: list[int], result: TaskResult, stream: TaskStream, begins_s: float,
    plan_us: float,
) -> TaskLine:  # fmt: skip
    def at_ms(moment_s: float) -> float:
        return ms_from_s(moment_s - begins_s) if moment_s else 0.0

    labels = [task.labels[i] for i in chosen] if task.labels else [None]
    right = None
    if result.outputs is not None and None not in labels:
        right = int((result.outputs.argmax(1) == np.array(labels)).sum())
    way = stream.ways[result.action - 1] if result.action else None
    return TaskLine(
        number=due.number, device=task.device, images=due.images, deadline_ms=due.deadline_ms, due_ms=due.due_ms,
        arrived_ms=at_ms(result.arrived_s), action=result.action, exit=way.exit if way else 0,
        cut=way.cut if way else 0, answered_by=result.answered_by, why=result.why, in_time=result.in_time,
        gain=result.gain, retried=result.retried, began_ms=at_ms(result.began_s),
        computed_ms=at_ms(result.computed_s), sent_ms=at_ms(result.sent_s), ended_ms=at_ms(result.ended_s),
        server_ms=ms_from_s(result.server_s), plan_us=plan_us, right=right,
    )  # fmt: skip


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
