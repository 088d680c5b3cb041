"""What a feature map is after it crossed with fewer bits, as torch sees it: to train through a coded hand-over."""

import torch

from modeltree.errors import ConfigError


def quantised(x: torch.Tensor, bits: int) -> torch.Tensor:
    """The numbers that the receiver goes on from, with the gradient of `x` itself (straight-through) [Bengio 2013].

    Codes are evenly spaced between an image's smallest and largest number [Niu 2022, eq. 4]; the values are those of
    `runtime.wire.codec` to the last bit, where magnitudes stay below 1e38.

    Parameters
    ----------
    x : (n, ...), finite; each of the n images has its own range.
    bits : code width, 1 to 16.

    Returns
    -------
    float32 of `x`'s shape.

    Raises
    ------
    ConfigError : `bits` is outside 1..16.
    """
    if not 1 <= bits <= 16:
        raise ConfigError(f"bits is {bits}: it must be within 1..16")
    with torch.no_grad():
        images = x.float().flatten(1)
        lo, hi = images.amin(1, keepdim=True), images.amax(1, keepdim=True)
        step = _rounded_up((hi.double() - lo.double()) / (2**bits - 1))
        step[step == 0] = 1  # all numbers are alike: every code is 0
        codes = ((images - lo) / step).round()
        values = (codes * step + lo).view(x.shape)
    return values + (x - x.detach())


def _rounded_up(numbers: torch.Tensor) -> torch.Tensor:
    """The smallest float32 that is no less."""
    near = numbers.float()
    return torch.where(near.double() >= numbers, near, torch.nextafter(near, torch.tensor(torch.inf)))
