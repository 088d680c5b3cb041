"""Along the forks of a tree to an answer, which is never lost.

Every hand-over has a continuation here: the rest that the cloud would run is in the bundle for the device too. The
feature map is kept until the cloud's answer is there and sound; if it is not in time, or the call fails in any way, the
device goes on from where it stands. In a tree with early exits a sample that a head is sure of leaves there, and with a
deadline an exit that can be in time answers where nothing else can be.
"""

from collections.abc import Callable, Sequence

import numpy as np

from modeltree.errors import NasError
from modeltree.tree import Node
from runtime.execution.device import Device
from runtime.images import Entry, tensor_of
from runtime.inference.hedging import Hedge, ran
from runtime.inference.inference_state import Walk
from runtime.inference.time_left import MARGIN_S, TimeLeft
from runtime.remote.offload_client import Cloud, Link
from runtime.selection.branch_selection import Driver, LinkState
from runtime.selection.early_exit import Onward, end_text


class TreeWalk:
    """Walks one tree; what an inference meets is in its `Walk`.

    Parameters
    ----------
    cloud, hedge : both None where no server was named. mode : one of `runtime.options.MODES`.
    """

    def __init__(
        self, device: Device, link: Link, driver: Driver, *, cloud: Cloud | None, hedge: Hedge | None, mode: str,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._device, self._link, self._driver = device, link, driver
        self._cloud, self._hedge, self._mode, self._clock = cloud, hedge, mode, clock
        self._time = TimeLeft(device, driver, cloud, clock)

    def answer(self, pixels: np.ndarray | None, walk: Walk, deadline: float | None) -> np.ndarray:
        """The logits, (1, classes), of the image `walk.x`, (1, channels, height, width); `pixels` are its, if any."""
        x = walk.x
        while True:
            walk.x = x
            node = self.fork(walk, deadline)
            if (way := self._time.way_out(walk, deadline)) is not None:
                return self._alone(way, walk, "what the forks would do is late")
            walk.nodes.append(node.id)
            if node.block:
                x, pixels = self._ran((node.block,), x, walk), None
            if node.handover is not None:
                return self.handed_over(node, x, pixels, walk, deadline)
            if node.leaf is not None:
                walk.answered_by, walk.why = "device", end_text(node) + walk.stays
                return tensor_of(x)
            head = walk.tree.confident(node.id)
            if head is not None and walk.sure(head, logits := self._ran((head.block,), x, walk)):
                return logits
            walk.here = node.id

    def fork(self, walk: Walk, deadline: float | None) -> Node:
        """The node to go on with, as the driver has it."""
        kind, mbps = self._link.bandwidth_type()
        alone = LinkState(type=kind, mbps=mbps, asks=False)
        reason = self._why_stay(walk.here, alone, deadline)
        walk.seen = alone._replace(asks=reason is None)
        walk.stays = "" if reason is None else f": {reason}"
        walk.types.append(kind)
        walk.mbps.append(mbps)
        return self._driver.child(walk.here, walk.seen)

    def _why_stay(self, here: int | None, alone: LinkState, deadline: float | None) -> str | None:
        """Why the cloud is not asked for what follows a node; None where it may be."""
        if self._mode == "only-device":
            return "mode only-device"
        if self._cloud is None:
            return "no server was named"
        if self._mode == "prefer-device" and self._time.enough_alone(here, alone, deadline):
            return "mode prefer-device, and there is time"
        return self._cloud.why_not()

    def handed_over(
        self, node: Node, x: np.ndarray | Entry, pixels: np.ndarray | None, walk: Walk, deadline: float | None
    ) -> np.ndarray:  # fmt: skip
        """The cloud's answer, (1, classes), or the local one where it is not to be had."""
        assert node.handover is not None
        left_s = self._time.until_s(deadline)
        way = self._time.rest(node.handover, walk, x, left_s)
        reason = walk.stays.removeprefix(": ") or None
        if reason is None and left_s <= -MARGIN_S:
            reason = "the deadline has passed"
        if reason is None and self._driver.goes_on_here(node, walk.seen):
            reason = "to go on here is faster"
        if reason is None:
            assert self._hedge is not None
            try:
                return self._hedge.answer(node.handover, way, x, pixels, walk, deadline)
            except NasError as error:
                reason = f"the cloud did not answer: {error}"
        return self._alone(way, walk, reason)

    def _alone(self, way: Onward, walk: Walk, reason: str) -> np.ndarray:
        """The answer of a way that needs no cloud."""
        y = self._ran(way.blocks, way.x, walk)
        walk.note(way, reason)
        return y

    def _ran(self, blocks: Sequence[str], x: np.ndarray | Entry, walk: Walk) -> np.ndarray:
        started = self._clock()
        done = ran(self._device, blocks, x, self._clock)
        walk.parts.device += 1e3 * (self._clock() - started)
        walk.blocks_ms += done.blocks_ms
        return done.output
