"""A battery that has to last: so many millijoules for so many inferences, whatever the link does.

Before every inference the battery says what it may take at most: what is left, less a reserve with which every later
inference can still take the action whose worst case is the cheapest. The worst case of an action that sends is that
nothing comes back: everything up to the hand-over, the radio on until the time-out, and the rest on the device after
all (`worst_mj`). What cannot be afforded in its worst case is not begun, so that the sum stays within the budget.

    battery = Battery(budget_mj=5000.0, inferences=100, worst_mj=worst_mj(decisions, stay_ms, timeout_ms=1000.0))
    action = policy.choose(state, battery.allowed())
    ...
    battery.spend(energy.mj(device_ms, transfer_ms))  # what it really was
"""

import math

import numpy as np

from modeltree.errors import ConfigError, DataError, NasError
from modeltree.offloading.actions import DecisionTable
from modeltree.offloading.decisions import Decisions
from modeltree.tree import ModelTree

_RESERVE = 1.0 + 1e-9
"""A reserve larger than need be by more than sums of floats are off."""


class Exhausted(NasError):
    """The battery cannot pay for another inference."""


class Battery:
    """A budget for a number of inferences to come; keeps count, and is not for several threads at once.

    The sum of what is spent never exceeds the budget if each inference takes an action of `allowed`, and no more than
    that action's worst case; leaving early, or an answer in time, takes less and leaves more for later. What takes more
    than its worst case (a device slower than predicted) is counted as it was: the next allowance is the smaller for
    it, and where it does not suffice any more, `Exhausted` is raised and nothing is begun.

    budget_mj : for all inferences together. inferences : how many it must last for.
    worst_mj : (actions,), what each action takes at most, as `worst_mj` gives it.

    Raises
    ------
    ConfigError : a number cannot be, or the budget is too small for so many inferences even of the cheapest action.
    """

    def __init__(self, *, budget_mj: float, inferences: int, worst_mj: np.ndarray) -> None:
        worst_mj = np.asarray(worst_mj, dtype=np.float64)
        if not (math.isfinite(budget_mj) and budget_mj > 0):
            raise ConfigError(f"the battery's budget_mj is {budget_mj}: it must be finite and above 0")
        if inferences < 1:
            raise ConfigError(f"the battery is for {inferences} inferences: it must be for at least 1")
        if worst_mj.ndim != 1 or not worst_mj.size or not (np.isfinite(worst_mj) & (worst_mj >= 0)).all():
            raise ConfigError("worst_mj must be one finite number an action, at least 0, and at least one of them")
        self.budget_mj, self.inferences_left, self.spent_mj = budget_mj, inferences, 0.0
        self._worst_mj, self._least_mj = worst_mj, float(worst_mj.min())
        if inferences * self._least_mj * _RESERVE > budget_mj:
            raise ConfigError(
                f"a battery of {budget_mj:g} mJ is too small for {inferences} inferences: the cheapest action takes up "
                f"to {self._least_mj:.6g} mJ, all together {math.ceil(inferences * self._least_mj)} mJ; ask for more "
                "energy or fewer inferences"
            )

    def allowance_mj(self) -> float:
        """What the next inference may take, so that every later one can take the action of the cheapest worst case.

        Raises
        ------
        Exhausted : all inferences have been made, or what is left does not pay for the cheapest action.
        """
        if self.inferences_left < 1:
            raise Exhausted("the battery's inferences have all been made: give it a new budget")
        allowance = self.budget_mj - self.spent_mj - (self.inferences_left - 1) * self._least_mj * _RESERVE
        if allowance < self._least_mj:
            raise Exhausted(
                f"the battery has {self.budget_mj - self.spent_mj:.6g} mJ left for {self.inferences_left} inferences, "
                f"and the cheapest action takes up to {self._least_mj:.6g} mJ: give it a new budget"
            )
        return allowance

    def allowed(self) -> np.ndarray:
        """(actions,), bool: those whose worst case is within the allowance; at least one. Ask once an inference.

        Raises
        ------
        Exhausted : as `allowance_mj`.
        """
        return np.asarray(self._worst_mj <= self.allowance_mj())

    def spend(self, mj: float) -> None:
        """Count one inference, and what it took.

        Raises
        ------
        ConfigError : not a finite number, or below 0. Exhausted : all inferences had been made.
        """
        if not (math.isfinite(mj) and mj >= 0):
            raise ConfigError(f"an inference took {mj} mJ: it must be finite and at least 0")
        if self.inferences_left < 1:
            raise Exhausted("the battery's inferences have all been made: give it a new budget")
        self.inferences_left -= 1
        self.spent_mj += mj


def stay_ms(tree: ModelTree, table: DecisionTable) -> np.ndarray:
    """(actions,): the rest behind each action's hand-over, on the device; 0 where nothing is handed over.

    Raises
    ------
    DataError : the tree does not know one.
    """
    found = np.zeros(len(table))
    for action, leaf in enumerate(table.leaf.tolist()):
        handover = tree.nodes[leaf].handover
        if handover is not None:
            if handover.device_ms <= 0:
                raise DataError(
                    f"the tree does not say how long the rest behind node {leaf} takes on the device, and a battery "
                    "must know it: search again"
                )
            found[action] = handover.device_ms
    return found


def worst_mj(decisions: Decisions, stay_ms: np.ndarray, *, timeout_ms: float) -> np.ndarray:
    """(actions,): what each action takes if the cloud never answers and the device goes on alone.

    stay_ms : (actions,), the rest on the device. timeout_ms : when a transfer is given up.

    Raises
    ------
    ConfigError : the time-out is not finite or not above 0.
    """
    if not (math.isfinite(timeout_ms) and timeout_ms > 0):
        raise ConfigError(f"timeout_ms is {timeout_ms}: it must be finite and above 0, since the radio waits so long")
    table = decisions.table
    return decisions.energy.mj(
        table.device_ms + np.where(table.sends, stay_ms, 0.0), np.where(table.sends, timeout_ms, 0.0)
    )
