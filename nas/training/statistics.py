"""Batch-norm statistics of the weights that training ended with.

While it trains, a network normalises each batch by the batch's own mean and variance and keeps running averages of
them for inference. Where their momentum is small beside the number of steps, the averages still describe weights of
long before: a network that has learnt everything answers at chance. So they are taken again when the weights stand.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # what all of them are

from nas.data.dataset import Dataset

_IMAGES, _BATCH = 2048, 128


def recalibrate_(model: nn.Module, batches: Iterable[torch.Tensor]) -> int:
    """Replace the running mean and variance of every batch norm by their averages over `batches`.

    All else is as at inference (no dropout); weights and modes stay as they are.

    Parameters
    ----------
    batches : normalised images (n, channels, height, width), n at least 2, where the model is.

    Returns
    -------
    How many layers have statistics; without any, no batch is looked at.
    """
    layers = [one for one in model.modules() if isinstance(one, BatchNorm) and one.running_mean is not None]
    if not layers:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
            layer.momentum = None  # the plain average of all batches
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(layers)


def calibration_batches(dataset: Dataset, place: torch.device, seed: int) -> Iterable[torch.Tensor]:
    """Training images as they come at inference, neither shifted nor mirrored; 2048 at most, in like batches."""
    chosen = np.random.default_rng([seed, 4]).permutation(len(dataset.fit))[:_IMAGES]
    for part in np.array_split(chosen, -(-len(chosen) // _BATCH)):
        yield dataset.normalise(torch.from_numpy(np.asarray(dataset.fit.images[np.sort(part)])).to(place))
