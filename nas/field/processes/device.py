"""The device's process in a field run: one session, inferences on the clock of the trace, a line for each. No torch.

Standard input brings one line of JSON (a `Task`), and, once we said that we are ready, the moment at which the trace
begins, on CLOCK_MONOTONIC, which all processes of a machine share.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from modeltree.units import s_from_ms
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.images import Picture
from runtime.result import Result
from runtime.session import Session

_TIMED_RUNS = 30


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device is to do.

    server : None where nothing is ever handed over.
    images : file of numpy's, uint8 (n, channels, height, width); inference i takes image i modulo n.
    files : pictures to take instead, each read into memory before the first inference, as a camera has it there.
    least_s : block -> seconds that it takes at least. factor : instead, so many times what each takes here.
    outputs : whether to send the logits too.
    """

    bundle: str
    server: str | None
    images: str
    files: tuple[str, ...]
    count: int
    every_ms: float
    target: str | None
    weights: str
    threads: int | None
    mode: str
    policy: str
    deadline_ms: float | None
    least_s: dict[str, float]
    factor: float | None
    outputs: bool


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One inference, as the device saw it. began_s : on the trace's clock, its offset not counted.

    blocks_ms : [block, ms] of what ran here. mbps : None where nothing is known.
    """

    began_s: float
    nodes: tuple[int, ...]
    types: tuple[int, ...]
    mbps: tuple[float | None, ...]
    answered_by: str
    why: str
    met: bool
    predicted_class: int
    parts_ms: dict[str, float]
    blocks_ms: tuple[tuple[str, float], ...]
    sent_bytes: int = 0
    output: tuple[float, ...] = ()


def main() -> None:
    """Do what standard input says."""
    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    pictures: Sequence[Picture] = [Path(file).read_bytes() for file in task.files]
    pictures = pictures or list(np.load(task.images, allow_pickle=False))
    least_s = task.least_s if task.factor is None else _times_here(task, task.factor)
    with Session.open(
        task.bundle, server=task.server, target=task.target, variant=task.weights, mode=task.mode, policy=task.policy,
        threads=task.threads, least_s=least_s,
    ) as session:  # fmt: skip
        _tell(json.dumps({"measured": session.measure()}))
        began_s = float(json.loads(sys.stdin.readline()))
        for line in infer_all(session, pictures, task, lambda: time.monotonic() - began_s, time.sleep):
            _tell(msgspec.json.encode(line).decode())


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def infer_all(
    session: Session, pictures: Sequence[Picture], task: Task, clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Line]:  # fmt: skip
    """Inference i begins at i * every_ms, or at once where the one before took longer."""
    for i in range(task.count):
        due_s = s_from_ms(i * task.every_ms)
        sleep(max(0.0, due_s - clock()))
        began_s = clock()
        result = session.infer(pictures[i % len(pictures)], deadline_ms=task.deadline_ms)
        yield _line(result, began_s, outputs=task.outputs)


def _line(result: Result, began_s: float, *, outputs: bool) -> Line:
    return Line(
        began_s=began_s, nodes=result.nodes, types=result.types,
        mbps=tuple(None if math.isnan(mbps) else mbps for mbps in result.mbps), answered_by=result.answered_by,
        why=result.why, met=result.met, predicted_class=-1 if result.answers else int(result.output.argmax()),
        parts_ms=dict(vars(result.parts)), blocks_ms=result.blocks_ms, sent_bytes=result.sent_bytes,
        output=tuple(result.output.ravel().tolist()) if outputs else (),
    )  # fmt: skip


def _times_here(task: Task, factor: float) -> dict[str, float]:
    """Block -> `factor` times the median of what it takes here."""
    device = Device(Bundle.open(task.bundle), target=task.target, variant=task.weights, threads=task.threads)
    device.warm_up()
    found = {}
    for name, entry in device.manifest.blocks.items():
        if device.has(name):
            x, spent_s = np.zeros((1, *entry.in_shape), np.float32), []
            for _ in range(_TIMED_RUNS):
                began_s = time.perf_counter()
                device.run(name, x)
                spent_s.append(time.perf_counter() - began_s)
            found[name] = factor * statistics.median(spent_s)
    return found
