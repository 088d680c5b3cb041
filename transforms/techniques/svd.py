"""F1: a fully connected layer as two thin ones, by singular value decomposition [Wang 2020, table II]."""

import torch
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.technique import Samples, Technique, Variant, linear_layer, must_save


class SVD(Technique):
    """m x n weight -> m x k and k x n, k << m. The rate is k as a share of min(m, n)."""

    id, name, rates = "F1", "svd", (0.25, 0.125)
    solved = True

    def structure(self, unit: Unit, rate: float) -> Variant:
        layer = linear_layer(unit, self.name)
        m, n = layer.weight.shape
        k = max(1, round(rate * min(m, n)))
        must_save(unit, k * (m + n), m * n, self.name)
        return Variant(unit, nn.Sequential(nn.Linear(n, k, bias=False), nn.Linear(k, m)))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        first, second = variant.core.children()
        left, values, right = torch.linalg.svd(unit.op.weight.detach(), full_matrices=False)
        k = first.out_features
        root = values[:k].sqrt()
        first.weight.copy_(root[:, None] * right[:k])
        second.weight.copy_(left[:, :k] * root)
        second.bias.copy_(bias_of(unit.op))
