"""One method's turn over the trace: a server, a link and a device are started, play, and are ended in every case."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

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


def play_turn(
    method: FieldMethod, config: FieldConfig, link: str, images: FieldImages, folder: Path, told: Callable[[int], None]
) -> Measured:
    """Play the trace to one method; one that hands nothing over gets no server, and nothing crosses its link.

    Parameters
    ----------
    link : `relay` or `namespaces`. folder : for temporary files. told : called after every inference with how many.

    Raises
    ------
    NasError : a process failed; with its last words.
    """
    pixels = folder / "images.npy"
    if not pixels.exists():
        np.save(pixels, images.images, allow_pickle=False)
    with contextlib.ExitStack() as stack:
        laid = stack.enter_context(opened_link(link, config.trace, config.offset_s))
        url, server = None, None
        if any(node.handover for node in method.tree.nodes):
            words = ("serve", str(method.folder), "--listen", f"grpc://{laid.host}:0", "--weights", config.weights)
            server = Child("server", "nas.cli:main", *words, "--workers", "1", "--drain-s", "1", within=laid.server)
            stack.enter_context(server)
            url = laid.lay(port_of(server.line(START_S)))
        device = stack.enter_context(Child("device", "nas.field.processes.device:main", within=laid.device))
        device.say(msgspec.to_builtins(_task(method, config, url, pixels, images.files)))
        device.heard(START_S)
        begins_s = time.monotonic() + _LEAD_S
        device.say(begins_s)
        laid.begin(begins_s, config.count * max(s_from_ms(config.apart_ms), 1.0) + _SLOWEST_S)
        lines = []
        for i in range(config.count):
            text = device.line(_SLOWEST_S + s_from_ms(config.apart_ms))
            lines.append(msgspec.json.decode(text, type=Line))
            laid.must_run()
            if server is not None:
                server.must_run()
            told(i + 1)
    return measured_of(lines, config.trace, config.offset_s, images)


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
