"""A3C with one joint head: an output for every combination of choices, which is what grows out of hand [Li 2023]."""

import math
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from nas.agents.a3c.training import A3cConfig, MakeEnv, Trained, train

MOST_OUTPUTS = 60_000


@dataclass(frozen=True)
class OneHeadForAll:
    """A single head over all combinations of choices, `shape` options each."""

    shape: tuple[int, ...]
    heads: int = 1

    @property
    def options(self) -> int:
        """As many as there are combinations."""
        return math.prod(self.shape)

    def actions(self, chosen: np.ndarray) -> np.ndarray:
        """(B, 1) combinations as (B, choices)."""
        return np.stack(np.unravel_index(chosen[:, 0], self.shape), 1)


def choices(options: np.ndarray) -> OneHeadForAll:
    """For an action space of so many options each; options : (choices,).

    Raises
    ------
    ConfigError : there are more than `MOST_OUTPUTS` combinations.
    """
    joint = OneHeadForAll(tuple(int(count) for count in options))
    if joint.options > MOST_OUTPUTS:
        raise ConfigError(f"a joint head needs {joint.options} outputs: {MOST_OUTPUTS} at most; use multi-task A3C")
    return joint


def train_joint(make: MakeEnv, config: A3cConfig) -> Trained:
    """Train it on a MultiDiscrete environment."""
    return train(make, choices(make(1).single_action_space.nvec), config)  # type: ignore[attr-defined]
