"""Policies over a sweep of bandwidths: what each chooses, what that gives, and how far from the exact best it stays."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from modeltree.offloading.decisions import PAPER_MBPS, Decisions
from modeltree.units import ms_from_ns
from runtime.selection.policies import Policy


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """What a policy did at every bandwidth; arrays are (bandwidths,).

    regret : the exact best reward less this one's. share : this one's rewards as a share of the exact ones, in all.
    fits : whether the energy stayed within the budget.
    """

    mbps: np.ndarray
    action: np.ndarray
    latency_ms: np.ndarray
    energy_mj: np.ndarray
    accuracy: np.ndarray
    reward: np.ndarray
    regret: np.ndarray
    fits: np.ndarray

    @property
    def share(self) -> float:
        """Mean reward over mean exact reward."""
        return float(self.reward.sum() / (self.reward + self.regret).sum())


def paper_bandwidths(count: int = 101) -> np.ndarray:
    """(count,), Mbit/s: 0..10 MB/s in even steps, as in the paper's figure 6."""
    return np.linspace(0.0, PAPER_MBPS, count)


def sweep(decisions: Decisions, policy: Policy, mbps: Sequence[float] | np.ndarray) -> Sweep:
    """Let a policy decide at one bandwidth after the other; each state holds what the action before took and gave.

    mbps : (steps,).
    """
    if len(mbps) == 0:
        raise ConfigError("there are 0 bandwidths to sweep: give at least one")
    state = decisions.start(float(mbps[0]))
    rows = []
    for now in map(float, mbps):
        action = policy.choose(state._replace(mbps=now))
        state = decisions.after(action, now, now)
        rewards = decisions.rewards(now)
        reward, best = float(rewards[action]), float(rewards[decisions.best(now)])
        rows.append((now, action, *state[:3], reward, best - reward, decisions.fits(now)[action]))
    columns = [np.array(column) for column in zip(*rows)]
    names = ("mbps", "action", "latency_ms", "energy_mj", "accuracy", "reward", "regret", "fits")
    return Sweep(**dict(zip(names, columns)))


def decision_ms(
    decisions: Decisions, policy: Policy, mbps: Sequence[float] | np.ndarray, *, repeats: int = 100,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:  # fmt: skip
    """Median time of one decision, over all bandwidths, (steps,), and repeats; clock : nanoseconds."""
    states = [decisions.start(float(now)) for now in mbps]
    policy.choose(states[0])  # what is computed once is not counted
    taken_ns = []
    for _ in range(repeats):
        for state in states:
            before = clock()
            policy.choose(state)
            taken_ns.append(clock() - before)
    return ms_from_ns(float(np.median(taken_ns)))
