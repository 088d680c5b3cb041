"""A classifier small enough to stand at a cut in the middle of a network: an early exit."""

import torch
from torch import nn

from modeltree.layers import LayerSpec
from transforms.graph.describe import module_specs

_HIDDEN = 128


class ExitHead(nn.Module):
    """Feature maps to logits: global average pooling and two linear layers.

    in_shape : per image, (channels, height, width), or (features,), where nothing is left to pool.

    Maps (n, *in_shape) to (n, classes). Multiplies channels * 128 + 128 * classes numbers, a thousandth of what the
    convolutions it stands in for do.
    """

    def __init__(self, in_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        is_map = len(in_shape) == 3
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if is_map else nn.Identity()
        self.classifier = nn.Sequential(nn.Linear(in_shape[0], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, *in_shape) to (n, classes)."""
        logits: torch.Tensor = self.classifier(self.pool(x))
        return logits


def head_layers(head: nn.Module, in_shape: tuple[int, ...]) -> tuple[LayerSpec, ...]:
    """What a head costs, as `DeviceProfile.compute_ms` prices it."""
    return tuple(module_specs(head, in_shape))
