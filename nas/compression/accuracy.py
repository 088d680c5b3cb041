"""Accuracy of composed networks, measured on images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compile.program_file import read_program
from nas.compression.library import Choice, Library
from nas.jobs.batches import channels_together, images_at_once
from nas.jobs.executors import Executor
from nas.jobs.progress import Progress, silent
from nas.quality.measure import TOP1, Measure, percent
from transforms import Network, analyse, compose

ChoicePlan = Mapping[int, Choice]


def top1(
    network: nn.Module, images: torch.Tensor, labels: np.ndarray, at_once: int = 128, measure: Measure = TOP1
) -> float:  # fmt: skip
    """Percent of `images` (n, c, h, w), normalised, whose highest output is their label, or what else a measure says.

    labels : (n, ...), what `measure` holds answers against.
    """
    with torch.no_grad():
        scores = [
            measure.scores(network(images[start : start + at_once]), labels[start : start + at_once])
            for start in range(0, len(labels), at_once)
        ]
    return percent(scores)


@dataclass(frozen=True, kw_only=True)
class _Context:
    program: Path
    library: Library
    images: torch.Tensor
    labels: np.ndarray
    measure: Measure


def measure_compositions(
    program: Path, library: Library, plans: Sequence[ChoicePlan], images: torch.Tensor, labels: np.ndarray,
    executor: Executor, progress: Progress = silent, measure: Measure = TOP1,
) -> list[float]:  # fmt: skip
    """Accuracy, in percent, of the base network with each plan's variants plugged in, as they are in the library.

    images : (n, c, h, w), normalised. labels : (n,).
    """
    context = _Context(program=program, library=library, images=images, labels=labels, measure=measure)
    found = [0.0] * len(plans)
    progress(0, len(plans), "compositions")
    for done, (index, accuracy) in enumerate(executor.run(_setup, _measure, context, [dict(p) for p in plans]), 1):
        found[index] = accuracy
        progress(done, len(plans), "compositions")
    return found


def _setup(context: _Context) -> tuple[_Context, Network]:
    return context, analyse(read_program(context.program))


def _measure(state: tuple[_Context, Network], plan: dict[int, Choice]) -> float:
    context, network = state
    whole = compose(network, 0, len(network.spec.segments), context.library.variants(network, plan))
    return top1(whole, channels_together(context.images), context.labels, images_at_once(network.spec), context.measure)
