"""What parts of the base network lose in accuracy when they are computed in another number format."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from compile.numerics import Numerics
from nas.jobs.batches import images_at_once
from nas.jobs.progress import Progress
from transforms import Network

SIGNED = True
"""Codes with a sign always, as on ARM: x86 has twice the levels where nothing is negative, and loses less."""


def format_drops(
    network: Network, cuts: Sequence[int], names: Sequence[str], judged: tuple[torch.Tensor, np.ndarray],
    progress: Progress,
) -> list[tuple[int, int, tuple[float, ...]]]:  # fmt: skip
    """(start, stop, points lost per format) of every block, and of the whole network.

    judged : normalised images (n, channels, height, width) and labels (n,).
    """
    blocks = list(itertools.pairwise(cuts))
    parts = list(dict.fromkeys([*blocks, (cuts[0], cuts[-1])]))
    modules = [network.between(start, stop).eval() for start, stop in blocks]
    plain = _accuracy(network, blocks, modules, (0, 0), "f32", judged)
    found = []
    for done, (start, stop) in enumerate(parts):
        progress(done, len(parts), "number formats")
        lost = tuple(plain - _accuracy(network, blocks, modules, (start, stop), name, judged) for name in names)
        found.append((start, stop, lost))
    progress(len(parts), len(parts), "number formats")
    return found


def _accuracy(
    network: Network, blocks: Sequence[tuple[int, int]], modules: Sequence[torch.nn.Module], part: tuple[int, int],
    name: str, judged: tuple[torch.Tensor, np.ndarray],
) -> float:  # fmt: skip
    """Percent right with the blocks inside a part in a format."""
    images, labels = judged
    right, at_once = 0, images_at_once(network.spec)
    with torch.no_grad():
        for first in range(0, len(labels), at_once):
            x = images[first : first + at_once]
            for (start, stop), module in zip(blocks, modules):
                inside = part[0] <= start and stop <= part[1]
                with Numerics(name if inside else "f32", signed=SIGNED):
                    x = module(x)
            right += int((x.argmax(1).numpy() == labels[first : first + at_once]).sum())
    return 100.0 * right / max(len(labels), 1)
