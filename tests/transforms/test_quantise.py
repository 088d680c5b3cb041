"""Straight-through quantisation gives the very numbers of the runtime's codec, and the gradient of its input."""

import numpy as np
import pytest
import torch

from modeltree.errors import ConfigError
from runtime.wire.codec import dequantise, quantise
from transforms.quantise import quantised


@pytest.mark.parametrize("bits", range(1, 17))
def test_values_are_those_of_the_codec_to_the_last_bit(bits):
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(24, 5, 4, 3, generator=generator) * torch.rand(24, 1, 1, 1, generator=generator) * 20
    x[0] = 3.7  # all alike
    x[1] = 0.0
    x[2] = x[2].relu()
    x[3] *= 1e-39  # below the normal numbers
    x[4] *= 1e36
    x[5] -= 1000.0
    wanted = np.concatenate([dequantise(quantise(np.ascontiguousarray(one[None]), bits)) for one in x.numpy()])
    np.testing.assert_array_equal(quantised(x, bits).numpy(), wanted)


def test_the_gradient_goes_straight_through():
    x = torch.randn(3, 8, requires_grad=True)
    weights = torch.arange(24.0).reshape(3, 8)
    (quantised(x, 2) * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_images_do_not_share_their_range():
    x = torch.tensor([[0.0, 1.0, 0.4], [0.0, 100.0, 40.0]])
    assert torch.equal(quantised(x, 1), torch.tensor([[0.0, 1.0, 0.0], [0.0, 100.0, 0.0]]))


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_widths_out_of_range_are_refused(bits):
    with pytest.raises(ConfigError, match="within"):
        quantised(torch.zeros(1, 2), bits)
