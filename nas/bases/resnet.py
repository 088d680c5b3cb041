"""ResNet-32 for CIFAR [He 2016, sec. 4.2]: a graph, not a chain, to try the legal cuts on."""

import torch
from torch import nn

from modeltree.preprocessing import ImageSize


class Residual(nn.Module):
    """relu(conv-bn-relu-conv-bn (x) + shortcut (x)), (n, c_in, h, w) -> (n, c_out, h / stride, w / stride).

    Where the shape changes the shortcut is a strided 1x1 convolution with batch normalisation (the paper's option B).
    Option A, used by the paper on CIFAR, pads channels with zeros, which no operator kind of ours prices.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            projection = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(c_out))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet32(num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module:
    """A 3x3 convolution, three stages of five blocks with 16, 32 and 64 channels, average, one linear layer.

    `image_size` changes nothing, the average takes any map.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width_in = 16
    for width in (16, 32, 64):
        for block in range(5):
            layers.append(Residual(width_in, width, stride=2 if block == 0 and width > 16 else 1))
            width_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
