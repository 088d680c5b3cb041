"""The device's side of a chain: run its own stages, hand the rest to the members, go on alone when nobody answers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError, DataError
from runtime.chain.file_watch import FileWatch
from runtime.chain.forwarding import NobodyLeft, forward
from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import Placement, read_placement
from runtime.chain.route import MAX_RETRIES, routes
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.images import Picture

LOCAL = "device"


@dataclass(frozen=True, kw_only=True)
class ChainResult:
    """output : (classes,). answered_by : the member that was asked, or `device`. why : in words, where it was not as
    planned. attempts : members that were asked. ms : in all; device_ms : of these, on the device; members_ms : waiting.
    """

    output: np.ndarray
    answered_by: str
    why: str
    attempts: int
    ms: float
    device_ms: float
    members_ms: float


class ChainSession:
    """Inference over a placement. Thread-safe as far as the device's libraries are not asked at once; see `infer`.

    Parameters
    ----------
    device : with libraries for the blocks that it runs; with all of them it can go on alone.
    look_s : between two looks at each member.
    """

    def __init__(self, device: Device, neighbours: Neighbours, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.device, self.neighbours, self._clock = device, neighbours, clock
        self._watch: FileWatch | None = None
        missing = [b for s in self.placement.stages[: self.placement.first] for b in s.blocks if not device.has(b)]
        if missing:
            raise ConfigError(f"the bundle lacks {missing[0]}, which the placement gives the device: pass its bundle")
        last = device.manifest.blocks.get(self.placement.stages[-1].blocks[-1])
        if last is None:
            raise ConfigError("the bundle lacks the placement's last block: pass the bundle that it was made for")
        self._classes = last.out_shape

    @classmethod
    def open(
        cls, bundle: Path | str, placement: Path | str, *, identity: Identity | None = None, target: str | None = None,
        variant: str = "f32", look_s: float = 1.0,
    ) -> "ChainSession":  # fmt: skip
        """A session over a bundle and a placement file."""
        plan, who = read_placement(Path(placement)), identity or Identity()
        device = Device(Bundle.open(Path(bundle), target), target=target, variant=variant)
        device.warm_up()
        neighbours = Neighbours(placement=plan, connect=lambda one: transport_of(one, who), every_s=look_s)
        session = cls(device, neighbours)
        session._watch = FileWatch(Path(placement), neighbours)
        return session

    @property
    def placement(self) -> Placement:
        """By which we go; `neighbours.take` changes it."""
        return self.neighbours.placement

    def infer(self, picture: Picture, *, deadline_ms: float | None = None) -> ChainResult:
        """Classify one picture.

        Parameters
        ----------
        deadline_ms : by when the answer is wanted. Members are asked as long as the device could still go on alone.

        Raises
        ------
        DataError : no picture; or nobody answered, and the device lacks the blocks to go on.
        """
        began, placement = self._clock(), self.placement
        x, _ = self.device.entering(picture)
        for stage in placement.stages[: placement.first]:
            x = self._blocks(stage.blocks, x)
        local_s = self._clock() - began
        if placement.first == len(placement.stages):
            return self._result(x, LOCAL, "", 0, began, local_s, 0.0)
        alone_s = self._alone_s(placement)
        until = float("inf") if deadline_ms is None else began + deadline_ms / 1e3 - (alone_s or 0.0)
        asked = self._clock()
        try:
            return self._asked(placement, x, until, began, local_s)
        except NobodyLeft as error:
            if alone_s is None:
                raise DataError(
                    f"{error}; the device lacks the blocks to go on alone: give it the whole bundle"
                ) from error
            members_s, started = self._clock() - asked, self._clock()
            for stage in placement.stages[placement.first :]:
                x = self._blocks(stage.blocks, x)
            return self._result(x, LOCAL, str(error), 1, began, local_s + self._clock() - started, members_s)

    def _asked(self, placement: Placement, x: np.ndarray, until: float, began: float, local_s: float) -> ChainResult:
        healthy = self.neighbours.healthy
        route = routes(placement, placement.first, MAX_RETRIES, healthy)
        if route is None:
            raise NobodyLeft("no healthy members for all stages")
        done = forward(self.neighbours, route, x, classes=self._classes, until=until, clock=self._clock)
        planned = route.members[0] == placement.stages[placement.first].members[0] and done.attempts == 1
        why = "" if planned else f"another way: {done.first} after {done.attempts - 1} in vain"
        return self._result(done.output, done.first, why, done.attempts, began, local_s, done.seconds)

    def _result(
        self, y: np.ndarray, by: str, why: str, attempts: int, began: float, local_s: float, members_s: float
    ) -> ChainResult:
        return ChainResult(
            output=y[0], answered_by=by, why=why, attempts=attempts, ms=1e3 * (self._clock() - began),
            device_ms=1e3 * local_s, members_ms=1e3 * members_s,
        )  # fmt: skip

    def _blocks(self, blocks: tuple[str, ...], x: np.ndarray) -> np.ndarray:
        for block in blocks:
            x = self.device.run(block, x)
        return x

    def _alone_s(self, placement: Placement) -> float | None:
        """Time of the members' stages on the device; None where it lacks their blocks."""
        blocks = [block for stage in placement.stages[placement.first :] for block in stage.blocks]
        if not all(self.device.has(block) for block in blocks):
            return None
        return sum(self.device.within_s(block) for block in blocks)

    def close(self) -> None:
        """Let go of the members."""
        if self._watch is not None:
            self._watch.stop()
        self.neighbours.close()

    def __enter__(self) -> "ChainSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
