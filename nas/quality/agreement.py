"""How far answers agree with the base network's, by the kind of output.

classes     the share of highest logits that are the same: over the last axis, (classes,) or (rows, classes)
pixels      the share of pixels whose highest channel is the same: (channels, height, width); of one channel, its sign
embedding   the cosine, over the last axis; below 0 counts as 0
numbers     1 less the squared error over the base network's variance; below 0 counts as 0

Several outputs count alike. The base network itself scores 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modeltree.outputs import Output, OutputKind

_PIXELS_SHARE = 4
"""A map is taken for pixels from a quarter of the image's sides on; detectors' grids are smaller."""


def usual_kind(shape: tuple[int, ...], image: tuple[int, ...]) -> OutputKind:
    """What an output of this shape is taken for unless the user says: `numbers`, which is right for anything, but a map
    of two channels or more that is nearly as large as the image, (channels, height, width), has classes of pixels.
    """
    if (
        len(shape) == 3
        and shape[0] > 1
        and all(_PIXELS_SHARE * side >= whole for side, whole in zip(shape[1:], image[1:]))
    ):
        return "pixels"
    return "numbers"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Targets are the base network's own answers, (n, *answer_shape).

    variances : per output, of the base network's answers; what `numbers` are held against.
    chance : percent that the mean answer gets.
    """

    outputs: tuple[Output, ...]
    variances: tuple[float, ...]
    chance: float | None = None
    name: str = "agreement"

    def scores(self, answers: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        given, wanted = answers.flatten(1), torch.from_numpy(targets).flatten(1)
        total, at = torch.zeros(len(given), dtype=torch.float64), 0
        for output, variance in zip(self.outputs, self.variances):
            part = slice(at, at + output.size)
            one, other = (x[:, part].reshape(-1, *output.shape) for x in (given, wanted))
            total += _SCORES[output.kind](one, other, variance)
            at += output.size
        return (total / len(self.outputs)).numpy()


def agreement(outputs: Sequence[Output], answers: np.ndarray) -> Agreement:
    """The measure whose scale comes from the base network's answers, (n, *answer_shape), n at least 2."""
    flat, at, variances = answers.reshape(len(answers), -1), 0, []
    for output in outputs:
        part = flat[:, at : at + output.size]
        variances.append(float(max(part.var(axis=0, dtype=np.float64).mean(), 1e-12)))
        at += output.size
    plain = Agreement(outputs=tuple(outputs), variances=tuple(variances))
    constant = np.broadcast_to(flat.mean(axis=0, dtype=np.float64).astype(np.float32), flat.shape)
    chance = 100.0 * float(plain.scores(torch.tensor(constant), answers).mean())
    return Agreement(outputs=tuple(outputs), variances=tuple(variances), chance=chance)


def _classes(one: torch.Tensor, other: torch.Tensor, variance: float) -> torch.Tensor:
    return _per_image(one.argmax(-1) == other.argmax(-1))


def _pixels(one: torch.Tensor, other: torch.Tensor, variance: float) -> torch.Tensor:
    if one.shape[1] == 1:
        return _per_image((one > 0) == (other > 0))
    return _per_image(one.argmax(1) == other.argmax(1))


def _embedding(one: torch.Tensor, other: torch.Tensor, variance: float) -> torch.Tensor:
    return _per_image(torch.cosine_similarity(one.double(), other.double(), dim=-1)).clamp(0.0, 1.0)


def _numbers(one: torch.Tensor, other: torch.Tensor, variance: float) -> torch.Tensor:
    return (1.0 - _per_image((one.double() - other.double()).square()) / variance).clamp(0.0, 1.0)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.double().reshape(len(values), max(1, math.prod(values.shape[1:]))).mean(1)


_SCORES = {"classes": _classes, "pixels": _pixels, "embedding": _embedding, "numbers": _numbers}
