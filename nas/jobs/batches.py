"""How many images a network takes at once: memory stays bounded however large its feature maps are."""

import torch

from modeltree.network import NetworkSpec

_AT_ONCE_BYTES, _MOST = 64 * 2**20, 128  # of one feature map, for all images of a batch
_MAPS = 4  # dimensions of a batch of feature maps
_TRAINED_BYTES, _FEWEST = 2**29, 8  # of all feature maps of the images of a step, which training keeps


def images_at_once(spec: NetworkSpec) -> int:
    """How many images a network runs on together: 128, fewer where its feature maps are large."""
    largest = max(item.out_bytes for item in spec.items)
    return max(2, min(_MOST, _AT_ONCE_BYTES // max(largest, 1)))


def trained_at_once(spec: NetworkSpec, most: int) -> int:
    """How many images a step of training a whole network takes: `most`, fewer where its feature maps are large."""
    return max(_FEWEST, min(most, _TRAINED_BYTES // max(sum(item.out_bytes for item in spec.items), 1)))


def channels_together(values: torch.Tensor) -> torch.Tensor:
    """Feature maps, (n, channels, height, width), with the channels of a pixel side by side in memory: the layout in
    which torch's convolutions are fastest on a processor. Other values as they are; shapes stay."""
    if values.ndim != _MAPS:
        return values
    return values.contiguous(memory_format=torch.channels_last)
