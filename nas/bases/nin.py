"""Network in Network [Lin 2014] in its CIFAR-10 form."""

from torch import nn

from modeltree.preprocessing import ImageSize
from nas.bases.vgg import conv


def nin(num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module:
    """Three wide convolutions, each followed by two of 1x1; the last gives a map per class, averaged to its logit.

    Batch normalisation after every convolution but the last is ours: without it the net needs the paper's slow,
    hand-lowered rates. `image_size` changes nothing, the average takes any map.
    """
    return nn.Sequential(
        *conv(channels, 192, kernel=5), *conv(192, 160, kernel=1), *conv(160, 96, kernel=1),
        nn.MaxPool2d(3, stride=2, padding=1), nn.Dropout(),
        *conv(96, 192, kernel=5), *conv(192, 192, kernel=1), *conv(192, 192, kernel=1),
        nn.AvgPool2d(3, stride=2, padding=1), nn.Dropout(),
        *conv(192, 192), *conv(192, 192, kernel=1), nn.Conv2d(192, num_classes, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
