"""Programs that pass truths from stage to stage, drawn at random."""

import random
from collections.abc import Callable

import torch
from torch import nn

_MAKE_TRUTHS: tuple[Callable[..., torch.Tensor], ...] = (
    lambda a, b, x, y, c: x > y * c,
    lambda a, b, x, y, c: x <= c,
    lambda a, b, x, y, c: a & b,
    lambda a, b, x, y, c: a | b,
    lambda a, b, x, y, c: a ^ b,
    lambda a, b, x, y, c: ~a,
    lambda a, b, x, y, c: torch.logical_not(torch.logical_and(a, b)),
    lambda a, b, x, y, c: x.round() == y.round(),
    lambda a, b, x, y, c: x.round() != y.round(),
    lambda a, b, x, y, c: a.roll(1, -1),
    lambda a, b, x, y, c: a.flip(-1),
    lambda a, b, x, y, c: a.any(-1, keepdim=True).expand(a.shape) & b,
    lambda a, b, x, y, c: a.all(-1, keepdim=True) | b,
    lambda a, b, x, y, c: torch.where(a, b, x > c),
)
_MAKE_NUMBERS: tuple[Callable[..., torch.Tensor], ...] = (
    lambda a, b, x, y, c: torch.where(a, x, y + c),
    lambda a, b, x, y, c: x.masked_fill(a, c),
    lambda a, b, x, y, c: a.float() * y + c * x,
    lambda a, b, x, y, c: torch.relu(x) + a.float().cumsum(-1),
)


class TruthProgram(nn.Module):
    """3 to 14 operators on what the ones before gave; every result is part of the answer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.plan = [
            (rng.choice(_MAKE_TRUTHS + _MAKE_NUMBERS), [rng.random() for _ in range(4)], rng.uniform(-1, 1))
            for _ in range(rng.randint(3, 14))
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, ...) to (1, numbers)."""
        truths, numbers = [x > 0.1], [x]
        for make, picks, constant in self.plan:
            a, b = (truths[int(pick * len(truths))] for pick in picks[:2])
            y, z = (numbers[int(pick * len(numbers))] for pick in picks[2:])
            (truths if make in _MAKE_TRUTHS else numbers).append(make(a, b, y, z, constant))
        return torch.cat([one.flatten(1).float() for one in numbers[1:] + truths], 1)
