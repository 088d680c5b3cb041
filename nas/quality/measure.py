"""What accuracy means for a network."""

from typing import Protocol

import numpy as np
import torch

from modeltree.errors import DataError


class Measure(Protocol):
    """Scores answers from 0, worthless, to 1; what the search, the predictor and the report call accuracy, in percent.

    It can be pickled: worker processes score too.
    """

    @property
    def name(self) -> str:
        """What a reader calls it."""

    @property
    def chance(self) -> float | None:
        """Percent that an answer gets which knows nothing of its image; None: one over the number of classes."""

    def scores(self, answers: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        """(n,) float64, of answers (n, ...) as the network gives them and what they should be, (n, ...)."""


class Top1:
    """Whether the highest logit is the label: answers (n, classes), targets (n,) integers."""

    name = "accuracy"
    chance: float | None = None

    def scores(self, answers: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        right: np.ndarray = (answers.argmax(1) == torch.from_numpy(targets)).numpy()
        return right.astype(np.float64)


TOP1 = Top1()


def percent(scores: list[np.ndarray]) -> float:
    """The mean of all scores, each (n,), in percent.

    Raises
    ------
    DataError : there are none.
    """
    count = sum(map(len, scores))
    if not count:
        raise DataError("there are no images to measure on: pass data with some")
    return 100.0 * float(sum(one.sum() for one in scores)) / count
