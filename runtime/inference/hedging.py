"""The cloud's answer or the device's: who is waited for, for how long, and whose counts.

The cloud is asked in a thread of its own, so that nothing it does can hold the inference. Every wait here has a limit.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as NotYet
from typing import NamedTuple

import numpy as np

from modeltree.errors import NasError
from modeltree.image_codes import image_code
from modeltree.tree import Handover
from modeltree.units import bytes_per_ms, s_from_ms
from runtime.execution.device import Device
from runtime.images import Entry, can_code, coded, tensor_of
from runtime.inference.inference_state import Walk
from runtime.inference.time_left import MARGIN_S
from runtime.options import SessionOptions
from runtime.remote.offload_client import CALLS_IN_FLIGHT, Call, Cloud
from runtime.remote.workers import Closed, Workers
from runtime.selection.early_exit import Onward
from runtime.selection.reweighing import LATE
from runtime.wire.pictures import PictureToSend
from runtime.wire.transports.interface import Reply

LONGEST_RACE_S = 300.0
"""A block of ours that runs for so long is stuck."""

UNMET_S = 0.5
"""No answer is overdue before, where the server or the link was never met."""

_WHOLE_BITS = 32


class Ran(NamedTuple):
    """What blocks came to here, (1, ...), and how long each took."""

    output: np.ndarray
    blocks_ms: list[tuple[str, float]]


class Hedge:
    """Hands over, and starts the rest here where that may be the faster."""

    def __init__(self, device: Device, cloud: Cloud, options: SessionOptions, clock: Callable[[], float]) -> None:
        self._device, self._cloud, self._options, self._clock = device, cloud, options, clock
        self._rests = Workers(CALLS_IN_FLIGHT, "nas-hedge")

    def warm_up(self) -> None:
        """Run a rest where races run it: a thread's first call makes its pool of threads, which takes milliseconds."""
        handovers = [node.handover.block for node in self._device.manifest.tree.nodes if node.handover is not None]
        if handovers:
            library = self._device.library(handovers[0])
            self._rests.submit(library.run, np.zeros(library.shape_in, np.float32)).result(LONGEST_RACE_S)

    def close(self) -> None:
        """Begin nothing any more; an inference under way ends with an answer or an error."""
        self._rests.close()

    def answer(
        self, handover: Handover, way: Onward, x: np.ndarray | Entry, pixels: np.ndarray | None, walk: Walk,
        deadline: float | None,
    ) -> np.ndarray:  # fmt: skip
        """The cloud's answer, or, where that is late, the first of it and the one here.

        The cloud is given as long as leaves time for the way here. Where that is the rest and would be late in any
        case, or with `hedge` from that moment on, both run at once. An early exit is worth less than the cloud's
        answer, and so is not begun because that is overdue, but only when the deadline asks for it.

        Parameters
        ----------
        way : what the device would do instead. x : (1, ...), what the hand-over takes; pixels : the image, if it is
            that and had any.

        Raises
        ------
        NasError : the cloud failed, or was not in time; nothing was begun here.
        """
        left_s = math.inf if deadline is None else deadline - self._clock()
        spare_s = left_s - way.within_s - MARGIN_S
        race = self._options.hedge or spare_s <= 0
        timeout_s = min(self._options.timeout_s, left_s if race else spare_s)
        call = self._call(handover, x, pixels, walk, timeout_s)
        hurry = self._options.hedge and not way.leaves
        late_s = self._late_s(handover, call.size_bytes, walk) if hurry else math.inf
        alone_s = min(timeout_s, spare_s, late_s)
        try:
            return _taken(call.future.result(max(0.0, alone_s)), handover, walk)
        except NotYet:
            if race and alone_s < timeout_s:
                if alone_s == late_s:
                    self._cloud.overdue(call)
                return self._first(call, handover, way, walk)
            self._cloud.give_up(call)
            raise NasError(f"no answer within {1e3 * timeout_s:.0f} ms") from None
        finally:
            if walk.answered_by != "cloud":
                walk.radio_ms = 1e3 * min(timeout_s, self._clock() - call.began_s)

    def _late_s(self, handover: Handover, size_bytes: int, walk: Walk) -> float:
        """Seconds from which on an answer is overdue. Of a server that was not met the tree tells, but its connection
        and its first run take their time."""
        due_s = self._cloud.expected_s(handover.block, size_bytes)
        if due_s is not None:
            return LATE * due_s
        tree = walk.tree
        carry_ms = size_bytes / bytes_per_ms(tree.types.representative_mbps[0])
        on_the_way_ms = handover.encode_ms + tree.rtt_ms + tree.extra_ms + carry_ms
        foretold_ms = on_the_way_ms + tree.nodes[walk.nodes[-1]].cloud_ms
        return max(LATE * s_from_ms(foretold_ms), UNMET_S)

    def whole(
        self, handover: Handover, x: np.ndarray | Entry, pixels: np.ndarray | None, walk: Walk, deadline: float | None
    ) -> np.ndarray:  # fmt: skip
        """Mode only-cloud: the cloud's answer to the whole image, and none of our own.

        x : (1, *shape) what enters the network. pixels : (c, h, w) uint8, if the image crosses as such.

        Raises
        ------
        NasError : the cloud failed, or was not in time.
        """
        timeout_s = self._options.timeout_s
        if deadline is not None:
            timeout_s = max(1e-3, min(timeout_s, deadline - self._clock()))
        call = self._call(handover, x, pixels, walk, timeout_s)
        try:
            return _taken(call.future.result(timeout_s + MARGIN_S), handover, walk)
        except NotYet:
            self._cloud.give_up(call)
            raise NasError(
                f"no answer within {1e3 * timeout_s:.0f} ms: try again, or use prefer-cloud, which goes on here"
            ) from None

    def _first(self, call: Call, handover: Handover, way: Onward, walk: Walk) -> np.ndarray:
        """The first of two answers: the cloud's, or that of the way here, which starts now."""
        waited_ms = 1e3 * (self._clock() - call.began_s)
        started = self._clock()
        work = functools.partial(ran, self._device, way.blocks, way.x, self._clock)
        try:
            local = self._rests.submit(work)
        except Closed:  # then here and now
            done = work()
        else:
            if _cloud_first(call.future, local):
                if not local.cancel():
                    walk.raced_ms = 1e3 * way.within_s  # it runs on to its end
                return _taken(call.future.result(0), handover, walk, f", {waited_ms:.0f} ms late: also begun here")
            done = local.result(0)
        walk.parts.device += 1e3 * (self._clock() - started)
        walk.blocks_ms += done.blocks_ms
        walk.note(way, f"no answer within {waited_ms:.0f} ms")
        return done.output

    def _call(
        self, handover: Handover, x: np.ndarray | Entry, pixels: np.ndarray | None, walk: Walk, timeout_s: float
    ) -> Call:  # fmt: skip
        frames = self._cloud.transport.frames
        bits = handover.bits if handover.place and frames else _WHOLE_BITS
        if isinstance(x, Entry) and frames and handover.code == "came":
            shape, file = self._device.manifest.tree.input_shape, x.file
            sent: np.ndarray | PictureToSend = PictureToSend(
                shape=shape, whole=True, likely_bytes=len(file), made=lambda: file
            )
            bits = handover.bits
        else:
            pixels, sent = x.pixels if isinstance(x, Entry) else pixels, tensor_of(x)
            if pixels is not None and handover.place == 0 and frames:  # another server takes normalised floats alone
                bits, sent = handover.bits, self._picture(handover, pixels)
        shape_out = self._device.manifest.blocks[handover.block].out_shape
        return self._cloud.ask(
            handover.block, sent, bits=bits, timeout_s=timeout_s, shape_out=shape_out,
            coding_s=self._device.least_coding_s(handover),
        )  # fmt: skip

    def _picture(self, handover: Handover, pixels: np.ndarray) -> np.ndarray | PictureToSend:
        """The image as the hand-over's code has it; as pixels where that is none, or nothing here can code."""
        code = image_code(handover.code or "raw")
        if code.kind == "raw" or not can_code():
            return pixels[None]
        made = functools.partial(coded, pixels, code, self._device.manifest.tree.picture.channels)
        return PictureToSend(shape=pixels.shape, whole=False, likely_bytes=handover.bytes, made=made)


def ran(device: Device, blocks: Sequence[str], x: np.ndarray | Entry, clock: Callable[[], float]) -> Ran:
    """Run blocks one after the other on `x`, (1, ...)."""
    blocks_ms, y = [], tensor_of(x)
    for block in blocks:
        began_s = clock()
        y = device.run(block, y)
        blocks_ms.append((block, 1e3 * (clock() - began_s)))
    return Ran(y, blocks_ms)


def _cloud_first(cloud: Future, local: Future) -> bool:
    """Wait for the first good answer; whether it is the cloud's. Where both fail, the device's error counts.

    Raises
    ------
    NasError : neither came within `LONGEST_RACE_S`.
    """
    until = time.monotonic() + LONGEST_RACE_S
    pending = {cloud, local}
    while pending and time.monotonic() < until:
        done, pending = wait(pending, until - time.monotonic(), return_when=FIRST_COMPLETED)
        if cloud in done and cloud.exception(0) is None:
            return True
        if local in done and (local.exception(0) is None or not pending):
            return False
    if pending:
        raise NasError(f"neither the cloud nor this device answered within {LONGEST_RACE_S:.0f} s: a block is stuck")
    return False


def _taken(reply: Reply, handover: Handover, walk: Walk, remark: str = "") -> np.ndarray:
    """The cloud's answer, noted."""
    walk.parts.encode += 1e3 * reply.encode_s
    walk.parts.cloud += 1e3 * reply.server_s
    walk.parts.transfer += 1e3 * (reply.seconds - reply.server_s)
    walk.sent_bytes = reply.sent_bytes
    walk.answered_by, walk.why = "cloud", f"handed over at place {handover.place}{remark}"
    return reply.output
