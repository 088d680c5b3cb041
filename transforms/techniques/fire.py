"""C3: a Fire layer [Wang 2020, table II; Iandola 2016]."""

import torch
from torch import nn

from modeltree.errors import NotApplicable
from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.technique import Samples, Technique, Variant, dense_convolution, like, must_save


class FireLayer(nn.Module):
    """1x1 squeeze, activation, then 1x1 and k x k expansions side by side."""

    def __init__(self, conv: nn.Conv2d, squeezed: int) -> None:
        super().__init__()
        half = conv.out_channels // 2
        self.squeeze = nn.Conv2d(conv.in_channels, squeezed, 1)
        self.activation = nn.ReLU()
        self.expand_point = nn.Conv2d(squeezed, half, 1, stride=(conv.stride[0], conv.stride[1]))
        self.expand_area = like(conv, squeezed, conv.out_channels - half, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in, h, w) -> (batch, out, h', w')."""
        squeezed = self.activation(self.squeeze(x))
        return torch.cat([self.expand_point(squeezed), self.expand_area(squeezed)], dim=1)


class Fire(Technique):
    """k x k convolution -> Fire layer. The rate is the squeezed channels as a share of the output channels.

    It starts from the leading directions of the kernel over input channels; each direction is squeezed twice, with
    either sign, so that the activation loses nothing.
    """

    id, name, rates = "C3", "fire", (0.5, 0.25)

    def structure(self, unit: Unit, rate: float) -> Variant:
        conv = dense_convolution(unit, self.name)
        half = [side // 2 for side in conv.kernel_size]
        even = any(side % 2 == 0 for side in conv.kernel_size)
        if even or isinstance(conv.padding, str) or [*conv.padding] != half or conv.dilation != (1, 1):
            raise NotApplicable(
                f"{self.name} needs an odd kernel, undilated, padded by half of it: {unit.name} has kernel "
                f"{conv.kernel_size}, dilation {conv.dilation}, padding {conv.padding}"
            )
        if conv.out_channels < 2:
            raise NotApplicable(f"{self.name} divides the output channels in two: {unit.name} has one")
        squeezed = max(2, round(rate * conv.out_channels) // 2 * 2)
        area = conv.kernel_size[0] * conv.kernel_size[1]
        in_pixels = unit.core_in_shape[1] * unit.core_in_shape[2]
        out_pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
        point = conv.out_channels // 2
        expanded = point + (conv.out_channels - point) * area
        macs = squeezed * (conv.in_channels * in_pixels + expanded * out_pixels)
        must_save(unit, macs, conv.in_channels * conv.out_channels * area * out_pixels, self.name)
        return Variant(unit, FireLayer(conv, squeezed))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        core, weight = variant.core, unit.op.weight.detach()
        pairs = core.squeeze.out_channels // 2
        by_input = weight.transpose(0, 1).flatten(1).double()
        directions = torch.linalg.eigh(by_input @ by_input.T)[1].flip(1)[:, :pairs].float()
        if directions.shape[1] < pairs:  # fewer input channels than pairs
            directions = torch.cat(
                [directions, directions.new_zeros(len(directions), pairs - directions.shape[1])], dim=1
            )
        signed = torch.cat([directions, -directions], dim=1)
        core.squeeze.weight.copy_(signed.T[..., None, None])
        core.squeeze.bias.zero_()
        projected = torch.einsum("oihw,is->oshw", weight, signed)
        half = core.expand_point.out_channels
        centre = [side // 2 for side in weight.shape[2:]]
        core.expand_point.weight.copy_(projected[:half, :, centre[0], centre[1]][..., None, None])
        core.expand_area.weight.copy_(projected[half:])
        bias = bias_of(unit.op)
        core.expand_point.bias.copy_(bias[:half])
        core.expand_area.bias.copy_(bias[half:])
