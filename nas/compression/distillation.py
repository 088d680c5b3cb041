"""Training one variant to do what its base layer does: block-wise knowledge distillation."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from nas.data import Dataset
from nas.jobs.batches import channels_together
from nas.training.train import one_cycle
from transforms import Variant

_AT_ONCE = 2**24  # numbers of a feature map, for all images of a batch
_SMALL_STEPS = 40  # where there are few training images


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """How a variant is distilled.

    steps : of Adam at most, in `rounds` of which each has a one-cycle rate; a round that gains less than a share of
        `settled` of the error is the last.
    batch_size : images a step.
    lr : highest rate for a variant that starts far from its target; one that starts near (a relative error under
        `near`) gets a tenth, so that a good start is not thrown away.
    enough : relative error of the network's output with a variant that needs no steps at all.
    """

    steps: int = 200
    rounds: int = 4
    batch_size: int = 64
    lr: float = 3e-3
    near: float = 0.15
    settled: float = 0.1
    enough: float = 2e-3
    seed: int = 0

    @classmethod
    def of(cls, dataset: Dataset, seed: int) -> "DistilConfig":
        """What a data set of this size asks for."""
        return cls(steps=_SMALL_STEPS if dataset.small else cls.steps, seed=seed)


def relative_error(variant: Variant, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean squared error over the targets' variance: 0 is perfect, 1 is no better than their mean.

    inputs, targets : (n, *shape) of what enters and of what shall come out.
    """
    with torch.no_grad():
        at_once = max(1, min(128, _AT_ONCE // max(inputs[0].numel(), targets[0].numel())))
        parts = zip(inputs.split(at_once), targets.split(at_once))
        error = sum(float((variant(channels_together(x)) - y).double().square().sum()) for x, y in parts)
    return error / max(float(targets.double().var()) * targets.numel(), 1e-30)


def distil(
    variant: Variant, inputs: torch.Tensor, targets: torch.Tensor, held_back: tuple[torch.Tensor, torch.Tensor],
    config: DistilConfig,
) -> tuple[Variant, float]:  # fmt: skip
    """Train a copy of `variant` to give `targets` (n, *out_shape) for `inputs` (n, *in_shape).

    Returns the best of the start and what every round ended with, by relative error on the held-back pair, and that
    error. Deterministic for a given config and number of threads.
    """
    best, least = variant, relative_error(variant, *held_back)
    if not any(True for _ in variant.parameters()):
        return best, least
    trained = copy.deepcopy(variant).train()
    rng = torch.Generator().manual_seed(config.seed)
    peak = config.lr if least > config.near else config.lr / 10
    optimiser = torch.optim.Adam(trained.parameters(), lr=peak)
    batches = _batches(inputs, targets, config.batch_size, rng)
    for _ in range(config.rounds):
        _round_(trained, optimiser, batches, max(1, config.steps // config.rounds), peak)
        error = relative_error(trained.eval(), *held_back)
        gained = 1.0 - error / max(least, 1e-30)
        if error < least:
            best, least = copy.deepcopy(trained), error
        if gained < config.settled:
            break
    return best, least


def _round_(
    trained: Variant, optimiser: torch.optim.Optimizer, batches: Iterator[tuple[torch.Tensor, torch.Tensor, float]],
    steps: int, peak: float,
) -> None:  # fmt: skip
    """Some steps in place, with a rate that rises to `peak` and falls to nothing."""
    trained.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = peak * one_cycle((step + 0.5) / steps)
        x, y, scale = next(batches)
        loss = (trained(x) - y).square().mean() / scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _batches(
    inputs: torch.Tensor, targets: torch.Tensor, size: int, rng: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Inputs, targets and the targets' variance, without end, every pass in another order."""
    scale = max(float(targets[:1024].var()), 1e-12)
    while True:
        order = torch.randperm(len(inputs), generator=rng)
        for chosen in order.split(size)[: max(1, len(order) // size)]:
            positions = chosen.sort().values
            yield channels_together(inputs[positions]), channels_together(targets[positions]), scale
