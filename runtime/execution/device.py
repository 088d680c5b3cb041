"""The device's half of a bundle: its libraries loaded, called by block, and how long each takes here."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.manifest import Manifest
from modeltree.met import coding_of
from modeltree.tree import Handover
from runtime.execution.bundle import Bundle
from runtime.execution.library import Library
from runtime.execution.processor import check_runs_here
from runtime.images import Picture, entering

_SHARE = 0.2
"""Weight of the newest time in the running means."""
_WARM_RUNS = 3
_DEVIATIONS = 4.0
"""As TCP reckons when an answer is overdue [RFC 6298]."""


class _Time(NamedTuple):
    """Running means of a block's seconds and of their distance from the mean."""

    mean_s: float
    deviation_s: float

    def after(self, spent_s: float) -> "_Time":
        away_s = spent_s - self.mean_s
        return _Time(self.mean_s + _SHARE * away_s, self.deviation_s + _SHARE * (abs(away_s) - self.deviation_s))


class Device:
    """Blocks and rests of a bundle for one target, batch 1.

    Parameters
    ----------
    target : which libraries; None takes the bundle's only target that has blocks for a device.
    variant : kind of weights. threads : of a call.
    least_s : seconds that a block, or the coding of a hand-over, takes at least, the rest slept: plays a slower device.
    clock : seconds, for measuring calls.

    Raises
    ------
    ConfigError : no such target or variant, several targets and none named, or one that this machine cannot
        run. FormatError : a file is off.
    """

    def __init__(
        self, bundle: Bundle, *, target: str | None = None, variant: str = "f32", threads: int | None = None,
        least_s: Mapping[str, float] | None = None, clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.manifest: Manifest = bundle.manifest
        self.target = target or _only_target(bundle)
        check_runs_here(self.manifest, self.target)
        self.clock = clock
        runtime = bundle.runtime_path(self.target)
        self._libraries: dict[str, Library] = {}
        self._least_s = dict(least_s or {})
        self._times: dict[str, _Time] = {}
        for name, entry in bundle.manifest.blocks.items():
            if any(one.target == self.target for one in entry.libraries):
                path = bundle.library_path(name, target=self.target, variant=variant)
                self._libraries[name] = Library(
                    path, shape_in=(1, *entry.in_shape), shape_out=(1, *entry.out_shape), runtime=runtime,
                    threads=threads,
                )  # fmt: skip

    def run(self, block: str, x: np.ndarray) -> np.ndarray:
        """What a block makes of (1, ...) float32; its time goes into `expected_s`.

        Raises
        ------
        NasError : the block failed.
        """
        started = self.clock()
        y = self._libraries[block].run(x)
        spent = self.clock() - started
        if block in self._least_s:
            time.sleep(max(0.0, self._least_s[block] - spent))
            spent = self.clock() - started
        before = self._times.get(block)
        self._times[block] = _Time(spent, spent / 2) if before is None else before.after(spent)
        return y

    def warm_up(self) -> None:
        """Run every block on zeros, so that weights are in memory and every block's time is known."""
        for name, library in self._libraries.items():
            zeros = np.zeros(library.shape_in, np.float32)
            self.run(name, zeros)
            self._times.pop(name)  # the first call reads the weights from disk
            for _ in range(_WARM_RUNS):
                self.run(name, zeros)

    def expected_s(self, block: str) -> float:
        """Running mean of a block's time; 0 before it ran."""
        return self._times[block].mean_s if block in self._times else 0.0

    def within_s(self, block: str) -> float:
        """Seconds in which a block is almost surely done: its mean time and `_DEVIATIONS` mean deviations."""
        time_s = self._times.get(block)
        return 0.0 if time_s is None else time_s.mean_s + _DEVIATIONS * time_s.deviation_s

    def least_coding_s(self, handover: Handover) -> float:
        """Seconds that coding what crosses takes at least, where a slower device is played."""
        return self._least_s.get(coding_of(handover), 0.0)

    def library(self, block: str) -> Library:
        """A block's library."""
        return self._libraries[block]

    def has(self, block: str) -> bool:
        """Whether the bundle holds that block for this target."""
        return block in self._libraries

    def entering(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None]:
        """A picture as the tree's networks take it, (1, *input_shape), and its pixels where it has any.

        Parameters
        ----------
        picture : see `runtime.images.entering`. A network that takes no pictures takes float32 of its own shape.

        Raises
        ------
        DataError, ConfigError : it is no picture, or cannot be read.
        """
        tree = self.manifest.tree
        if len(tree.input_shape) == 3:
            return entering(picture, tree.preprocessing)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.float32 or picture.shape != tree.input_shape:
            raise DataError(f"the network takes float32 {tree.input_shape}: pass an array of that type and shape")
        return picture[None], None


def _only_target(bundle: Bundle) -> str:
    targets = [name for name, entry in bundle.manifest.targets.items() if "device" in entry.roles]
    if len(targets) != 1:
        raise ConfigError(f"{bundle.folder} is made for {', '.join(targets)}: name the one that this machine is")
    return targets[0]
