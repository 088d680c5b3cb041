"""A number format's numerics in torch: what a library of that format computes, to the rounding of float32 sums.

`with Numerics("int8-dot"): y = network(x)` rounds weights and inputs of every convolution and linear layer as the
schedules hold them; the rest runs as it is. Gradients pass the rounding unchanged, so a network can be trained in it.
Scales of weights are an output channel's, so that a batch norm behind a layer changes nothing of its rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from modeltree.errors import unknown

SIMULATED = ("f32", "bf16", "int8", "int8-dot")
"""Formats whose rounding is known in full. `bf16-dot` holds every map in bfloat16, sums among them."""

_CONVOLUTIONS = (torch.conv2d, torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
_LINEAR = (F.linear, torch.ops.aten.linear.default)
_INT8_MOST = 127


class Numerics(TorchFunctionMode):
    """Layers in a number format, as long as the context lasts.

    Parameters
    ----------
    name : of the format; one of `SIMULATED`.
    signed : codes of feature maps have a sign always (ARM); else maps without negative numbers have twice the levels.
    entering : the block's input, whose sign a library cannot know before it runs.

    Raises
    ------
    ConfigError : a format that is not known, or not in full.
    """

    def __init__(self, name: str, *, signed: bool = False, entering: torch.Tensor | None = None) -> None:
        super().__init__()
        if name not in SIMULATED:
            raise unknown("number format", name, SIMULATED)
        self.name, self.signed, self.entering = name, signed, entering

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        options = dict(options or {})
        if self.name != "f32" and function in (*_CONVOLUTIONS, *_LINEAR):
            x, weight, *rest = [*arguments, *(options.pop(key) for key in ("input", "weight") if key in options)]
            groups = rest[4] if len(rest) > 4 else options.get("groups", 1)
            depthwise = function in _CONVOLUTIONS and groups == x.shape[1] == len(weight) and groups > 1
            arguments = (*self._rounded(x, weight, depthwise, wide=function in _LINEAR and x.ndim > 2), *rest)
        return function(*arguments, **options)

    def _rounded(
        self, x: torch.Tensor, weight: torch.Tensor, depthwise: bool, wide: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and weight as the format holds them. wide : many vectors an image, whose inputs stay float32."""
        if self.name == "bf16":
            return x, _passed(weight, weight.bfloat16().float())
        if self.name == "int8-dot" and not depthwise and not wide:
            return _passed(x, self._codes(x)), _passed(weight, _coded_weight(weight))
        return x, weight if self.name == "int8-dot" and depthwise else _passed(weight, _coded_weight(weight))

    def _codes(self, x: torch.Tensor) -> torch.Tensor:
        """Every image in 8 bits, scaled by its own largest number."""
        entering = self.entering is not None and x.data_ptr() == self.entering.data_ptr()
        positive = not self.signed and not entering and bool(x.detach().amin() >= 0)
        levels = 255 if positive else _INT8_MOST
        largest = x.detach().abs().flatten(1).amax(1).clamp_min(1e-30).view(-1, *(1,) * (x.ndim - 1))
        return torch.floor(x.detach() * (levels / largest) + 0.5) * (largest / levels)


def _coded_weight(weight: torch.Tensor) -> torch.Tensor:
    most = weight.detach().abs().flatten(1).amax(1).view(-1, *(1,) * (weight.ndim - 1))
    scale = torch.where(most > 0, most / _INT8_MOST, 1.0)
    return torch.round(weight.detach() / scale) * scale


def _passed(x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """The rounded numbers, with the gradient of the plain ones."""
    return x + (rounded - x).detach() if x.requires_grad else rounded
