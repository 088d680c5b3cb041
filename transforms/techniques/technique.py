"""What every compression technique offers, and the module it returns."""

import abc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from modeltree.errors import ConfigError, NotApplicable
from transforms.graph.bodies import Body
from transforms.graph.network import Unit
from transforms.techniques.least_squares import refit_last_

LANES = 16
"""Numbers in the widest vectors that we compile for: a multiple of it fills those of every target."""

Samples = tuple[torch.Tensor, torch.Tensor]
"""Inputs of a unit and the base network's outputs for them, to start a variant from data where that is cheap."""


class Variant(nn.Module):
    """A compressed unit: takes the unit's input and returns something of its output's shape.

    head, tail : the base unit's own flattening in front, activation and pooling behind; they have no weights.
    core : what replaces the layer.
    restore : brings back the channels that filter pruning took away; a 1x1 convolution or linear map without bias,
        which folds into the next dense layer (`transforms.compose`). Identity for every other technique.
    ends_network : the variant returns the network's output, the units behind it are not needed (F3).
    body : the stretch that it takes the place of, if that is more than the unit: then `core` is all of it.
    """

    core: Any  # nn.Module; its children differ by technique, and nn.Module types every attribute Tensor | Module
    restore: Any
    ends_network: bool

    def __init__(
        self, unit: Unit, core: nn.Module, *, tail: nn.Module | None = None, restore: nn.Module | None = None,
        head: nn.Module | None = None, ends_network: bool = False, body: Body | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        own = body is None
        self.head = head if head is not None else unit.head if own else nn.Identity()
        self.core = core
        self.tail = tail if tail is not None else unit.tail if own else nn.Identity()
        self.restore = restore if restore is not None else nn.Identity()
        self.ends_network = ends_network
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, *unit.in_shape) -> (batch, *unit.out_shape); those of the body where it takes the place of one."""
        return self.restore(self.tail(self.core(self.head(x))))


class Technique(abc.ABC):
    """One compression technique. Stateless; returns new modules and never touches its input.

    id, name : the paper's (F1, svd) and ours for those beyond it.
    rates : the settings the library holds, mildest first; what a rate means stands in the class's docstring. For a
        unit, `rates_for` says them.
    largest : the largest rate that means something: 1 for a share.
    ends_network : its variants return the network's output, so that the units behind are not needed.
    solved : from samples its variants start where a closed form ends: unless that is far off, no steps follow.
    """

    id: ClassVar[str]
    name: ClassVar[str]
    rates: ClassVar[tuple[float, ...]]
    largest: ClassVar[float] = 1.0
    ends_network: ClassVar[bool] = False
    solved: ClassVar[bool] = False

    def rates_for(self, unit: Unit, lanes: int) -> tuple[float, ...]:
        """The settings worth holding for a unit on a target whose vectors hold so many numbers; 0: not known."""
        return self.rates

    def reach(self, unit: Unit) -> Body | None:
        """The stretch from the unit on that a variant takes the place of; None where that is the unit alone."""
        return None

    @abc.abstractmethod
    def structure(self, unit: Unit, rate: float) -> Variant:
        """The variant with weights that mean nothing yet; shapes depend on the unit and the rate alone.

        Raises
        ------
        NotApplicable : the technique does not fit the unit; the message says why.
        """

    @abc.abstractmethod
    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        """Set the variant's weights to the best cheap start: from the base layer's weights, and samples if given."""

    def apply(self, unit: Unit, rate: float, samples: Samples | None = None) -> Variant:
        """A new module in the unit's place, started as well as is cheap. The unit is not touched.

        Raises
        ------
        NotApplicable : the technique does not fit the unit; the message says why.
        ConfigError : the rate is not positive, or above `largest`.
        """
        if not 0 < rate <= self.largest:
            raise ConfigError(f"rate of {self.name} is {rate}: it must be above 0 and at most {self.largest:g}")
        # torch draws weights for every new layer, only for us to overwrite them: the caller's generator stays put
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            variant = self.structure(unit, rate)
            self.initialise_(variant, unit, rate, samples)
            alone = self.reach(unit) is None and not variant.ends_network
            if samples is not None and alone and isinstance(variant.restore, nn.Identity):
                refit_last_(variant.core, unit, unit.head(samples[0]), rectified=_rectifies(unit))
        return variant.eval()


def _rectifies(unit: Unit) -> bool:
    """Whether what the unit's layer gives below 0 is lost behind it."""
    return not bool(unit.tail(torch.full((1, *unit.core_out_shape), -1.0)).any())


def dense_convolution(unit: Unit, technique: str) -> nn.Conv2d:
    """The unit's layer if it is a convolution with one group, and no single-pixel kernel."""
    if not isinstance(unit.op, nn.Conv2d):
        raise NotApplicable(f"{technique} replaces convolutions: {unit.name} is a linear layer")
    if unit.op.groups != 1:
        raise NotApplicable(f"{technique} needs a convolution with one group: {unit.name} has {unit.op.groups}")
    if unit.op.kernel_size == (1, 1):
        raise NotApplicable(f"{technique} saves on the kernel's area: {unit.name} is already 1x1")
    return unit.op


def linear_layer(unit: Unit, technique: str) -> nn.Linear:
    """The unit's layer if it is a linear one on vectors."""
    if not isinstance(unit.op, nn.Linear) or len(unit.core_in_shape) != 1:
        raise NotApplicable(f"{technique} replaces fully connected layers: {unit.name} is not one")
    return unit.op


def like(conv: nn.Conv2d, in_channels: int, out_channels: int, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution with the kernel, stride, padding and dilation of `conv` but other channels."""
    return nn.Conv2d(
        in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, groups, bias=bias  # type: ignore[arg-type]
    )  # fmt: skip


def must_save(unit: Unit, macs: int, base: int, technique: str) -> None:
    """Refuse a variant that has no fewer multiply-accumulates than the layer it replaces."""
    if macs >= base:
        raise NotApplicable(
            f"{technique} would need {macs} MACs in {unit.name}, the layer itself {base}: nothing saved"
        )


def aligned(shares: Iterable[float], total: int, lanes: int) -> Iterator[float]:
    """Shares of `total` channels, each of a whole number of vectors and less than all, without repeats.

    A share is exact: `round(share * total)` is a multiple of `lanes`.
    """
    counts = [max(1, round(share * total / lanes)) * lanes for share in shares]
    yield from (round(count / total, 5) for count in dict.fromkeys(counts) if count < total)
