"""Where every number of a tensor lies: channels in blocks of a vector's width, with room for padding around.

A tensor (batch, channels, height, width) lies in memory as (batch, blocks, top + height + bottom, left + width + right,
block). A convolution reads its padding from that border (the halo), so no kernel asks where the edge is. Block 1
without a halo is the plain layout that blocks hand over to each other. Layout changes are stages of their own, put in
only where a rule cannot read what is there.
"""

from dataclasses import dataclass, replace

import numpy as np

from compile.stages import Concat, Convolution, Elementwise, Flatten, Pool, Program, Stage, Step, Value, reads

Halo = tuple[int, int, int, int]
NO_HALO: Halo = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory.

    channels : the logical channel in every physical slot, -1 for padding; as many as blocks * block.
    halo : zeros around each map, (top, left, bottom, right).
    """

    channels: tuple[int, ...]
    block: int
    height: int
    width: int
    halo: Halo = NO_HALO

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
        return whole and (self.block == 1 or self.height == self.width == 1)

    def reblocked(self, block: int) -> "Layout":
        """The same memory seen in blocks of another size (only of maps of 1x1 without a halo)."""
        return replace(self, block=block)


def plain(value: Value) -> Layout:
    """Row-major."""
    return Layout(tuple(range(value.channels)), 1, *value.area)


def blocked(value: Value, block: int, halo: Halo = NO_HALO) -> Layout:
    """Channels in blocks, the last one filled up."""
    slots = -(-value.channels // block) * block
    channels = tuple(c if c < value.channels else -1 for c in range(slots))
    return Layout(channels, block, *value.area, halo)


@dataclass(frozen=True, kw_only=True)
class Relayout:
    """The same tensor, lying otherwise."""

    x: Value
    out: Value


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Stages with every tensor's layout; tensors that are no maps (or go between `Other`s) have none and are row-major."""

    program: Program
    stages: tuple[Stage | Relayout, ...]
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


def inputs_of(stage: Stage | Relayout) -> tuple[Value, ...]:
    """Tensors a stage reads."""
    return (stage.x,) if isinstance(stage, Relayout) else reads(stage)


def placed(program: Program, lanes: int) -> Placed:
    """Give every tensor a layout, and change it only where a stage cannot read what is there.

    Parameters
    ----------
    lanes : the vector width, which is the channel block.
    """
    return _Placing(program, lanes).run()


class _Placing:
    def __init__(self, program: Program, lanes: int) -> None:
        self.program = program
        self.lanes = lanes
        self.halos = _halos(program)
        self.layouts: dict[str, Layout] = {program.input.name: plain(program.input)} if program.input.is_map else {}
        self.stages: list[Stage | Relayout] = []
        self.copies: dict[tuple[str, Layout], Value] = {}

    def run(self) -> Placed:
        for stage in self.program.stages:
            placed = self._place(stage)
            self.stages.append(placed)
        result = self.program.result
        if result.name in self.layouts and not self.layouts[result.name].is_plain:
            result = self._as(result, plain(result))
        return Placed(program=self.program, stages=tuple(self.stages), result=result, layouts=self.layouts)

    def _place(self, stage: Stage) -> Stage:
        out = stage.out
        halo = self.halos.get(out.name, NO_HALO)
        if isinstance(stage, Convolution):
            stage = replace(stage, x=self._readable(stage))
            self.layouts[out.name] = blocked(out, self.lanes, halo)
            if is_depthwise(stage):
                channels = self.layouts[stage.x.name].channels
                self.layouts[out.name] = replace(self.layouts[out.name], channels=channels)
            return self._with_operands(stage)
        if isinstance(stage, (Pool, Elementwise)):
            x = self._in_blocks(stage.x)
            layout = self.layouts[x.name]
            self.layouts[out.name] = Layout(layout.channels, layout.block, *out.area, halo)
            return self._with_operands(replace(stage, x=x))
        if isinstance(stage, Concat):
            return self._concatenated(stage, halo)
        if isinstance(stage, Flatten):
            return self._flattened(stage)
        inputs = tuple(self._as(v, plain(v)) if v.name in self.layouts else v for v in stage.inputs)
        if out.is_map:
            self.layouts[out.name] = plain(out)
        return replace(stage, inputs=inputs)

    def _readable(self, stage: Convolution) -> Value:
        """The convolution's input as it can be read: with a halo as wide as the padding; depthwise ones in blocks."""
        layout = self.layouts[stage.x.name]
        wide = all(there >= wanted for there, wanted in zip(layout.halo, stage.padding))
        fits = layout.block == self.lanes or not is_depthwise(stage)
        if wide and fits:
            return stage.x
        few = stage.x.channels < self.lanes and not is_depthwise(stage)
        block = layout.block if layout.block == self.lanes else 1 if few else self.lanes
        halo = tuple(max(a, b) for a, b in zip(layout.halo, stage.padding))
        channels = layout.channels if layout.block == self.lanes else blocked(stage.x, block).channels
        return self._as(stage.x, Layout(channels, block, *stage.x.area, halo))  # type: ignore[arg-type]

    def _in_blocks(self, x: Value) -> Value:
        layout = self.layouts[x.name]
        return x if layout.block == self.lanes else self._as(x, blocked(x, self.lanes))

    def _with_operands(self, stage: Convolution | Pool | Elementwise) -> Convolution | Pool | Elementwise:
        """Operands of steps in the blocks of the output."""
        layout = self.layouts[stage.out.name]
        steps: list[Step] = []
        for step in stage.steps:
            if isinstance(step.operand, Value):
                there = self.layouts[step.operand.name]
                if (there.channels, there.block) != (layout.channels, layout.block):
                    step = replace(step, operand=self._as(step.operand, replace(layout, halo=NO_HALO)))
            steps.append(step)
        return replace(stage, steps=tuple(steps))

    def _concatenated(self, stage: Concat, halo: Halo) -> Concat:
        parts: list[Value] = []
        channels: list[int] = []
        first = 0
        for part in stage.parts:
            layout = self.layouts[part.name]
            if layout.block != self.lanes or layout.halo != halo:
                part = self._as(part, blocked(part, self.lanes, halo))
                layout = self.layouts[part.name]
            channels += [c + first if c >= 0 else -1 for c in layout.channels]
            first += part.channels
            parts.append(part)
        self.layouts[stage.out.name] = Layout(tuple(channels), self.lanes, *stage.out.area, halo)
        return Concat(parts=tuple(parts), out=stage.out)

    def _flattened(self, stage: Flatten) -> Flatten:
        x, out = stage.x, stage.out
        layout = self.layouts[x.name]
        if len(out.shape) != 2 or (len(x.shape) == 2):
            x = self._as(x, plain(x))
            if out.is_map:
                self.layouts[out.name] = plain(out)
            return Flatten(x=x, out=out)
        if layout.halo != NO_HALO:
            layout = replace(layout, halo=NO_HALO)
            x = self._as(x, layout)
        height, width = x.area
        slots = np.array(layout.channels).reshape(layout.blocks, 1, layout.block)
        pixels = np.arange(height * width).reshape(1, -1, 1)
        order = np.where(slots >= 0, slots * (height * width) + pixels, -1)
        self.layouts[out.name] = Layout(tuple(int(i) for i in order.reshape(-1)), layout.block, 1, 1)
        return Flatten(x=x, out=out)

    def _as(self, value: Value, layout: Layout) -> Value:
        """The tensor in that layout: itself if it lies so, a copy otherwise."""
        if self.layouts[value.name] == layout or (self.layouts[value.name].is_plain and layout.is_plain):
            return value
        key = (value.name, layout)
        if key not in self.copies:
            copy = Value(f"{value.name}_{len(self.copies)}", value.shape)
            self.layouts[copy.name] = layout
            self.stages.append(Relayout(x=value, out=copy))
            self.copies[key] = copy
        return self.copies[key]


def is_depthwise(stage: Convolution) -> bool:
    """Whether every channel is convolved on its own."""
    return stage.groups == stage.x.channels == len(stage.weight) and stage.groups > 1 and stage.pool == 1


def _halos(program: Program) -> dict[str, Halo]:
    """The widest padding that any convolution asks of each tensor; parts of a concatenation share theirs."""
    halos: dict[str, Halo] = {}

    def widen(value: Value, halo: Halo) -> None:
        there = halos.get(value.name, NO_HALO)
        halos[value.name] = tuple(max(a, b) for a, b in zip(there, halo))  # type: ignore[assignment]

    for _ in range(len(program.stages)):  # nested concatenations need another round each
        before = dict(halos)
        for stage in reversed(program.stages):
            if isinstance(stage, Convolution):
                widen(stage.x, stage.padding)
            elif isinstance(stage, Concat):
                for part in stage.parts:
                    widen(stage.out, halos.get(part.name, NO_HALO))
                for part in stage.parts:
                    widen(part, halos.get(stage.out.name, NO_HALO))
        if halos == before:
            break
    return halos


