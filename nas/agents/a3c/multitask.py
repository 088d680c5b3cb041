"""Multi-task A3C: one actor head a block on a softly shared stack, one critic [Li 2023, sec. 4.3]."""

from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from nas.agents.a3c.training import A3cConfig, MakeEnv, Trained, train


@dataclass(frozen=True)
class OneHeadEach:
    """A head for every entry of the action."""

    heads: int
    options: int

    def actions(self, chosen: np.ndarray) -> np.ndarray:
        """(B, heads) as they are."""
        return chosen


def choices(options: np.ndarray) -> OneHeadEach:
    """For an action space of so many options each; options : (heads,).

    Raises
    ------
    ConfigError : some entries have more options than others.
    """
    counts = {int(count) for count in options}
    if len(counts) != 1:
        raise ConfigError(f"the action's entries have {sorted(counts)} options: all must have the same number")
    return OneHeadEach(len(options), counts.pop())


def train_multitask(make: MakeEnv, config: A3cConfig) -> Trained:
    """Train it on a MultiDiscrete environment."""
    return train(make, choices(make(1).single_action_space.nvec), config)  # type: ignore[attr-defined]
