"""Leaving by an early exit when its answer is sure: the entropy of its softmax is at most a threshold.

[Teerapittayanon 2016] takes exits so. The threshold is calibrated on images that nothing was trained on.
"""

from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError, DataError

LOST_BY_CONFIDENCE = 0.2
"""Points of accuracy, over all samples, that a search lets an exit by confidence cost."""


class Threshold(NamedTuple):
    """When samples leave, and what that does.

    entropy : in nats; a sample leaves at this or less.
    rate : share of samples that leave.
    loss : points of accuracy by which those that leave are less often right than if they had gone on; may be negative.
    """

    entropy: float
    rate: float
    loss: float


def largest_threshold(
    entropy: np.ndarray, right_here: np.ndarray, right_there: np.ndarray, *, max_loss: float
) -> Threshold:
    """The largest threshold that costs at most `max_loss` points of accuracy over all samples.

    It is chosen on every second image; rate and loss are measured on the others, so that they are not flattered.

    Parameters
    ----------
    entropy : (n,) of the exit's answers. right_here, right_there : (n,) bool, whether the exit's answer is right, and
        the answer of what follows if the sample goes on.

    Raises
    ------
    ConfigError : `max_loss` is negative. DataError : fewer than two images, or lengths that differ.
    """
    if not max_loss >= 0:
        raise ConfigError(f"max_loss is {max_loss} but must be 0 or more points of accuracy")
    if len(entropy) < 2 or not len(entropy) == len(right_here) == len(right_there):
        sizes = (len(entropy), len(right_here), len(right_there))
        raise DataError(f"there are {sizes} entropies and answers: pass two or more images, the same everywhere")
    lost = 100.0 * (right_there.astype(np.float64) - right_here)
    order = np.argsort(entropy[::2], kind="stable")
    rising = entropy[::2][order]
    cost = np.cumsum(lost[::2][order]) / len(order)
    whole = np.append(rising[1:] > rising[:-1], True)  # equal entropies leave together
    allowed = np.flatnonzero(whole & (cost <= max_loss))
    threshold = float(rising[allowed[-1]]) if len(allowed) else 0.0
    leaves = entropy[1::2] <= threshold
    loss = float(lost[1::2][leaves].mean()) if leaves.any() else 0.0
    return Threshold(entropy=threshold, rate=float(leaves.mean()), loss=loss)
