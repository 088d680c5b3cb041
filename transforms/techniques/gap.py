"""F3: global average pooling and one classifier instead of all fully connected layers [Wang 2020, table II]."""

import torch
from torch import nn

from modeltree.errors import NotApplicable
from transforms.graph.network import Unit
from transforms.techniques.technique import Samples, Technique, Variant, linear_layer, must_save

_RIDGE = 1e-3


class GlobalAveragePooling(Technique):
    """All linear layers from here to the output -> average over height and width, then one linear layer.

    Applies to the first of them, where feature maps still have height and width. The rate has no meaning (1).
    """

    id, name, rates = "F3", "gap", (1.0,)
    ends_network = True

    def structure(self, unit: Unit, rate: float) -> Variant:
        linear_layer(unit, self.name)
        if unit.fc_span == 0:
            raise NotApplicable(
                f"{self.name} replaces the linear layers at the network's end: more than that follows {unit.name}"
            )
        if len(unit.in_shape) != 3:
            raise NotApplicable(f"{self.name} averages feature maps: {unit.name} gets a vector of {unit.in_shape[0]}")
        if unit.fc_span == 1 and unit.in_shape[1:] == (1, 1):
            raise NotApplicable(f"{self.name} would rebuild {unit.name} as it is: 1x1 maps and one linear layer")
        must_save(unit, unit.in_shape[0] * unit.classes, unit.fc_macs, self.name)
        core = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(unit.in_shape[0], unit.classes))
        return Variant(unit, core, head=nn.Identity(), tail=nn.Identity(), ends_network=True)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        classifier = variant.core[2]
        if samples is None:
            nn.init.zeros_(classifier.bias)
            nn.init.normal_(classifier.weight, std=unit.in_shape[0] ** -0.5, generator=torch.Generator().manual_seed(0))
            return
        pooled = samples[0].mean(dim=(2, 3)).double()
        ones = torch.cat([pooled, pooled.new_ones(len(pooled), 1)], dim=1)
        gram = ones.T @ ones
        gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solution = torch.linalg.solve(gram, ones.T @ samples[1].double())
        classifier.weight.copy_(solution[:-1].T)
        classifier.bias.copy_(solution[-1])
