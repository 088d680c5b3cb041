"""VGG11 and VGG16 [Simonyan 2015, table 1, A and D] with batch normalisation and a classifier for small images."""

import torch
from torch import nn

from modeltree.preprocessing import ImageSize

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class Chain(nn.Module):
    """`features`, flatten, `classifier`: the form of every VGG-like network here.

    Input (n, 3, height, width) float32, output (n, classes) logits.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def conv(c_in: int, c_out: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution with bias that keeps the map's size at stride 1, batch normalisation, ReLU."""
    convolution = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2)
    return [convolution, nn.BatchNorm2d(c_out), nn.ReLU()]


def vgg11(num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module:
    """8 convolutions, 3 linear layers; the form of `vgg11_cifar10_jpeg.safetensors`."""
    return _vgg(VGG11, num_classes, image_size, channels)


def vgg16(num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module:
    """13 convolutions, 3 linear layers."""
    return _vgg(VGG16, num_classes, image_size, channels)


def _vgg(plan: tuple[int | str, ...], num_classes: int, image_size: int | ImageSize, channels: int) -> nn.Module:
    """Five poolings make 1x1 maps of 32x32 images; larger images get an average over what is left."""
    layers: list[nn.Module] = []
    for step in plan:
        if isinstance(step, int):
            layers += conv(channels, step)
            channels = step
        else:
            layers.append(nn.MaxPool2d(2))
    if image_size != 32:
        layers.append(nn.AdaptiveAvgPool2d(1))
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(channels, 512), nn.ReLU(),
        nn.Dropout(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, num_classes),
    )  # fmt: skip
    return Chain(nn.Sequential(*layers), classifier)
