"""A learned bottleneck at a cut: fewer channels cross, a small encoder in front of the link, a small decoder behind."""

import torch
from torch import nn

from modeltree.errors import ConfigError
from modeltree.layers import LayerSpec
from transforms.graph.describe import module_specs


class Encoder(nn.Module):
    """(n, channels, height, width) to (n, kept, height, width): a 1x1 convolution, since a device runs it."""

    def __init__(self, channels: int, kept: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, kept, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What crosses the link."""
        code: torch.Tensor = self.project(x)
        return code


class Decoder(nn.Module):
    """(n, kept, height, width) back to (n, channels, height, width): a 3x3 convolution, ReLU, a 1x1 convolution."""

    def __init__(self, channels: int, kept: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(kept, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """What the rest of the network goes on from."""
        x: torch.Tensor = self.mix(self.relu(self.expand(code)))
        return x


def bottleneck(shape: tuple[int, ...], kept: int) -> tuple[Encoder, Decoder]:
    """An encoder and a decoder with fresh weights for a cut that `shape` (channels, height, width) crosses.

    Raises
    ------
    ConfigError : what crosses is no map, or not between 1 and all of its channels are to be kept.
    """
    if len(shape) != 3:
        raise ConfigError(f"what crosses has shape {shape} but must be (channels, height, width): take an earlier cut")
    if not 1 <= kept <= shape[0]:
        raise ConfigError(f"{kept} channels are to be kept but it must be within 1..{shape[0]}")
    return Encoder(shape[0], kept), Decoder(shape[0], kept)


def start_(encoder: Encoder, decoder: Decoder, features: torch.Tensor) -> None:
    """Set both to the principal components of `features` (n, channels, height, width): the best linear start there is.

    The decoder's ReLU then only takes away what no ReLU in front of the cut would have let through.
    """
    channels, kept = encoder.project.in_channels, encoder.project.out_channels
    pixels = features.detach().transpose(0, 1).reshape(channels, -1).double()
    mean = pixels.mean(1)
    covariance = torch.cov(pixels).reshape(channels, channels)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -kept:]
    with torch.no_grad():
        encoder.project.weight.copy_(axes.T[:, :, None, None])
        encoder.project.bias.copy_(-axes.T @ mean)  # type: ignore[union-attr]
        decoder.expand.weight.zero_()
        decoder.expand.weight[:, :, 1, 1] = axes.to(decoder.expand.weight.dtype)
        decoder.expand.bias.copy_(mean)  # type: ignore[union-attr]
        decoder.mix.weight.copy_(torch.eye(channels)[:, :, None, None])
        decoder.mix.bias.zero_()  # type: ignore[union-attr]


def bottleneck_layers(
    encoder: Encoder, decoder: Decoder, shape: tuple[int, ...]
) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
    """What both cost, at a cut that `shape` (channels, height, width) crosses."""
    code_shape = (encoder.project.out_channels, *shape[1:])
    return tuple(module_specs(encoder, shape)), tuple(module_specs(decoder, code_shape))
