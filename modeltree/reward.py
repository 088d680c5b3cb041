"""What a model is worth: accuracy against latency [Wang 2020, eq. 7]."""

from typing import overload

import msgspec
import numpy as np

from modeltree.errors import ConfigError


class Reward(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """R = N1(A) + N2(T) [Wang 2020, eq. 7], both min-max normalised; the paper's numbers are the defaults, 400 in all.

    Linear and *not* clipped: a latency over the maximum counts against the model, and the mean reward of several paths
    is the reward of their mean accuracy and latency, which the tree's backward pass relies on.

    accuracy_weight, latency_weight : reward at the best accuracy and at the best latency.
    min_accuracy, max_accuracy : percent.
    """

    accuracy_weight: float = 100.0
    latency_weight: float = 300.0
    min_accuracy: float = 50.0
    max_accuracy: float = 100.0
    min_latency_ms: float = 0.0
    max_latency_ms: float = 500.0

    def __post_init__(self) -> None:
        if not (0 <= self.accuracy_weight < np.inf and 0 <= self.latency_weight < np.inf):
            weights = (self.accuracy_weight, self.latency_weight)
            raise ConfigError(f"the reward's weights are {weights}: they must be finite and at least 0")
        for what, low, high in (
            ("accuracy", self.min_accuracy, self.max_accuracy),
            ("latency_ms", self.min_latency_ms, self.max_latency_ms),
        ):
            if not (-np.inf < low < high < np.inf):
                raise ConfigError(f"{what} runs from {low} to {high}: the limits must be finite, the lower one first")

    @property
    def per_ms(self) -> float:
        """What a millisecond costs."""
        return self.latency_weight / (self.max_latency_ms - self.min_latency_ms)

    @overload
    def of(self, accuracy: float, latency_ms: float) -> float: ...
    @overload
    def of(self, accuracy: np.ndarray, latency_ms: np.ndarray | float) -> np.ndarray: ...
    @overload
    def of(self, accuracy: float, latency_ms: np.ndarray) -> np.ndarray: ...
    def of(self, accuracy: float | np.ndarray, latency_ms: float | np.ndarray) -> float | np.ndarray:
        """The reward of an accuracy in percent and a latency in ms; numbers, or arrays that broadcast together."""
        n1 = (accuracy - self.min_accuracy) / (self.max_accuracy - self.min_accuracy)
        n2 = (self.max_latency_ms - latency_ms) / (self.max_latency_ms - self.min_latency_ms)
        return self.accuracy_weight * n1 + self.latency_weight * n2
