"""Whether a base network has learnt anything: asked before hours are spent on compressing it.

A network that is right as often as a guess loses nothing by compression, so that any tree of it looks as good as the
network itself.
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from modeltree.errors import DataError
from nas.data.dataset import Dataset, ImageSet

_IMAGES, _BATCH = 500, 125
_SIGMAS = 3.0


def fault(model: nn.Module, dataset: Dataset, images: ImageSet) -> str | None:
    """What keeps a network from being worth a search, in words; None where nothing does.

    It is judged on 500 of `images` at most, by the mean of its classes' shares of right answers: a guess, or always the
    same answer, gets one over the number of classes there, however many images each class has.

    Raises
    ------
    DataError : it answers with numbers that are not finite, or not with one number a class.
    """
    chosen = np.sort(np.random.default_rng(5).permutation(len(images))[:_IMAGES])
    labels, answers = images.labels[chosen], _answers(model, dataset, images, chosen)
    there = np.unique(labels)
    if len(there) < 2:
        return None
    if len(np.unique(answers)) == 1:
        name = dataset.classes[answers[0]]
        return f"it answers {name!r} to all of {len(labels)} images of {len(there)} classes that it has not seen"
    right = np.mean([np.mean(answers[labels == label] == label) for label in there])
    guess = 1 / len(there)
    if right > guess + doubt(labels):
        return None
    return (
        f"it is right on {100 * right:.1f} % of {len(labels)} images that it has not seen (mean over {len(there)} "
        f"classes), where a guess is on {100 * guess:.1f} %"
    )


def doubt(labels: np.ndarray) -> float:
    """How far a guess may lie above its mean, as a share of right answers, by chance alone.

    Three standard deviations, but at most half the way from a guess to being right always.

    labels : (n,) integers.
    """
    counts = np.unique(labels, return_counts=True)[1]
    guess = 1 / len(counts)
    deviation = math.sqrt(float(np.sum(guess * (1 - guess) / counts))) / len(counts)
    return min(_SIGMAS * deviation, (1 - guess) / 2)


def _answers(model: nn.Module, dataset: Dataset, images: ImageSet, chosen: np.ndarray) -> np.ndarray:
    """The class (n,) that a network in eval mode gives each chosen image."""
    judged = copy.deepcopy(model).eval()
    classes = []
    with torch.no_grad():
        for start in range(0, len(chosen), _BATCH):
            part = np.asarray(images.images[chosen[start : start + _BATCH]])
            logits = judged(dataset.normalise(part))
            _check(logits, (len(part), len(dataset.classes)))
            classes.append(logits.argmax(1).numpy())
    return np.concatenate(classes)


def _check(logits: object, shape: tuple[int, int]) -> None:
    if not isinstance(logits, torch.Tensor) or logits.shape != shape:
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise DataError(
            f"the network answers {shape[0]} images with {what}: it must be one number a class, {shape}: pass a "
            f"classifier of {shape[1]} classes"
        )
    if not bool(torch.isfinite(logits).all()):
        raise DataError(
            "the network answers with numbers that are not finite: train it again, slower, or check its weights"
        )
