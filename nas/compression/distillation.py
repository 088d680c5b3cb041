"""Training one variant to do what its base layer does: block-wise knowledge distillation."""

import copy
from dataclasses import dataclass

import torch

from transforms import Variant

_AT_ONCE = 2**24  # numbers of a feature map, for all images of a batch


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """How a variant is distilled.

    steps : of Adam with a one-cycle rate.
    batch_size : images a step.
    lr : highest rate for a variant that starts far from its target; one that starts near (a relative error under
        `near`) gets a tenth, so that a good start is not thrown away, and one under `done` is left as it is.
    """

    steps: int = 200
    batch_size: int = 64
    lr: float = 3e-3
    near: float = 0.15
    done: float = 1e-4
    seed: int = 0


def relative_error(variant: Variant, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean squared error over the targets' variance: 0 is perfect, 1 is no better than their mean.

    inputs, targets : (n, *shape) of what enters and of what shall come out.
    """
    with torch.no_grad():
        at_once = max(1, min(128, _AT_ONCE // max(inputs[0].numel(), targets[0].numel())))
        parts = zip(inputs.split(at_once), targets.split(at_once))
        error = sum(float((variant(x) - y).double().square().sum()) for x, y in parts)
    return error / max(float(targets.double().var()) * targets.numel(), 1e-30)


def distil(
    variant: Variant, inputs: torch.Tensor, targets: torch.Tensor, held_back: tuple[torch.Tensor, torch.Tensor],
    config: DistilConfig,
) -> tuple[Variant, float]:  # fmt: skip
    """Train a copy of `variant` to give `targets` (n, *out_shape) for `inputs` (n, *in_shape).

    Returns the better of the start and the trained one, by relative error on the held-back pair, and that error.
    Deterministic for a given config and number of threads.
    """
    start = relative_error(variant, *held_back)
    if start <= config.done or not any(True for _ in variant.parameters()):
        return variant, start
    trained = copy.deepcopy(variant).train()
    rng = torch.Generator().manual_seed(config.seed)
    peak = config.lr if start > config.near else config.lr / 10
    optimiser = torch.optim.Adam(trained.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=config.steps)
    scale = max(float(targets[:1024].var()), 1e-12)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        if len(order) < config.batch_size:
            order = torch.randperm(len(inputs), generator=rng)
        chosen, order = order[: config.batch_size].sort().values, order[config.batch_size :]
        loss = (trained(inputs[chosen]) - targets[chosen]).square().mean() / scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    trained.eval()
    end = relative_error(trained, *held_back)
    return (trained, end) if end < start else (variant, start)
