"""Closed forms for a layer whose inputs have changed: the weights that best give its old outputs from the new."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from transforms.techniques.technique import bias_of

_RIDGE = 1e-3
_POSITIONS = 2**15
_AT_ONCE = 8  # images


def layer_inputs(module: fx.GraphModule, name: str, x: torch.Tensor) -> torch.Tensor:
    """What the layer of that name reads when `module` is given x (n, *shape)."""
    reads: list[torch.Tensor] = []
    layer = module.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, args: reads.append(args[0]))
    try:
        for part in x.split(_AT_ONCE):
            module(part)
    finally:
        hook.remove()
    return torch.cat(reads)


def refit_(layer: nn.Conv2d | nn.Linear, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Set weights and bias by least squares, drawn a little towards those that the layer has.

    Parameters
    ----------
    layer : a convolution of one group, or a linear layer on tokens or vectors.
    inputs : (n, *shape) of what it reads. targets : (n, *shape) of what it shall give.
    """
    dim = layer.weight[0].numel()
    gram = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)
    cross = torch.zeros(dim + 1, layer.weight.shape[0], dtype=torch.float64)
    before = torch.cat([layer.weight.flatten(1).T, bias_of(layer)[None]]).double()
    for rows, wanted in _rows(layer, inputs, targets):
        gram += (rows.T @ rows).double()
        cross += (rows.T @ wanted).double()
    weight = _RIDGE * gram.diagonal()[:dim].mean().clamp_min(1e-12)
    pull = torch.diag(torch.cat([weight.expand(dim), weight.new_zeros(1) + 1e-9]))
    free = dim + (layer.bias is not None)  # without a bias the constant is no unknown
    solution = torch.linalg.solve((gram + pull)[:free, :free], (cross + pull @ before)[:free])
    if not solution.isfinite().all():
        return
    layer.weight.copy_(solution[:dim].T.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(solution[dim])


def _rows(
    layer: nn.Conv2d | nn.Linear, inputs: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(positions, inputs + 1) and (positions, outputs), some images at a time, spread evenly over all positions."""
    positions = targets.numel() // layer.weight.shape[0]
    step = -(-positions // _POSITIONS)
    for x, y in zip(inputs.split(_AT_ONCE), targets.split(_AT_ONCE)):
        rows, wanted = (_columns(layer, x), y.movedim(1, -1)) if isinstance(layer, nn.Conv2d) else (x, y)
        rows, wanted = rows.flatten(0, -2)[::step], wanted.flatten(0, -2)[::step]
        yield torch.cat([rows, rows.new_ones(len(rows), 1)], 1), wanted


def _columns(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """(n, height, width, inputs of one output) of a convolution."""
    settings: Any = conv
    if conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid", "same"):
        return x[:, :, :: conv.stride[0], :: conv.stride[1]].movedim(1, -1)
    padded = functional.pad(x, settings._reversed_padding_repeated_twice)
    return functional.unfold(padded, settings.kernel_size, settings.dilation, 0, settings.stride).movedim(1, -1)
