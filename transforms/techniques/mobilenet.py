"""C1: a depthwise and a pointwise convolution [Wang 2020, table II; Howard 2017]."""

import torch
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.technique import Samples, Technique, Variant, dense_convolution, like, must_save


class MobileNet(Technique):
    """k x k convolution -> k x k depthwise, 1x1 pointwise. The rate has no meaning (1).

    Nothing stands between the two, so that the best separable approximation of the kernel (a singular vector for every
    input channel) is where it starts.
    """

    id, name, rates = "C1", "mobilenet", (1.0,)

    def structure(self, unit: Unit, rate: float) -> Variant:
        conv = dense_convolution(unit, self.name)
        depthwise = like(conv, conv.in_channels, conv.in_channels, groups=conv.in_channels)
        area = conv.kernel_size[0] * conv.kernel_size[1]
        pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
        macs = conv.in_channels * (area + conv.out_channels) * pixels
        must_save(unit, macs, conv.in_channels * conv.out_channels * area * pixels, self.name)
        return Variant(unit, nn.Sequential(depthwise, nn.Conv2d(conv.in_channels, conv.out_channels, 1)))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        depthwise, pointwise = variant.core.children()
        spatial, mixing = separate(unit.op.weight.detach(), 1)
        depthwise.weight.copy_(spatial[:, 0].reshape(depthwise.weight.shape))
        pointwise.weight.copy_(mixing[:, 0].T[..., None, None])
        pointwise.bias.copy_(bias_of(unit.op))


def separate(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Best approximation of every input channel's kernels by `rank` spatial kernels.

    weight : (out, in, kh, kw) -> spatial (in, rank, kh * kw) and mixing (in, rank, out).
    """
    matrices = weight.permute(1, 0, 2, 3).flatten(2)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    root = values[:, :rank].sqrt()
    return root[..., None] * right[:, :rank], (left[:, :, :rank] * root[:, None]).transpose(1, 2)
