"""T2: a convolution as 1x1, k x k, 1x1 by Tucker decomposition over channels [Kim 2016]; beyond the paper."""

import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.technique import Samples, Technique, Variant, bias_of, dense_convolution, like, must_save


class Tucker2(Technique):
    """k x k convolution -> 1x1 to r_in, k x k from r_in to r_out, 1x1 to out. The rate is r as a share of channels."""

    id, name, rates = "T2", "tucker2", (0.5, 0.25)

    def structure(self, unit: Unit, rate: float) -> Variant:
        conv = dense_convolution(unit, self.name)
        r_in, r_out = (max(1, round(rate * c)) for c in (conv.in_channels, conv.out_channels))
        area = conv.kernel_size[0] * conv.kernel_size[1]
        r_out = min(r_out, r_in * area)  # more directions than the middle layer has inputs are redundant
        in_pixels = unit.core_in_shape[1] * unit.core_in_shape[2]
        out_pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
        macs = conv.in_channels * r_in * in_pixels + (r_in * r_out * area + r_out * conv.out_channels) * out_pixels
        must_save(unit, macs, conv.in_channels * conv.out_channels * area * out_pixels, self.name)
        first, last = nn.Conv2d(conv.in_channels, r_in, 1, bias=False), nn.Conv2d(r_out, conv.out_channels, 1)
        return Variant(unit, nn.Sequential(first, like(conv, r_in, r_out), last))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        first, middle, last = variant.core.children()
        weight = unit.op.weight.detach()
        with tensorly.backend_context("pytorch"):
            (core, (out_factor, in_factor)), _ = partial_tucker(
                weight, rank=[middle.out_channels, middle.in_channels], modes=[0, 1], n_iter_max=10
            )
        first.weight.copy_(torch.as_tensor(in_factor).T[..., None, None])
        middle.weight.copy_(core)
        last.weight.copy_(torch.as_tensor(out_factor)[..., None, None])
        last.bias.copy_(bias_of(unit.op))
