"""Base networks: the registry, and the user's own from a file.

A factory takes the number of classes (and the image size, 32 unless said, and the channels, 3 unless said) and returns
a network that maps (n, channels, height, width) float32 to (n, classes) logits and that `torch.export` takes with a
dynamic n.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from modeltree.errors import ConfigError, unknown
from modeltree.network import NetworkSpec
from modeltree.preprocessing import ImageSize
from modeltree.preprocessing import image_size as sized
from nas.bases.alexnet import alexnet, alexnet_exits, alexnet_exits4
from nas.bases.load import from_file
from nas.bases.nin import nin
from nas.bases.packages import PACKAGES, from_package
from nas.bases.resnet import resnet32
from nas.bases.vgg import vgg11, vgg16
from nas.bases.weights import HEADS, fingerprint, load_weights_, read_weights, save_weights

__all__ = [
    "BASES",
    "EXITS",
    "HEADS",
    "Factory",
    "build",
    "fingerprint",
    "load_weights_",
    "read_weights",
    "save_weights",
]


class Factory(Protocol):
    """Makes a network with fresh weights from torch's global generator."""

    def __call__(self, num_classes: int, image_size: int | ImageSize = 32, channels: int = 3) -> nn.Module: ...


BASES: dict[str, Factory] = {
    "vgg11": vgg11, "vgg16": vgg16, "alexnet": alexnet, "alexnet_exits": alexnet, "alexnet_exits4": alexnet,
    "nin": nin, "resnet32": resnet32,
}  # fmt: skip
"""`alexnet_exits` and `alexnet_exits4` are `alexnet`, weights and all, with exits of their own."""

EXITS: dict[str, Callable[[NetworkSpec], tuple[int, ...]]] = {
    "alexnet_exits": alexnet_exits, "alexnet_exits4": alexnet_exits4,
}  # fmt: skip
"""Networks with exits of their own: from the exported network to their places, which `--exits auto` takes."""


def build(
    base: str, *, num_classes: int, image_size: int | str, seed: int = 0, channels: int = 3, any_output: bool = False,
) -> nn.Module:  # fmt: skip
    """Make the network called `base`, with weights that depend on `seed` alone.

    Parameters
    ----------
    base : a name from `BASES`; `path/to/file.py:factory`, a function without arguments that returns a module; or
        `torchvision:name` or `timm:name` where those are installed.
    num_classes, image_size, channels : of the data; a network from a file is tried on two black images to see that it
        fits.
    any_output : whether a network from a file may answer with something else than one vector of classes; it need not
        know their number then.

    Raises
    ------
    ConfigError : unknown name, numbers out of range, or a file whose factory is missing, fails or does not fit.
    """
    named = base not in BASES and base.partition(":")[0] not in PACKAGES
    if num_classes < 2 and not (any_output and named):
        raise ConfigError(f"num_classes is {num_classes} but must be at least 2: pass data with more classes")
    size = sized(image_size)
    shape = (channels, *size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if base.partition(":")[0] in PACKAGES:
            return from_package(base, num_classes=num_classes, shape=shape)
        if ":" in base or base.endswith(".py"):
            return from_file(base, num_classes=num_classes, shape=shape, any_output=any_output)
        if base not in BASES:
            raise unknown("base network", base, [*BASES, "path/to/file.py:factory", "torchvision:name", "timm:name"])
        if min(size) < 32:
            raise ConfigError(
                f"image size is {image_size} but {base} needs at least 32: "
                "pass a larger --image-size, or your own network as file.py:factory"
            )
        square = size.height == size.width
        return BASES[base](num_classes, image_size=size.height if square else size, channels=channels)
