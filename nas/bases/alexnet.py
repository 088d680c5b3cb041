"""AlexNet [Krizhevsky 2012] cut to small images: 3x3 kernels, batch normalisation, five convolutions."""

from torch import nn

from nas.bases.vgg import Chain, conv


def alexnet(num_classes: int, image_size: int = 32) -> nn.Module:
    """5 convolutions, 3 linear layers; the form of `alexnet_cifar10_jpeg.safetensors`.

    The classifier reads 256 maps of 2x2; images larger than 32x32 are averaged down to that.
    """
    layers = [
        *conv(3, 64, stride=2), nn.MaxPool2d(2),
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
