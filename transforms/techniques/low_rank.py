"""T3: a pointwise convolution, or a linear layer on tokens, as two thin ones of low rank; beyond the paper.

What is kept is not the largest part of the weights but of what they make of the layer's real inputs: the best
approximation of W X by rank k, in closed form from the inputs' second moments.
"""

import math

import torch
from torch import nn

from modeltree.errors import NotApplicable
from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of, enough_of, root_of_moments, rows_of
from transforms.techniques.technique import LANES, Samples, Technique, Variant, must_save


class LowRank(Technique):
    """m x n weight at every position -> m x k and k x n. The rate is k as a share of min(m, n).

    Above 16, k is a multiple of 16, which vectors hold without a rest.
    """

    id, name, rates = "T3", "low_rank", (0.375, 0.25)
    solved = True

    def structure(self, unit: Unit, rate: float) -> Variant:
        m, n = _matrix(unit, self.name).shape
        k = max(1, round(rate * min(m, n)))
        k = k // LANES * LANES if k > LANES else k
        if isinstance(unit.op, nn.Conv2d):
            pixels = unit.core_out_shape[1] * unit.core_out_shape[2]
            stride = (unit.op.stride[0], unit.op.stride[1])
            core = nn.Sequential(nn.Conv2d(n, k, 1, stride=stride, bias=False), nn.Conv2d(k, m, 1))
        else:
            pixels = math.prod(unit.core_out_shape[:-1])
            core = nn.Sequential(nn.Linear(n, k, bias=False), nn.Linear(k, m))
        must_save(unit, k * (m + n) * pixels, m * n * pixels, self.name)
        return Variant(unit, core)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        first, second = variant.core.children()
        weight = _matrix(unit, self.name).double()
        root = torch.eye(weight.shape[1], dtype=torch.float64)
        if samples is not None:
            root = root_of_moments(rows_of(unit.head(enough_of(samples[0])), unit.op))
        left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
        k = second.weight.shape[1]
        thin = torch.linalg.solve(root, (values[:k, None] * right[:k]).T).T  # root is symmetric
        first.weight.copy_(thin.reshape(first.weight.shape))
        second.weight.copy_(left[:, :k].reshape(second.weight.shape))
        second.bias.copy_(bias_of(unit.op))


def _matrix(unit: Unit, technique: str) -> torch.Tensor:
    """The weight (out, in) of a layer that does the same at every position."""
    op = unit.op
    if isinstance(op, nn.Linear):
        if len(unit.core_in_shape) < 2:
            raise NotApplicable(f"{technique} factors layers on tokens: {unit.name} has one vector, which svd factors")
        return op.weight.detach()
    if op.kernel_size != (1, 1) or op.groups != 1 or op.padding not in ((0, 0), "valid", "same"):
        raise NotApplicable(
            f"{technique} needs a 1x1 convolution with one group: {unit.name} has kernel {op.kernel_size}, {op.groups} "
            f"groups, padding {op.padding}"
        )
    return op.weight.detach().flatten(1)
