"""T2: a convolution as 1x1, k x k, 1x1 by Tucker decomposition over channels [Kim 2016]; beyond the paper.

The decomposition is by higher-order orthogonal iteration. Only leading directions are wanted, which the eigenvectors of
a small square matrix give twenty times sooner than the whole singular value decompositions of libraries (0.3 s for 6.5
with 512 channels).
"""

import tensorly
import torch
from tensorly import unfold
from tensorly.tenalg import mode_dot, multi_mode_dot
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of, enough_of, root_of_moments, rows_of
from transforms.techniques.technique import Samples, Technique, Variant, dense_convolution, like, must_save

_ROUNDS = 3


class Tucker2(Technique):
    """k x k convolution -> 1x1 to r_in, k x k from r_in to r_out, 1x1 to out. The rate is r as a share of channels."""

    id, name, rates = "T2", "tucker2", (0.5, 0.25)
    solved = True

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
        weight = unit.op.weight.detach().double()
        root = torch.eye(weight.shape[1], dtype=weight.dtype)
        if samples is not None:  # what enters often matters more than what rarely does
            root = root_of_moments(rows_of(unit.head(enough_of(samples[0])), unit.op))
        seen = torch.einsum("oihw,ij->ojhw", weight, root)
        core, out_factor, in_factor = tucker2(seen, middle.out_channels, middle.in_channels)
        first.weight.copy_(torch.linalg.solve(root, in_factor.double()).T[..., None, None])  # root is symmetric
        middle.weight.copy_(core)
        last.weight.copy_(out_factor[..., None, None])
        last.bias.copy_(bias_of(unit.op))


def tucker2(weight: torch.Tensor, r_out: int, r_in: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tucker decomposition over the channels of a kernel (out, in, h, w).

    Returns
    -------
    Core (r_out, r_in, h, w), factors (out, r_out) and (in, r_in) with orthonormal columns.
    """
    exact = weight.double()
    with tensorly.backend_context("pytorch"):
        in_factor = _leading(unfold(exact, 1), r_in)
        for _ in range(_ROUNDS):
            out_factor = _leading(unfold(mode_dot(exact, in_factor.T, 1), 0), r_out)
            in_factor = _leading(unfold(mode_dot(exact, out_factor.T, 0), 1), r_in)
        core = multi_mode_dot(exact, [out_factor.T, in_factor.T], modes=[0, 1])
    return core.float(), out_factor.float(), in_factor.float()


def _leading(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """The leading directions (n, rank) of a matrix (n, m), the largest first."""
    return torch.linalg.eigh(rows @ rows.T)[1][:, -rank:].flip(1)
