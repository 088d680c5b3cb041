"""What a task in time is worth [Song 2021, eq. 1]."""

import math

import msgspec
import numpy as np

from modeltree.errors import ConfigError


class Gain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """G = ceil(A) + alpha / (1 + exp(-beta (A - A_min))) [Song 2021, eq. 1]: one task done, and how well.

    alpha, beta : the paper's 0.1 and 16 (section IV-A).
    """

    alpha: float = 0.1
    beta: float = 16.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} of the gain is {value}: it must be finite and at least 0")

    def of(self, accuracy: np.ndarray, least: float) -> np.ndarray:
        """Gains of accuracies; 0 for accuracy 0, the task that is not run.

        Parameters
        ----------
        accuracy : any shape, each 0..1. least : A_min, the accuracy of the worst exit.
        """
        accuracy = np.asarray(accuracy, dtype=np.float64)
        better = self.alpha / (1.0 + np.exp(-self.beta * (accuracy - least)))
        return np.where(accuracy > 0, np.ceil(accuracy) + better, 0.0)
