"""The decision problem as a Gymnasium environment [Niu 2022, sec. III-B].

A step is one inference: the agent sees the state (T, e, acc of the action before, the bandwidth now), chooses exit, cut
and bits, and is paid by eq. 14 at the bandwidth it saw. The next bandwidth does not depend on what was chosen.

The paper does not say how the bandwidth moves during training, only that it is varied over 0..10 MB/s: `Uniform` draws
every one afresh from there, and now and then an outage. `Replayed` takes them from a trace, as they follow one another.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.offloading.decisions import PAPER_MBPS, Decisions, State


class Bandwidths(Protocol):
    """How the bandwidth moves; holds no state of its own."""

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,), Mbit/s: the bandwidths of an episode, one after the other."""
        ...


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every bandwidth drawn evenly between two, whatever it was before.

    low_share : share of draws that are `low_mbps` itself. At 0, an outage, the answers are others than just above, and
        agents that never saw it chose to send.
    """

    low_mbps: float = 0.0
    high_mbps: float = PAPER_MBPS
    low_share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.low_mbps < self.high_mbps < math.inf:
            raise ConfigError(
                f"bandwidths run from {self.low_mbps} to {self.high_mbps}: the limits must be finite, at least 0, the "
                "lower one first"
            )

        if not 0 <= self.low_share <= 1:
            raise ConfigError(f"low_share is {self.low_share}: it must lie in 0..1")

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws."""
        drawn = rng.uniform(self.low_mbps, self.high_mbps, count)
        return np.where(rng.random(count) < self.low_share, self.low_mbps, drawn)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A recorded link, looked at every `interval_s` from a random moment on; the trace plays in a loop."""

    trace: Trace
    interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.interval_s) and self.interval_s > 0):
            raise ConfigError(f"interval_s is {self.interval_s}: it must be finite and above 0")

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """The trace from a moment drawn evenly."""
        start_s = rng.uniform(0.0, self.trace.end_s)
        return np.array([self.trace.at(start_s + i * self.interval_s) for i in range(count)])


class DecisionEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Exit, cut and bits as a task for an agent. An episode is cut off (truncated) after `steps`; it never ends itself.

    Observations are `Decisions.observe`: (4,), float32 within -1..1. Before the first step the action before is one
    drawn at random, so that an agent learns to start from any.
    """

    def __init__(self, decisions: Decisions, bandwidths: Bandwidths | None = None, *, steps: int = 32) -> None:
        if steps < 1:
            raise ConfigError(f"steps is {steps}: an episode must have at least 1")
        self.decisions, self.steps = decisions, steps
        self.bandwidths: Bandwidths = Uniform() if bandwidths is None else bandwidths
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(decisions))
        self._mbps: list[float] = []
        self._at = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._mbps = [float(value) for value in self.bandwidths.draw(self.steps + 2, self.np_random)]
        self._at = 1
        before = int(self.np_random.integers(len(self.decisions)))
        state = self.decisions.after(before, self._mbps[0], self._mbps[1])
        return self.decisions.observe(state), _told(state, state.mbps)

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Run one inference; the reward is eq. 14's at the bandwidth the agent saw."""
        if not 1 <= self._at <= self.steps:
            raise ConfigError("the episode is over or has not begun: call reset first")
        now, chosen = self._mbps[self._at], int(action)
        reward = float(self.decisions.rewards(now)[chosen])
        self._at += 1
        state = self.decisions.after(chosen, now, self._mbps[self._at])
        return self.decisions.observe(state), reward, False, self._at > self.steps, _told(state, now)


def _told(state: State, taken_mbps: float) -> dict[str, float]:
    """What happened, in plain units: the last action, and the bandwidth it ran at."""
    return {
        "latency_ms": state.latency_ms, "energy_mj": state.energy_mj, "accuracy": state.accuracy, "mbps": taken_mbps,
    }  # fmt: skip
