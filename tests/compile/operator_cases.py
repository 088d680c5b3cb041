"""How the networks of `operators` are written: as layers one after the other, or as a function of some.

Weights are whole numbers over a power of two with 127 as each output channel's largest, so that bf16 and int8 hold them
without loss: what a weight format computes is then as exact as f32, and held to the same tolerance.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and the shape of one image. `reach` : standard deviation of the numbers it is run on."""

    shape: tuple[int, ...]
    make: Callable[[], nn.Module]
    reach: float = 1.0

    def network(self, name: str) -> nn.Module:
        """With the same weights each time, batch norms far from their defaults."""
        torch.manual_seed(zlib.crc32(name.encode()))
        return exact(self.make()).eval()


class Of(nn.Module):
    """A network written as a function of its input and its layers, which are given as what makes them."""

    def __init__(self, function: Callable[..., torch.Tensor], **layers: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleDict({name: make() for name, make in layers.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, **self.layers)


def exact(model: nn.Module) -> nn.Module:
    """The model with weights that every format holds exactly, and with batch norms that do something."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                flat = module.weight.reshape(len(module.weight), -1)
                codes = torch.round(flat / flat.abs().amax(1, keepdim=True) * 127)
                size = 2.0 ** -(7 + max(0, flat.shape[1].bit_length() // 2))
                module.weight.copy_((codes * size).reshape(module.weight.shape))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                for parameter in module.parameters():
                    parameter.uniform_(-1, 1)
    return model


def conv(shape, out, kernel, *, head=False, **options) -> Case:
    """One convolution. head : behind a 1x1 convolution, so that it reads what a kernel of ours wrote."""

    def make() -> nn.Module:
        layer = nn.Conv2d(shape[0], out, kernel, **options)
        return nn.Sequential(nn.Conv2d(shape[0], shape[0], 1), layer) if head else layer

    return Case(shape=shape, make=make)


def after(*layers: Callable[[], nn.Module], shape=(3, 8, 8), channels=20) -> Case:
    """Layers behind a convolution."""
    return Case(
        shape=shape, make=lambda: nn.Sequential(nn.Conv2d(shape[0], channels, 3, padding=1), *(f() for f in layers))
    )


def of(function, *, shape=(20, 6, 6), reach=1.0, **layers) -> Case:
    return Case(shape=shape, make=lambda: Of(function, **layers), reach=reach)


def conv3(inside=20, outside=20, **options):
    return lambda: nn.Conv2d(inside, outside, 3, padding=1, **options)


def conv1(inside=20, outside=20, **options):
    return lambda: nn.Conv2d(inside, outside, 1, **options)


def cat(*parts: torch.Tensor) -> torch.Tensor:
    return torch.cat(parts, 1)
