"""Methods over the trace, in turns or interleaved: a server, a link and a device each are started, play, and are ended
in every case."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from modeltree.link.traces import Trace
from modeltree.units import s_from_ms
from nas.field.config import PROFILE, FieldConfig, factor_of
from nas.field.images import FieldImages
from nas.field.methods import FieldMethod, predicted_s
from nas.field.processes.child import Child
from nas.field.processes.device import Line, Task
from nas.field.processes.links import START_S, opened_link, port_of
from nas.field.record import Shot
from nas.field.replay import Measured

_LEAD_S = 0.2
"""From telling all when the trace begins until it does."""

_SLOWEST_S = 60.0
"""Longest time for one inference: twice what a session waits for a server and then goes on alone, and much more."""


class Turn:
    """One method's server, link and device, started and waiting for the trace to begin; a context manager.

    One that hands nothing over gets no server, and nothing crosses its link.

    Parameters
    ----------
    link : `relay` or `namespaces`. folder : for temporary files.

    Raises
    ------
    NasError : a process failed; with its last words. So of every method.
    """

    def __init__(self, method: FieldMethod, config: FieldConfig, link: str, images: FieldImages, folder: Path) -> None:
        self._config, self._images = config, images
        self._lines: list[Line] = []
        with contextlib.ExitStack() as stack:
            self._link = stack.enter_context(opened_link(link, config.trace, config.offset_s))
            self._server, url = None, None
            if any(node.handover for node in method.tree.nodes):
                words = ("serve", str(method.folder), "--listen", f"grpc://{self._link.host}:0")
                more = ("--weights", config.weights, "--workers", "1", "--drain-s", "1")
                self._server = Child("server", "nas.cli:main", *words, *more, within=self._link.server)
                stack.enter_context(self._server)
                url = self._link.lay(port_of(self._server.line(START_S)))
            self._device = Child("device", "nas.field.processes.device:main", within=self._link.device)
            stack.enter_context(self._device)
            pixels = folder / "images.npy"
            if not pixels.exists():
                np.save(pixels, images.images, allow_pickle=False)
            self._device.say(msgspec.to_builtins(_task(method, config, url, pixels, images.files)))
            self._device.heard(START_S)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Turn":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self, at_s: float) -> None:
        """Let the trace begin at a moment of CLOCK_MONOTONIC; waits until it has."""
        config = self._config
        self._device.say(at_s)
        self._link.begin(at_s, config.count * max(s_from_ms(config.apart_ms), 1.0) + _SLOWEST_S)

    def go_on(self) -> None:
        """Wait for the next inference."""
        text = self._device.line(_SLOWEST_S + s_from_ms(self._config.apart_ms))
        self._lines.append(msgspec.json.decode(text, type=Line))
        self._link.must_run()
        if self._server is not None:
            self._server.must_run()

    @property
    def measured(self) -> Measured:
        """What it brought up to now."""
        return measured_of(self._lines, self._config.trace, self._config.offset_s, self._images)


def play_turn(
    method: FieldMethod, config: FieldConfig, link: str, images: FieldImages, folder: Path, told: Callable[[int], None]
) -> Measured:
    """Play the trace to one method. told : called after every inference with how many."""
    with Turn(method, config, link, images, folder) as turn:
        turn.begin(time.monotonic() + _LEAD_S)
        for i in range(config.count):
            turn.go_on()
            told(i + 1)
        return turn.measured


def play_interleaved(
    methods: Sequence[FieldMethod], config: FieldConfig, link: str, images: FieldImages, folder: Path,
    told: Callable[[int], None],
) -> list[Measured]:  # fmt: skip
    """Play the trace to all methods at once, each on a link and with a server of its own, which begins a little later
    than the one before: so their inferences alternate, and what else the machine does meets all of them alike."""
    with contextlib.ExitStack() as stack:
        turns = [stack.enter_context(Turn(method, config, link, images, folder)) for method in methods]
        begins_s = time.monotonic() + _LEAD_S
        for number, turn in enumerate(turns):
            turn.begin(begins_s + s_from_ms(config.apart_ms) * number / len(turns))
        for i in range(config.count):
            for turn in turns:
                turn.go_on()
            told(i + 1)
        return [turn.measured for turn in turns]


def measured_of(lines: list[Line], trace: Trace, offset_s: float, images: FieldImages) -> Measured:
    """What the device told, as records."""
    shots: list[Shot] = []
    blocks_ms: dict[str, list[float]] = {}
    for i, line in enumerate(lines):
        start_s, parts = offset_s + line.began_s, line.parts_ms
        shots.append(
            Shot(
                start_s=start_s, link_mbps=trace.at(start_s), link_rtt_ms=trace.rtt_at(start_s),
                types=line.types, mbps=line.mbps, nodes=line.nodes,
                answered_by=line.answered_by, why=line.why, predicted_class=line.predicted_class,
                label=images.labels[i % len(images.labels)], device_ms=parts["device"], encode_ms=parts["encode"],
                transfer_ms=parts["transfer"], cloud_ms=parts["cloud"], wait_ms=parts["wait"],
                total_ms=parts["total"], met=line.met,
                sent_bytes=line.sent_bytes,
            )
        )  # fmt: skip
        for block, ms in line.blocks_ms:
            blocks_ms.setdefault(block, []).append(ms)
    return Measured(
        shots=tuple(shots), blocks_ms={block: tuple(times) for block, times in blocks_ms.items()},
        outputs=tuple(line.output for line in lines if line.output),
    )  # fmt: skip


def _task(method: FieldMethod, config: FieldConfig, url: str | None, pixels: Path, files: tuple[Path, ...]) -> Task:
    return Task(
        bundle=str(method.folder.resolve()), server=url, images=str(pixels), files=tuple(map(str, files)),
        count=config.count,
        every_ms=config.apart_ms, target=config.target, weights=config.weights, threads=config.threads,
        mode=config.mode, policy=config.policy, deadline_ms=config.deadline_ms,
        least_s=predicted_s(method.tree) if config.slowdown == PROFILE else {}, factor=factor_of(config.slowdown),
        outputs=config.check is not None,
    )  # fmt: skip
