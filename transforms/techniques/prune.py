"""W1: a convolution without its insignificant filters [Wang 2020, table II].

A pruned variant must still be pluggable, so it ends in a map that restores the missing channels from the kept ones. The
map is found by least squares on what the base network really produces [He 2017], and folds into the next dense layer
(`transforms.compose`): then that layer, too, reads the kept channels only, and nothing of the map is left.
"""

from typing import Any

import torch
import torch_pruning
from torch import nn

from modeltree.errors import NotApplicable
from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.technique import Samples, Technique, Variant, aligned, like, must_save

_RIDGE = 1e-4


class FilterPruning(Technique):
    """Convolution with n filters -> the most significant share of them. The rate is the share kept."""

    id, name, rates = "W1", "prune", (0.75, 0.5, 0.25, 0.125)
    solved = True

    def rates_for(self, unit: Unit, lanes: int) -> tuple[float, ...]:
        return tuple(aligned(self.rates, len(unit.op.weight), lanes)) if lanes else self.rates

    def structure(self, unit: Unit, rate: float) -> Variant:
        conv = unit.op
        if not isinstance(conv, nn.Conv2d):
            raise NotApplicable(f"{self.name} removes filters of convolutions: {unit.name} is a linear layer")
        if conv.groups != 1:
            raise NotApplicable(f"{self.name} needs a convolution with one group: {unit.name} has {conv.groups}")
        kept = max(1, round(rate * conv.out_channels))
        area = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
        pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
        restored = unit.out_shape[1] * unit.out_shape[2]
        macs = kept * (area * pixels + conv.out_channels * restored)
        must_save(unit, macs, conv.out_channels * area * pixels, self.name)
        restore = nn.Conv2d(kept, conv.out_channels, 1, bias=False)
        return Variant(unit, like(conv, conv.in_channels, kept, bias=True), restore=restore)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        base: Any = unit.op
        conv: Any = like(base, base.in_channels, base.out_channels, bias=True)
        conv.weight.copy_(base.weight)
        conv.bias.copy_(bias_of(base))
        restore = nn.Conv2d(conv.out_channels, conv.out_channels, 1, bias=False)
        restore.weight.copy_(torch.eye(conv.out_channels)[..., None, None])
        kept = _prune_(nn.Sequential(conv, restore), unit, variant.core.out_channels)
        variant.core.load_state_dict(conv.state_dict())
        variant.restore.weight.copy_(restore.weight if samples is None else _least_squares(samples[1], kept))


def _prune_(chain: Any, unit: Unit, keep: int) -> torch.Tensor:
    """Remove filters of the first layer, by L2 norm, along its dependency group; returns the kept ones' indices."""
    first: Any = chain[0]
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(chain, torch.zeros(1, *unit.core_in_shape))
        norm = first.weight.detach().flatten(1).norm(dim=1)
        order = norm.argsort(descending=True, stable=True)
        dropped = order[keep:].tolist()
        if dropped:
            graph.get_pruning_group(first, torch_pruning.prune_conv_out_channels, idxs=dropped).prune()
    return order[:keep].sort().values


def _least_squares(outputs: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The map (out, kept, 1, 1) that best restores all channels of `outputs` (n, out, h, w) from the kept ones."""
    flat = outputs.transpose(0, 1).flatten(1).double()
    known = flat[kept]
    gram = known @ known.T
    gram += _RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, known @ flat.T).T
    return solution.float()[..., None, None]
