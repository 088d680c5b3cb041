"""AlexNet [Krizhevsky 2012] cut to small images: 3x3 kernels, batch normalisation, five convolutions."""

from torch import nn

from modeltree.network import NetworkSpec
from modeltree.preprocessing import ImageSize
from nas.bases.vgg import Chain, conv


def alexnet(num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module:
    """5 convolutions, 3 linear layers; the form of `alexnet_cifar10_jpeg.safetensors`.

    The classifier reads 256 maps of 2x2; images larger than 32x32 are averaged down to that.
    """
    layers = [
        *conv(channels, 64, stride=2), nn.MaxPool2d(2),
        *conv(64, 192), nn.MaxPool2d(2),
        *conv(192, 384),
        *conv(384, 256),
        *conv(256, 256), nn.MaxPool2d(2),
    ]  # fmt: skip
    if image_size != 32:
        layers.append(nn.AdaptiveAvgPool2d(2))
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 2 * 2, 1024), nn.ReLU(),
        nn.Dropout(), nn.Linear(1024, 512), nn.ReLU(),
        nn.Linear(512, num_classes),
    )  # fmt: skip
    return Chain(nn.Sequential(*layers), classifier)


def alexnet_exits(spec: NetworkSpec) -> tuple[int, ...]:
    """Places of the two early exits of [Niu 2022]: behind convolution 4 and behind convolution 5.

    The paper counts activations and poolings as layers and puts exits after 9, 12 and 20 of 20: convolution 4, the
    ReLU of convolution 5, the end. Here a convolution, its ReLU and its pooling are one unit that no cut divides, so
    the first exit stands behind the ReLU (10) and the second behind the pooling (13).
    """
    units = _units(spec)
    return units.index(3) + 1, units.index(4) + 1


def alexnet_exits4(spec: NetworkSpec) -> tuple[int, ...]:
    """Places of the three early exits of [Song 2021, fig. 2]; the end of the network is the fourth.

    The paper's text says four exits on an 8-layer AlexNet, one deeper than the other, of which the first two branches
    have as many convolutions, "the setting of the last convolutional layer" apart. Here the exits stand behind
    convolutions 1, 2 and 3: the first branch has a head without a convolution where the paper's has one of its own.
    """
    units = _units(spec)
    return units.index(0) + 1, units.index(1) + 1, units.index(2) + 1


def _units(spec: NetworkSpec) -> list[int | None]:
    """The unit that every segment holds."""
    return [next((u for i in items if (u := spec.items[i].unit) is not None), None) for items in spec.segments]
