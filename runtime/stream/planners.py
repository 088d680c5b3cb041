"""Planners that decide a task from what is known when it arrives; none needs torch.

Best-fit and the rolling horizon never begin what they foresee to be late. `Greedy` and `Random` are the paper's
baselines [Song 2021, sec. IV-B] and may.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from modeltree.errors import ConfigError
from modeltree.streams.system import EPSILON_MS, Observation, Planner, StreamSystem


@dataclass(frozen=True, kw_only=True, eq=False)
class Greedy:
    """The paper's: the best exit for the task's size and deadline, as if it were alone.

    "Makes the optimal offloading decision according to the data size and latency limitation of the current task but
    does not consider the interaction between adjacent tasks": it looks at no queue, so that what it begins may be late.
    """

    system: StreamSystem

    def choose(self, observation: Observation) -> int:
        """Looks at size and deadline alone."""
        return best_fit(self.system, observation._replace(device_wait_ms=0.0, server_wait_ms=0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class BestFit:
    """The best exit that is in time behind what waits already, by the cut that is done first; else the task is not run.

    With queues in order of deadlines this is earliest deadline first with the best exit that fits.
    """

    system: StreamSystem

    def choose(self, observation: Observation) -> int:
        """Looks at this task and the queues."""
        return best_fit(self.system, observation)


@dataclass(frozen=True, kw_only=True, eq=False)
class Random:
    """Any exit and cut, whatever the task. rng : what they are drawn from."""

    system: StreamSystem
    rng: np.random.Generator

    def choose(self, observation: Observation) -> int:
        """Looks at nothing."""
        return int(self.rng.integers(len(self.system.table)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """The best exit that is in time on the device alone; what is left where no server answers."""

    system: StreamSystem

    @cached_property
    def _allowed(self) -> np.ndarray:
        allowed = self.system.table.on_device.copy()
        allowed[0] = True
        return allowed

    def choose(self, observation: Observation) -> int:
        """Looks at this device's queue."""
        return best_fit(self.system, observation, self._allowed)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """One action, always, in time or not; a yardstick."""

    action: int

    def choose(self, observation: Observation) -> int:
        """Looks at nothing."""
        return self.action


def fixed(system: StreamSystem, exit: int, cut: int) -> Fixed:
    """Always this exit and this cut.

    Raises
    ------
    ConfigError : there is no such action; lists those there are.
    """
    table = system.table
    found = np.flatnonzero((table.exit == exit) & (table.cut == cut))
    if not found.size:
        known = ", ".join(f"{e}/{c}" for e, c in zip(table.exit[1:], table.cut[1:], strict=True))
        raise ConfigError(f"there is no exit {exit} with cut {cut}: known are {known}")
    return Fixed(action=int(found[0]))


def best_fit(system: StreamSystem, observation: Observation, allowed: np.ndarray | None = None) -> int:
    """The action of the highest gain that is in time, of equals the one that is done first; 0 where there is none.

    allowed : (actions,), bool.
    """
    finish_ms = system.finish_ms(observation)
    fits = finish_ms <= observation.deadline_ms + EPSILON_MS
    if allowed is not None:
        fits &= allowed
    gains = np.where(fits, system.gains, 0.0)
    best = gains.max()
    if best <= 0:
        return 0
    return int(np.where(gains >= best, finish_ms, np.inf).argmin())


PLANNERS: dict[str, Callable[[StreamSystem], Planner]] = {
    "greedy": lambda system: Greedy(system=system),
    "edf": lambda system: BestFit(system=system),
    "device": lambda system: Local(system=system),
    "random": lambda system: Random(system=system, rng=np.random.default_rng(0)),
}
"""Rules by name; the rolling horizon and what was learnt need more (`runtime.stream.opening`)."""
