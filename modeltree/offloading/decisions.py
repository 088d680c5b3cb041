"""Exit, cut and bits together: what every action is worth at a bandwidth, and the best one [Niu 2022].

A `DecisionTable` (modeltree.offloading.actions) holds what was measured once; `Decisions` adds the link's round trip,
the energy model, the objective and a budget, and answers for a bandwidth: latency, energy, reward, the exact best
action. All that does not depend on the bandwidth is computed once, so that the paper's 189 actions (3 exits, 21 cuts,
3 widths) take microseconds.

The paper's bandwidths are MB/s, ours Mbit/s: 10 MB/s are 80.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np

from modeltree.energy import Energy
from modeltree.errors import ConfigError
from modeltree.offloading.actions import DecisionTable, check_mbps, tree_table
from modeltree.reward import Reward
from modeltree.tree import ModelTree
from modeltree.units import mbps, ms_from_s

__all__ = [
    "PAPER_MBPS", "DecisionTable", "Decisions", "Energy", "Objective", "Reward", "State", "tree_decisions",
    "tree_table",
]  # fmt: skip

PAPER_MBPS = mbps(10e6, ms_from_s(1.0))
"""10 MB/s, the end of the paper's sweep of bandwidths."""

_OBSERVED_SHARE = 1 / 8
_NEVER_MS = 1e15
_TIE = 1e-9
"""What latency counts at least in an exact decision: from `full_mbps` on b is 0, and slow is as good as fast."""


class State(NamedTuple):
    """s = (T, e, acc, B) [Niu 2022, eq. 5]: what the last action took and gave, and the bandwidth now."""

    latency_ms: float
    energy_mj: float
    accuracy: float
    mbps: float


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """r = a acc + b / T; a = n ln(1 + B / s), b = 1 - a [Niu 2022, eqs. 13, 14].

    The paper gives neither n nor s. n is "the coefficient that limits a between 0 and 1": here a reaches 1 at
    `full_mbps` and stays there. s was chosen by us as large as that, so that a rises almost in a straight line, which
    the paper's answers (a later exit from 7 MB/s on only) ask for; a smaller s goes for accuracy earlier.

    sensitivity_mbps : s. full_mbps : where a is 1.
    """

    sensitivity_mbps: float = PAPER_MBPS
    full_mbps: float = PAPER_MBPS

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")

    def weight(self, mbps: float) -> float:
        """a: how much accuracy counts, 0..1 [Niu 2022, eq. 13]."""
        n = 1 / math.log1p(self.full_mbps / self.sensitivity_mbps)
        return min(1.0, n * math.log1p(mbps / self.sensitivity_mbps))


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """The decision problem: a table, its link's round trip, the energy model, the objective, a budget. Immutable.

    objective : `Objective` is [Niu 2022, eq. 14], `Reward` is [Wang 2020, eq. 7], what trees are searched for.
    budget_mj : the energy an inference may take at most [Niu 2022, eq. 12]; inf is none.

    How eq. 14's open points were read. "We first standardise accuracy and latency to the same magnitude" (before
    eq. 13): the terms acc and 1 / T are each brought to 0..1 over the actions at this bandwidth, by their least and
    greatest value. Not by mean and deviation: rewards would be negative, and then breaking the energy budget, worth 0,
    would beat keeping it. Not T before it is inverted: its standardised value crosses 0, where 1 / T has a pole. A term
    that is the same for all actions counts 0. 1 / T of what must be sent while the link is out is 0.

    Raises
    ------
    ConfigError : the round trip or the budget cannot be.
    """

    table: DecisionTable
    rtt_ms: float
    energy: Energy = field(default_factory=Energy)
    objective: Objective | Reward = field(default_factory=Objective)
    budget_mj: float = math.inf

    def __post_init__(self) -> None:
        self.table.latency_ms(1.0, self.rtt_ms)  # a bad round trip is refused here, not at the first decision
        if not self.budget_mj > 0:
            raise ConfigError(f"budget_mj is {self.budget_mj}: it must be above 0, inf for no budget")

    def __len__(self) -> int:
        return len(self.table)

    def latency_ms(self, mbps: float) -> np.ndarray:
        """(actions,): T."""
        check_mbps(mbps)
        return np.asarray(self._fixed_ms + (self._wire / mbps if mbps > 0 else self._out))

    def energy_mj(self, mbps: float) -> np.ndarray:
        """(actions,): e."""
        check_mbps(mbps)
        return np.asarray(self._compute_mj + self.energy.transmit_w * (self._wire / mbps if mbps > 0 else self._out))

    def fits(self, mbps: float) -> np.ndarray:
        """(actions,), bool: whether the energy stays within the budget; none may."""
        return np.asarray(self.energy_mj(mbps) <= self.budget_mj)

    def rewards(self, mbps: float) -> np.ndarray:
        """(actions,): r, each 0..1; 0 above the budget [Niu 2022, eq. 14].

        With a `Reward`, R as a share of the sum of its weights, and no less than 0: what an agent can learn from.
        """
        values = self._worth(mbps)
        if isinstance(self.objective, Reward):
            weights = self.objective.accuracy_weight + self.objective.latency_weight
            values = np.clip(values / weights, 0.0, 1.0)
        if self._limited:
            values[~self.fits(mbps)] = 0.0
        return values

    def best(self, mbps: float, *, among: np.ndarray | None = None) -> int:
        """The exact answer: the action of the highest reward within the budget, of equals the fastest.

        Where the budget leaves none, the one that takes the least energy.

        among : (actions,), bool: only these may be chosen. They are weighed as among all: eq. 14's terms are brought to
            0..1 over the whole table.

        Raises
        ------
        ConfigError : `among` leaves none, or is no mask of the actions.
        """
        return self.highest(self._worth(mbps, least_b=_TIE), mbps, among=among)

    def highest(self, scores: np.ndarray, mbps: float, *, among: np.ndarray | None = None) -> int:
        """The action of the highest score within the budget and `among`; without one, that of the least energy.

        scores, among : (actions,).
        """
        if among is None and not self._limited:
            return int(scores.argmax())
        left = np.arange(len(self)) if among is None else self._chosen(among)
        if self._limited:
            energy_mj = self.energy_mj(mbps)[left]
            fits = energy_mj <= self.budget_mj
            if not fits.any():
                return int(left[energy_mj.argmin()])
            left = left[fits]
        return int(left[scores[left].argmax()])

    def after(self, action: int, taken_mbps: float, mbps: float) -> State:
        """The state after an action was taken at one bandwidth and another has been seen."""
        return State(
            float(self.latency_ms(taken_mbps)[action]),
            float(self.energy_mj(taken_mbps)[action]),
            float(self.table.accuracy[action]),
            mbps,
        )

    def start(self, mbps: float) -> State:
        """The state before anything has run: as if the fastest local action had, or else the first of all."""
        table = self.table
        action = int(np.where(table.sends, math.inf, table.device_ms).argmin()) if not table.sends.all() else 0
        return self.after(action, mbps, mbps)

    def observe(self, state: State) -> np.ndarray:
        """(4,), float32 within -1..1: the state as a network sees it.

        Each value x becomes 2 x / (x + x0) - 1, which keeps order, needs no limit and takes infinity (an outage) to 1.
        x0 is the median over the actions at full bandwidth, for the bandwidth an eighth of that (where little changes
        much). Accuracies differ little: theirs run evenly from the lowest to the highest.
        """
        values = np.array([state.latency_ms, state.energy_mj, 1.0, state.mbps])
        seen = 1.0 - 2.0 * self._middles / (self._middles + values)
        low, span = self._accuracies
        seen[2] = 2.0 * (state.accuracy - low) / span - 1.0
        return np.clip(seen, -1.0, 1.0).astype(np.float32)

    def _worth(self, mbps: float, least_b: float = 0.0) -> np.ndarray:
        """The reward without the budget, b being so much at least; a fresh array."""
        if isinstance(self.objective, Reward):
            # 0 times infinity is no number: what never arrives takes an immense time
            return np.asarray(self.objective.of(self.table.accuracy, np.minimum(self.latency_ms(mbps), _NEVER_MS)))
        speed = 1.0 / self.latency_ms(mbps)
        low = speed.min()
        span = speed.max() - low
        a = self.objective.weight(mbps)
        values = a * self._accuracy
        if span > 0:
            values += (speed - low) * (max(1.0 - a, least_b) / span)
        return np.asarray(values)

    def _chosen(self, among: np.ndarray) -> np.ndarray:
        """The numbers of the actions that a mask leaves."""
        if among.shape != (len(self),) or among.dtype != np.bool_:
            raise ConfigError(f"among is {among.dtype} {among.shape}: it must be bool ({len(self)},), one an action")
        left = np.flatnonzero(among)
        if not left.size:
            raise ConfigError(f"among leaves none of the {len(self)} actions: allow at least one")
        return left

    @cached_property
    def _limited(self) -> bool:
        return self.budget_mj < math.inf

    @cached_property
    def _fixed_ms(self) -> np.ndarray:
        return self.table.device_ms + self.table.cloud_ms + np.where(self.table.sends, self.rtt_ms, 0.0)

    @cached_property
    def _wire(self) -> np.ndarray:
        """(actions,): time on the wire at 1 Mbit/s."""
        return self.table.transfer_ms(1.0)

    @cached_property
    def _out(self) -> np.ndarray:
        return self.table.transfer_ms(0.0)

    @cached_property
    def _compute_mj(self) -> np.ndarray:
        return self.energy.compute_w * self.table.device_ms

    @cached_property
    def _accuracies(self) -> tuple[float, float]:
        low, high = float(self.table.accuracy.min()), float(self.table.accuracy.max())
        return low, high - low or 1.0

    @cached_property
    def _accuracy(self) -> np.ndarray:
        low, span = self._accuracies
        return (self.table.accuracy - low) / span

    @cached_property
    def _middles(self) -> np.ndarray:
        full = PAPER_MBPS if isinstance(self.objective, Reward) else self.objective.full_mbps
        energy_mj = max(float(np.median(self.energy_mj(full))), np.finfo(np.float64).tiny)
        return np.array([float(np.median(self.latency_ms(full))), energy_mj, 1.0, full * _OBSERVED_SHARE])


def tree_decisions(
    tree: ModelTree, *, energy: Energy | None = None, objective: Objective | Reward | None = None,
    budget_mj: float = math.inf, rtt_ms: float | None = None,
) -> Decisions:  # fmt: skip
    """The leaves of a tree as a decision problem over the link it was searched for.

    energy : the device's, the default one unless given. objective : [Wang 2020, eq. 7] unless given, as in the search.
    rtt_ms : the tree's unless given.
    """
    usual_ms = tree.rtt_ms if rtt_ms is None else rtt_ms
    return Decisions(
        table=tree_table(tree), rtt_ms=tree.extra_ms + usual_ms, energy=energy or Energy(),
        objective=objective or tree.reward, budget_mj=budget_mj,
    )  # fmt: skip
