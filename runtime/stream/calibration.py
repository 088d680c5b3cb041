"""What a bundle's ways really take here and at a server: lines in the number of images, measured."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from modeltree.streams.costs import ActionTable, Line, fit_line
from modeltree.tree import Handover
from modeltree.units import ms_from_s
from runtime.execution.device import Device
from runtime.stream.ways import Way, action_table
from runtime.wire.frames import encode
from runtime.wire.transports.interface import Transport

SIZES = (1, 4, 10)
_ROUNDS = 3
_TIMEOUT_S = 20.0


def calibrated(device: Device, ways: Sequence[Way], transport: Transport | None) -> ActionTable:
    """The ways as actions.

    transport : to a server that is idle; None where there is none, and what would be sent is then free of server time,
        never chosen by a pipeline without a server.

    Raises
    ------
    NasError : a block failed, or the server did not answer.
    """
    blocks = {block: measured_block(device, block) for way in ways for block in way.blocks}
    device_ms = [Line(k=sum(blocks[block].k for block in way.blocks)) for way in ways]
    handovers = {(way.handover.block, way.bits): way.handover for way in ways if way.handover is not None}
    sent = {key: _sent_line(device, handover) for key, handover in handovers.items()}
    served = {key: _served_line(device, handover, transport) for key, handover in handovers.items()}
    nothing = Line(k=0.0)

    def of(lines: dict[tuple[str, int], Line]) -> list[Line]:
        return [nothing if way.handover is None else lines[way.handover.block, way.bits] for way in ways]

    return action_table(ways, device_ms, of(served), of(sent))


def measured_block(device: Device, block: str, clock: Callable[[], float] = time.perf_counter) -> Line:
    """Milliseconds of a block for so many images, one after the other."""
    x = np.zeros(device.library(block).shape_in, np.float32)
    took_ms = []
    for _ in range(5):
        began = clock()
        device.run(block, x)
        took_ms.append(ms_from_s(clock() - began))
    return Line(k=float(np.median(took_ms)))


def _sample(device: Device, handover: Handover, images: int) -> tuple[np.ndarray, int]:
    """Numbers of the hand-over's shape, and their width; pixels where the image itself crosses."""
    rng = np.random.default_rng(0)
    if handover.place == 0:
        return rng.integers(0, 256, (images, *handover.shape), dtype=np.uint8), 8
    return np.maximum(rng.standard_normal((images, *handover.shape), np.float32), 0.0), handover.bits


def _sent_line(device: Device, handover: Handover) -> Line:
    return fit_line(SIZES, [float(len(encode(*_sample(device, handover, images)))) for images in SIZES])


def _served_line(device: Device, handover: Handover, transport: Transport | None) -> Line:
    """The server's own time, as it says; the least of some rounds, since it may not be idle after all."""
    if transport is None:
        return Line(k=0.0)
    shape_out = device.manifest.blocks[handover.block].out_shape
    took_ms = []
    for images in SIZES:
        x, bits = _sample(device, handover, images)
        replies = [
            transport.infer(handover.block, x, bits=bits, timeout_s=_TIMEOUT_S, shape_out=shape_out)
            for _ in range(_ROUNDS)
        ]
        took_ms.append(ms_from_s(min(reply.server_s for reply in replies)))
    return fit_line(SIZES, took_ms)
