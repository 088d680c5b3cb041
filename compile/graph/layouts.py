"""Where every number of a tensor lies: channels in blocks of a vector's width, with room for padding around.

A tensor (batch, channels, height, width) lies in memory as (batch, blocks, top + height + bottom, left + width + right,
block). A convolution reads its padding from that border (the halo), so no kernel asks where the edge is. Block 1
without a halo is the plain layout that blocks hand over to each other. Layout changes are stages of their own, put in
only where a rule cannot read what is there.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.graph.stages import (
    Convolution,
    Program,
    Stage,
    Value,
    reads,
)

if TYPE_CHECKING:
    pass

Halo = tuple[int, int, int, int]
NO_HALO: Halo = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory.

    channels : the logical channel in every physical slot, -1 for padding; as many as blocks * block.
    halo : zeros around each map, (top, left, bottom, right).
    dtype : of a number in memory; bf16 is held in uint16, codes in uint8 or int8.
    """

    channels: tuple[int, ...]
    block: int
    height: int
    width: int
    halo: Halo = NO_HALO
    dtype: str = "float32"

    @property
    def blocks(self) -> int:
        return len(self.channels) // self.block

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with the halo."""
        top, left, bottom, right = self.halo
        return self.height + top + bottom, self.width + left + right

    def shape(self, batch: int) -> tuple[int, ...]:
        """Of the buffer."""
        return (batch, self.blocks, *self.padded, self.block)

    def numbers(self, batch: int) -> int:
        """float32 numbers in the buffer."""
        return int(np.prod(self.shape(batch)))

    @property
    def is_plain(self) -> bool:
        """Whether it is row-major with nothing added: the layout of a hand-over."""
        whole = self.channels == tuple(range(len(self.channels))) and self.halo == NO_HALO
        whole = whole and self.dtype == "float32"
        return whole and (self.block == 1 or self.height == self.width == 1)

    def reblocked(self, block: int) -> "Layout":
        """The same memory seen in blocks of another size (only of maps of 1x1 without a halo)."""
        return replace(self, block=block)


def plain(value: Value) -> Layout:
    """Row-major."""
    return Layout(tuple(range(value.channels)), 1, *value.area)


def blocked(value: Value, block: int, halo: Halo = NO_HALO, dtype: str = "float32") -> Layout:
    """Channels in blocks, the last one filled up."""
    slots = -(-value.channels // block) * block
    channels = tuple(c if c < value.channels else -1 for c in range(slots))
    return Layout(channels, block, *value.area, halo, dtype)


@dataclass(frozen=True, kw_only=True)
class Relayout:
    """The same tensor, lying otherwise."""

    x: Value
    out: Value


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest absolute number of every image, (batch, 1)."""

    x: Value
    out: Value


@dataclass(frozen=True, kw_only=True)
class Quantise:
    """Numbers as integer codes: `offset + levels * x / largest`, rounded; the halo is the code of zero."""

    x: Value
    largest: Value
    out: Value
    levels: int
    offset: int


Placement = Relayout | Largest | Quantise
"""Stages that placing puts in."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Stages with every tensor's layout; tensors that are no maps have none and are row-major."""

    program: Program
    stages: tuple[Stage | Placement, ...]
    result: Value
    layouts: dict[str, Layout]

    def text(self) -> str:
        """One line a tensor, for dumps."""
        lines = []
        for stage in self.stages:
            layout = self.layouts.get(stage.out.name)
            lies = f"{layout.blocks} blocks of {layout.block}, halo {layout.halo}" if layout else "row-major"
            inputs = ", ".join(value.name for value in inputs_of(stage))
            lines.append(f"{stage.out.name} = {type(stage).__name__}({inputs}): {stage.out.shape} in {lies}")
        return "\n".join(lines) + "\n"


def inputs_of(stage: Stage | Placement) -> tuple[Value, ...]:
    """Tensors a stage reads."""
    if isinstance(stage, Quantise):
        return stage.x, stage.largest
    return (stage.x,) if isinstance(stage, (Relayout, Largest)) else reads(stage)


def is_depthwise(stage: Convolution) -> bool:
    """Whether every channel is convolved on its own."""
    return stage.groups == stage.x.channels == len(stage.weight) and stage.groups > 1 and stage.pool == 1


def described(layout: Layout) -> tuple[Any, ...]:
    """What a kernel's speed takes from a layout."""
    return (layout.blocks, layout.block, layout.height, layout.width, layout.halo, layout.dtype)
