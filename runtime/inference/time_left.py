"""What a deadline leaves time for, by what blocks and hand-overs take of late."""

import math
from collections.abc import Callable

import numpy as np

from modeltree.tree import Handover
from runtime.execution.device import Device
from runtime.images import Entry
from runtime.inference.inference_state import Walk
from runtime.remote.offload_client import Cloud
from runtime.selection.branch_selection import Driver, LinkState, planned_s
from runtime.selection.early_exit import Leaving, Onward

MARGIN_S = 0.003
"""Kept for what is not foreseen: waking threads, noting the answer."""


class TimeLeft:
    """Plans ahead; remembers nothing of an inference. Deadlines are on the clock; None is no deadline."""

    def __init__(self, device: Device, driver: Driver, cloud: Cloud | None, clock: Callable[[], float]) -> None:
        self._device, self._driver, self._cloud, self._clock = device, driver, cloud, clock
        self._tree = device.manifest.tree
        self._leaving = Leaving(self._tree)

    def until_s(self, deadline: float | None) -> float:
        """Seconds that are left, the margin kept; infinity without a deadline."""
        return math.inf if deadline is None else deadline - self._clock() - MARGIN_S

    def enough_alone(self, here: int | None, alone: LinkState, deadline: float | None) -> bool:
        """Whether what follows a node can be done here in time."""
        return deadline is None or self.planned_s(here, alone) <= self.until_s(deadline)

    def planned_s(self, here: int | None, seen: LinkState) -> float:
        """Seconds until the answer of what follows a node, if nothing changes; a cloud not known yet is quick."""
        return planned_s(self._tree, self._driver, here, seen, self._device.within_s, self._cloud_s)

    def _cloud_s(self, handover: Handover) -> float:
        assert self._cloud is not None
        return self._cloud.expected_s(handover.block, handover.bytes) or 0.0

    def way_out(self, walk: Walk, deadline: float | None) -> Onward | None:
        """An exit that can be in time where what the forks would do cannot; None where it can, or nothing can."""
        if deadline is None or not self._tree.exits:
            return None
        left_s = self.until_s(deadline)
        return None if self.planned_s(walk.here, walk.seen) <= left_s else self.exit_within(walk, left_s)

    def rest(self, handover: Handover, walk: Walk, x: np.ndarray | Entry, left_s: float) -> Onward:
        """What follows a hand-over if it is done here; where that would be late, an exit that is not, if any.

        x : (1, *shape) what crosses.
        """
        within_s = self._device.within_s(handover.block)
        if within_s > left_s and (way := self.exit_within(walk, left_s)) is not None:
            return way
        return Onward(blocks=(handover.block,), x=x, path=self._tree.path(walk.nodes[-1]), within_s=within_s)

    def exit_within(self, walk: Walk, left_s: float) -> Onward | None:
        """The latest exit within so many seconds from the last fork on, or a head's answer that is at hand already."""
        reachable = self._leaving.latest(walk.here, walk.x, left_s, self._device.within_s, self._driver.allows)
        return self._leaving.later(reachable, walk.held)
