"""Closed forms: moments of what enters a layer, the best last layer of a variant, the best layer for changed inputs.

Where the last layer of a variant does not mix positions, the weights that bring the variant closest to the base layer
solve a linear system (`refit_last_`); so do those of a layer whose inputs have changed, for its old outputs (`refit_`).
That takes a hundredth of the time of gradient steps and mostly ends where they would.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from transforms.graph.network import Unit

_RIDGE = 1e-4
_PULL = 1e-3  # of `refit_`, towards the weights that are there
_PULLED_POSITIONS = 2**15
_AT_ONCE = 8  # images
_POSITIONS = 2**14
_IMAGES = 128  # at least, so that no few images decide
_ROWS_PER_UNKNOWN = 4  # with fewer, the solution describes the samples, not the layer
_RECTIFIED_ROUNDS = 3


def bias_of(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    """The layer's bias, zeros where it has none."""
    return layer.bias.detach() if layer.bias is not None else layer.weight.new_zeros(layer.weight.shape[0])


@contextlib.contextmanager
def watched(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What the layer reads, call by call, while it is watched."""
    reads: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: reads.append(arguments[0]))
    try:
        yield reads
    finally:
        hook.remove()


def layer_inputs(module: fx.GraphModule, name: str, x: torch.Tensor) -> torch.Tensor:
    """What the layer of that name reads when `module` is given x (n, *shape)."""
    with watched(module.get_submodule(name)) as reads:
        for part in x.split(_AT_ONCE):
            module(part)
    return torch.cat(reads)


def rows_of(values: torch.Tensor, layer: nn.Module, most: int = _POSITIONS) -> torch.Tensor:
    """(positions, channels), spread evenly over all positions of (n, channels, h, w) or, for linear layers, (n, ...,
    channels)."""
    rows = values.movedim(1, -1).flatten(0, -2) if isinstance(layer, nn.Conv2d) else values.flatten(0, -2)
    return rows[:: -(-len(rows) // most)]


def enough_of(images: torch.Tensor) -> torch.Tensor:
    """The first of some maps or vectors (n, ...), as many as give `rows_of` its positions from many images."""
    positions = max(1, images[0].numel() // images.shape[1])
    return images[: max(_IMAGES, -(-_POSITIONS // positions))]


def root_of_moments(rows: torch.Tensor) -> torch.Tensor:
    """The square root, symmetric, of the second moments (channels, channels) of rows (positions, channels)."""
    rows = rows.double()
    moments = _ridged(rows.T @ rows / len(rows))
    values, vectors = torch.linalg.eigh(moments)
    return vectors @ torch.diag(values.clamp_min(1e-15).sqrt()) @ vectors.T


def refit_last_(core: nn.Module, unit: Unit, inputs: torch.Tensor, *, rectified: bool) -> bool:
    """Set the weights of the last layer of `core` to the best for the unit's own layer. Whether that was possible.

    It is where that layer is 1x1 or linear, its output enters the core's as a summand, and there are enough positions.

    Parameters
    ----------
    inputs : (n, *unit.core_in_shape). rectified : a rectifier follows, so that what is negative need not be met.
    """
    last: Any = _last(core)
    if last is None:
        return False
    inputs = enough_of(inputs)
    with watched(last) as reads:
        given = core(inputs)
    entering, wanted = reads[0], unit.op(inputs)
    known = rows_of(entering, last).double()
    if len(known) < _ROWS_PER_UNKNOWN * known.shape[1]:
        return False
    beside = rows_of(given - last(entering), last).double()
    solution = _solved(known, rows_of(wanted, last).double() - beside, beside if rectified else None)
    last.weight.copy_(solution[:-1].T.reshape(last.weight.shape))
    last.bias.copy_(solution[-1])
    return True


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
    weight = _PULL * gram.diagonal()[:dim].mean().clamp_min(1e-12)
    pull = torch.diag(torch.cat([weight.expand(dim), weight.new_zeros(1) + 1e-9]))
    free = dim + (layer.bias is not None)  # without a bias the constant is no unknown
    solution = torch.linalg.solve((gram + pull)[:free, :free], (cross + pull @ before)[:free])
    if not solution.isfinite().all():
        return
    layer.weight.copy_(solution[:dim].T.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(solution[dim])


def _last(core: nn.Module) -> nn.Module | None:
    """The last layer with weights, if it is pointwise with a bias."""
    weighted = [module for module in core.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    last: Any = weighted[-1] if weighted else None
    if last is None or last.bias is None or type(last) not in (nn.Conv2d, nn.Linear):
        return None
    pointwise = isinstance(last, nn.Linear) or (last.kernel_size, last.stride, last.groups) == ((1, 1), (1, 1), 1)
    return last if pointwise else None


def _solved(known: torch.Tensor, wanted: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
    """Weights and, last, the bias, (channels + 1, out), that bring `known` (rows, channels) to `wanted` (rows, out).

    beside : what is added to it before a rectifier, None without one. Where the rectifier gives 0, anything below 0
        will do [Zhang 2016]: the goal there is what the last solution gives, if that is negative.
    """
    known = _with_ones(known)
    factor = torch.linalg.cholesky(_ridged(known.T @ known))
    solution = torch.cholesky_solve(known.T @ wanted, factor)
    if beside is None:
        return solution
    for _ in range(_RECTIFIED_ROUNDS):
        sums = known @ solution + beside
        goal = torch.where(wanted + beside > 0, wanted, sums.clamp_max(0.0) - beside)
        solution = torch.cholesky_solve(known.T @ goal, factor)
    return solution


def _ridged(moments: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(len(moments), dtype=moments.dtype)
    return moments + _RIDGE * moments.diagonal().mean().clamp_min(1e-12) * eye


def _with_ones(rows: torch.Tensor) -> torch.Tensor:
    """With a last column for the bias."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _rows(
    layer: nn.Conv2d | nn.Linear, inputs: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(positions, inputs + 1) and (positions, outputs), some images at a time, spread evenly over all positions."""
    positions = targets.numel() // layer.weight.shape[0]
    step = -(-positions // _PULLED_POSITIONS)
    for x, y in zip(inputs.split(_AT_ONCE), targets.split(_AT_ONCE)):
        rows, wanted = (_columns(layer, x), y.movedim(1, -1)) if isinstance(layer, nn.Conv2d) else (x, y)
        rows, wanted = rows.flatten(0, -2)[::step], wanted.flatten(0, -2)[::step]
        yield _with_ones(rows), wanted


def _columns(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """(n, height, width, inputs of one output) of a convolution."""
    settings: Any = conv
    if conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid", "same"):
        return x[:, :, :: conv.stride[0], :: conv.stride[1]].movedim(1, -1)
    padded = functional.pad(x, settings._reversed_padding_repeated_twice)
    return functional.unfold(padded, settings.kernel_size, settings.dilation, 0, settings.stride).movedim(1, -1)
