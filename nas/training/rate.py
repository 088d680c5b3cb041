"""A learning-rate check: a few steps from the start at the recipe's peak, lower where they fail.

Recipes fit networks that normalise what flows through them. One that does not may diverge within ten steps at the same
rate, and ends at chance or in numbers that are not finite after minutes. So its first steps are tried on a copy. Where
every convolution has a batch norm nothing is tried, for there is nothing to fear, and the steps take their time.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError
from nas.data.dataset import Dataset
from nas.training.train import TrainConfig, cross_entropy, new_optimiser

_STEPS, _WARM = 24, 8
_LOWER, _TRIES = 3.0, 5
_WORSE = 0.1  # in nats above where it began: more than the noise of a batch


def checked_rate(model: nn.Module, dataset: Dataset, config: TrainConfig) -> TrainConfig:
    """The config with the highest of its rate, a third of it, a ninth and so on at which the first steps do no harm.

    Deterministic; the model is left as it is. One that normalises behind every convolution is taken at its word.

    Raises
    ------
    ConfigError : none of five rates does: the network or the data is broken.
    """
    if _normalises(model):
        return config
    for power in range(_TRIES):
        tried = replace(config, lr=config.lr / _LOWER**power)
        before, after = _first_steps(model, dataset, tried)
        if math.isfinite(after) and after <= before + _WORSE:
            return tried
    raise ConfigError(
        f"the first {_STEPS} steps make the network worse at any rate from {config.lr:g} to {tried.lr:.2g} (a loss of "
        f"{before:.3g} becomes {after:.3g}): look at its layers, its input and the labels"
    )


def _normalises(model: nn.Module) -> bool:
    """Whether there are as many batch norms as convolutions, and any."""
    parts = list(model.modules())
    norms, convolutions = (
        sum(isinstance(part, kind) for part in parts)
        for kind in (nn.modules.batchnorm._BatchNorm, nn.modules.conv._ConvNd)
    )
    return norms >= convolutions > 0


def _first_steps(model: nn.Module, dataset: Dataset, config: TrainConfig) -> tuple[float, float]:
    """Mean loss of the first and of the last steps of a short training, warmed up as the whole one is."""
    student = copy.deepcopy(model).train()
    optimiser, criterion = new_optimiser(student, config), cross_entropy(config)
    rng = np.random.default_rng([config.seed, 6])
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for step in range(_STEPS):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / _WARM)
            count = min(config.batch_size, len(dataset.fit))
            chosen = np.sort(rng.choice(len(dataset.fit), count, replace=False))
            labels = torch.from_numpy(dataset.fit.labels[chosen])
            loss = criterion(student(dataset.normalise(np.asarray(dataset.fit.images[chosen]))), labels)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return float(np.mean(losses[:2])), float(np.median(losses[-_WARM:])) if math.isfinite(losses[-1]) else math.inf
