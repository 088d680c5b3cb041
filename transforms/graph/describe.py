"""Torch modules and ATen calls as layer descriptions [Wang 2020, eq. 1]."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from modeltree.layers import LayerSpec
from transforms.graph.lifting import aten

_POOLS = {
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
    aten.adaptive_max_pool2d.default, aten.mean.dim,
}  # fmt: skip
_MOVES = {
    aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.dropout.default, aten.dropout_.default,
    aten.feature_dropout.default, aten.cat.default, aten.squeeze.dims, aten.permute.default, aten.transpose.int,
    aten.unsqueeze.default, aten.slice.Tensor, aten.contiguous.default, aten.split.Tensor, aten.chunk.default,
}  # fmt: skip
_PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}
_POOL_MODULES = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_FREE_MODULES = (nn.Dropout, nn.Identity)  # return what they are given at inference


def call_spec(target: Any, out_shape: tuple[int, ...], shapes: Sequence[Sequence[Any]] = ()) -> LayerSpec:
    """An ATen call without weights of its own: a product of maps, pooling, layout, or work on every element.

    shapes : of the tensors that it reads, in order; without them a product counts as work on every element.
    """
    if target in _PRODUCTS and len(shapes) >= 2 and out_shape:
        inner, width = int(shapes[0][-1]), out_shape[-1]
        return _product(inner, width, math.prod(out_shape) // width)
    if target is aten.scaled_dot_product_attention.default and len(shapes) >= 3 and out_shape:
        depth, keys, width = int(shapes[0][-1]), int(shapes[1][-2]), int(shapes[2][-1])
        return _product(depth + width, keys, math.prod(out_shape) // width)  # scores, and the values they weigh
    op = "pool" if target in _POOLS else "move" if target in _MOVES else "elementwise"
    return _plain(op, out_shape)


def _product(inner: int, width: int, rows: int) -> LayerSpec:
    return LayerSpec(op="matmul", in_channels=inner, out_channels=width, out_height=rows)


def module_specs(module: nn.Module, in_shape: tuple[int, ...]) -> list[LayerSpec]:
    """Layers of a module that is a composition of leaf modules, in the order they run.

    in_shape : per image, without the batch. A copy of the module runs once, on zeros.
    """
    module = _private(module)
    specs: list[LayerSpec] = []
    for part in list(module.modules()):
        if isinstance(part, fx.GraphModule):
            part.forward = _CallSpecs(part, specs).run
        elif not any(True for _ in part.children()) and not isinstance(part, _FREE_MODULES):
            part.register_forward_hook(lambda m, _, out: specs.append(layer_spec(m, _one_image(out))))
    with torch.no_grad():
        module.eval()(torch.zeros(1, *in_shape))
    return specs


def _one_image(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape without the batch of one; the number of its values where the batch is not in front."""
    return tuple(tensor.shape[1:]) if tensor.shape[:1] == (1,) else (tensor.numel(),)


def _private(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its weights: hooks on it touch nobody else's."""
    weights = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(weight): weight for weight in weights})


class _CallSpecs(fx.Interpreter):
    """Runs a graph and notes what its calls cost; its submodules have hooks of their own."""

    def __init__(self, module: fx.GraphModule, specs: list[LayerSpec]) -> None:
        super().__init__(module)
        self.found = specs

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The call's value, its description noted if it is a tensor."""
        value = super().call_function(target, args, kwargs)
        if isinstance(value, torch.Tensor):
            shapes = [tuple(one.shape) for one in args if isinstance(one, torch.Tensor)]
            self.found.append(call_spec(target, _one_image(value), shapes))
        return value


def layer_spec(module: nn.Module, out_shape: tuple[int, ...], sides: tuple[int, int] | None = None) -> LayerSpec:
    """A leaf module.

    Parameters
    ----------
    out_shape : of its output, per image. The number of values is what counts: a layer that runs several times an image
        (on windows, frames or tokens) is one that is higher.
    sides : height and width of one map of a convolution; those of `out_shape` unless said.
    """
    if isinstance(module, nn.Conv2d):
        height, width = sides or out_shape[-2:]
        times = math.prod(out_shape) // max(module.out_channels * height * width, 1)
        padding = (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
        return LayerSpec(
            op="conv", in_channels=module.in_channels, out_channels=module.out_channels, out_height=height * times,
            out_width=width, kernel=(module.kernel_size[0], module.kernel_size[1]),
            stride=(module.stride[0], module.stride[1]), groups=module.groups,
            padding=padding if isinstance(module.padding, str) else (int(module.padding[0]), int(module.padding[1])),
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        return LayerSpec(
            op="fc", in_channels=module.in_features, out_channels=module.out_features,
            out_height=math.prod(out_shape) // module.out_features, density=float(getattr(module, "density", 1.0)),
        )  # fmt: skip
    if isinstance(module, nn.Flatten):
        return _plain("move", out_shape)
    return _plain("pool" if isinstance(module, _POOL_MODULES) else "elementwise", out_shape)


def _plain(op: str, out_shape: tuple[int, ...]) -> LayerSpec:
    channels, height, width = (*out_shape, 1, 1, 1)[:3] if len(out_shape) <= 3 else (math.prod(out_shape), 1, 1)
    return LayerSpec(op=op, in_channels=channels, out_channels=channels, out_height=height, out_width=width)
