"""What parts of the base network lose in accuracy when they are computed in another number format."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from compile.numerics import Numerics
from nas.compression.accuracy import top1
from nas.jobs.batches import images_at_once
from nas.jobs.progress import Progress
from nas.quality.measure import TOP1, Measure
from transforms import Network

SIGNED = True
"""Codes with a sign always, as on ARM: x86 has twice the levels where nothing is negative, and loses less."""


class InFormat(nn.Module):
    """A network's blocks one after the other, those of a part in a number format.

    cuts : places where the network is sliced. part : (start, stop), places among them; equal ones are no part.
    """

    def __init__(self, network: Network, cuts: Sequence[int], part: tuple[int, int], name: str) -> None:
        super().__init__()
        self.blocks = list(itertools.pairwise(cuts))
        self.parts = nn.ModuleList(network.between(start, stop) for start, stop in self.blocks)
        self.part, self.name = part, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) -> (batch, ...)."""
        for (start, stop), module in zip(self.blocks, self.parts):
            inside = self.part[0] <= start and stop <= self.part[1]
            with Numerics(self.name if inside else "f32", signed=SIGNED):
                x = module(x)
        return x


def format_drops(
    network: Network, cuts: Sequence[int], names: Sequence[str], judged: tuple[torch.Tensor, np.ndarray],
    progress: Progress, measure: Measure = TOP1,
) -> list[tuple[int, int, tuple[float, ...]]]:  # fmt: skip
    """(start, stop, points lost per format) of every block, and of the whole network.

    judged : normalised images (n, channels, height, width) and what `measure` holds answers against, (n, ...).
    """
    parts = list(dict.fromkeys([*itertools.pairwise(cuts), (cuts[0], cuts[-1])]))
    at_once = images_at_once(network.spec)

    def accuracy(part: tuple[int, int], name: str) -> float:
        return top1(InFormat(network, cuts, part, name).eval(), *judged, at_once, measure)

    plain, found = accuracy((0, 0), "f32"), []
    for done, part in enumerate(parts):
        progress(done, len(parts), "number formats")
        found.append((*part, tuple(plain - accuracy(part, name) for name in names)))
    progress(len(parts), len(parts), "number formats")
    return found
