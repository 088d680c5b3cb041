"""Refitted layers against numpy's least squares."""

import numpy as np
import pytest
import torch
from torch import nn

from transforms.techniques.least_squares import refit_


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_the_best_for_its_new_inputs_with_and_without_a_bias(bias):
    torch.manual_seed(0)
    inputs, layer = torch.randn(500, 6) + 2, nn.Linear(6, 3, bias=bias)
    targets = inputs @ torch.randn(6, 3) + 1
    with torch.no_grad():
        refit_(layer, inputs, targets)
        error = float((layer(inputs) - targets).square().mean())
    known = np.hstack([inputs.numpy(), np.ones((500, int(bias)), np.float32)])
    best = known @ np.linalg.lstsq(known, targets.numpy(), rcond=None)[0]
    allowed = 0.02 * float(targets.var())  # it is drawn a little towards what the layer was
    assert error <= float(np.square(best - targets.numpy()).mean()) + allowed
