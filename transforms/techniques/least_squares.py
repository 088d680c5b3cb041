"""Closed forms: moments of what enters a layer, and the best last layer of a variant for what leaves the base.

Where the last layer of a variant does not mix positions, the weights that bring the variant closest to the base layer
solve a linear system. That takes a hundredth of the time of gradient steps and mostly ends where they would.
"""

from typing import Any

import torch
from torch import nn

from transforms.graph.network import Unit

_RIDGE = 1e-4
_POSITIONS = 2**14
_IMAGES = 128  # at least, so that no few images decide
_ROWS_PER_UNKNOWN = 4  # with fewer, the solution describes the samples, not the layer
_RECTIFIED_ROUNDS = 3


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
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        given = core(inputs)
    finally:
        handle.remove()
    entering, wanted = seen[0], unit.op(inputs)
    known = rows_of(entering, last).double()
    if len(known) < _ROWS_PER_UNKNOWN * known.shape[1]:
        return False
    beside = rows_of(given - last(entering), last).double()
    solution = _solved(known, rows_of(wanted, last).double() - beside, beside if rectified else None)
    last.weight.copy_(solution[:-1].T.reshape(last.weight.shape))
    last.bias.copy_(solution[-1])
    return True


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
    known = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
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
