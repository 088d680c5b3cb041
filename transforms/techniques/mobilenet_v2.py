"""C2: an inverted residual [Wang 2020, table II; Sandler 2018]."""

import math

import torch
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.mobilenet import separate
from transforms.techniques.technique import Samples, Technique, Variant, dense_convolution, like, must_save


class Add(nn.Module):
    """The sum of two tensors, as a leaf that cost models see."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Elementwise sum of two maps, (n, c, h, w)."""
        return x + y


class InvertedResidual(nn.Module):
    """1x1 expansion, activation, k x k depthwise, 1x1 projection; plus the input where shapes allow."""

    def __init__(self, conv: nn.Conv2d, expansion: int, residual: bool) -> None:
        super().__init__()
        hidden = expansion * conv.in_channels
        self.expand = nn.Conv2d(conv.in_channels, hidden, 1)
        self.activation = nn.ReLU()
        self.depthwise = like(conv, hidden, hidden, groups=hidden)
        self.project = nn.Conv2d(hidden, conv.out_channels, 1)
        self.add = Add() if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in, h, w) -> (batch, out, h', w')."""
        y = self.project(self.depthwise(self.activation(self.expand(x))))
        return y if self.add is None else self.add(y, x)


class MobileNetV2(Technique):
    """k x k convolution -> inverted residual. The rate is the expansion factor.

    It starts from the `rate` best spatial kernels of every input channel; the activation behind the expansion starts as
    the identity, since what enters is the output of a rectifier.
    """

    id, name, rates, largest = "C2", "mobilenet_v2", (2.0, 1.0), math.inf

    def structure(self, unit: Unit, rate: float) -> Variant:
        conv = dense_convolution(unit, self.name)
        expansion = max(1, round(rate))
        area = conv.kernel_size[0] * conv.kernel_size[1]
        in_pixels = unit.core_in_shape[1] * unit.core_in_shape[2]
        out_pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
        hidden = expansion * conv.in_channels
        macs = hidden * (conv.in_channels * in_pixels + (area + conv.out_channels) * out_pixels)
        must_save(unit, macs, conv.in_channels * conv.out_channels * area * out_pixels, self.name)
        centred = conv.stride == (1, 1) and all(side % 2 == 1 for side in conv.kernel_size)
        residual = centred and unit.core_in_shape == unit.core_out_shape
        return Variant(unit, InvertedResidual(conv, expansion, residual))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        core, weight = variant.core, unit.op.weight.detach().clone()
        if core.add is not None:
            channels = torch.arange(weight.shape[0])
            weight[channels, channels, weight.shape[2] // 2, weight.shape[3] // 2] -= 1
        expansion = core.expand.out_channels // weight.shape[1]
        rank = min(expansion, weight.shape[2] * weight.shape[3])
        spatial, mixing = separate(weight, rank)
        core.expand.bias.zero_()
        core.expand.weight.zero_()
        core.depthwise.weight.zero_()
        core.project.weight.zero_()
        for r in range(rank):
            rows = torch.arange(weight.shape[1]) * expansion + r
            core.expand.weight[rows, torch.arange(weight.shape[1])] = 1.0
            core.depthwise.weight[rows, 0] = spatial[:, r].reshape(-1, *weight.shape[2:])
            core.project.weight[:, rows, 0, 0] = mixing[:, r].T
        core.project.bias.copy_(bias_of(unit.op))
