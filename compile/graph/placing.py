"""Puts every tensor of a program in a layout: blocks and halos as the convolutions want them, layout changes between.

A halo is as wide as the widest padding that a convolution asks for. Stages that change a layout, or make codes of
numbers, are put in only where a rule cannot read what is there.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compile.graph.layouts import (
    NO_HALO,
    Halo,
    Largest,
    Layout,
    Placed,
    Placement,
    Quantise,
    Relayout,
    blocked,
    is_depthwise,
    plain,
)
from compile.graph.stages import (
    Concat,
    Convolution,
    Elementwise,
    Flatten,
    Gather,
    Loops,
    Map,
    Operand,
    Pool,
    Product,
    Program,
    Rows,
    Stage,
    Step,
    Value,
    reads,
)

if TYPE_CHECKING:
    from compile.formats import Format

_CODES = 16
"""Codes of neighbouring channels that narrow vectors load at once."""


def placed(program: Program, lanes: int, form: "Format") -> Placed:
    """Give every tensor a layout, and change it only where a stage cannot read what is there.

    Parameters
    ----------
    lanes : the vector width, which is the channel block.
    form : how feature maps are held, and what convolutions read them as.
    """
    return _Placing(program, lanes, form).run()


class _Placing:
    def __init__(self, program: Program, lanes: int, form: "Format") -> None:
        self.program = program
        self.lanes, self.form = lanes, form
        self.halos = _halos(program, codes=form.levels > 0)
        self.in_blocks = _read_in_blocks(program)
        self.positive: set[str] = set()
        self.layouts: dict[str, Layout] = {program.input.name: plain(program.input)} if program.input.is_map else {}
        self.stages: list[Stage | Placement] = []
        self.copies: dict[tuple[str, Layout], Value] = {}

    def run(self) -> Placed:
        for stage in self.program.stages:
            placed = self._place(stage)
            self.stages.append(placed)
            if _is_positive(placed, self.positive):
                self.positive.add(placed.out.name)
        result = self.program.result
        if result.name in self.layouts and not self.layouts[result.name].is_plain:
            result = self._as(result, plain(result))
        return Placed(program=self.program, stages=tuple(self.stages), result=result, layouts=self.layouts)

    def _place(self, stage: Stage) -> Stage:
        out = stage.out
        halo = self.halos.get(out.name, NO_HALO)
        if isinstance(stage, Convolution):
            stage = self._coded(stage) if self.form.levels and not is_depthwise(stage) else self._readable(stage)
            self.layouts[out.name] = blocked(out, self.lanes, halo, self.form.maps)
            if is_depthwise(stage):
                channels = self.layouts[stage.x.name].channels
                self.layouts[out.name] = replace(self.layouts[out.name], channels=channels)
            return self._with_operands(stage)
        if isinstance(stage, (Pool, Elementwise)):
            x = self._in_blocks(stage.x)
            layout = self.layouts[x.name]
            self.layouts[out.name] = Layout(layout.channels, layout.block, *out.area, halo, self.form.maps)
            return self._with_operands(replace(stage, x=x))
        if isinstance(stage, Concat):
            return self._concatenated(stage, halo)
        if isinstance(stage, Flatten):
            return self._flattened(stage)
        if isinstance(stage, Gather):
            return self._gathered(stage, halo)
        if out.is_map:
            self.layouts[out.name] = plain(out)
        return self._on_rows(stage)

    def _gathered(self, stage: Gather, halo: Halo) -> Gather:
        """Numbers are taken from wherever they lie, and laid where their first reader in blocks wants them."""
        out, narrow = stage.out, self.form.maps != "float32"
        parts = tuple(self._row_major(part) if narrow and isinstance(part, Value) else part for part in stage.parts)
        if out.is_map:
            wanted = self.in_blocks.get(out.name, 0) if not narrow else 0
            self.layouts[out.name] = blocked(out, self.lanes, halo) if wanted else plain(out)
        return replace(stage, parts=parts)

    def _on_rows(self, stage: Product | Map | Rows | Loops) -> Stage:
        """With every tensor row-major."""
        if isinstance(stage, Loops):
            inputs = tuple(self._row_major(v) if isinstance(v, Value) else v for v in stage.inputs)
            return replace(stage, inputs=inputs)
        steps = tuple(
            replace(step, operand=self._row_major(step.operand)) if isinstance(step.operand, Value) else step
            for step in stage.steps
        )
        if not isinstance(stage, Product):
            return replace(stage, x=self._row_major(stage.x), steps=steps)
        x = replace(stage.x, value=self._row_major(stage.x.value))
        y = replace(stage.y, value=self._row_major(stage.y.value)) if isinstance(stage.y, Operand) else stage.y
        return replace(stage, x=x, y=y, steps=steps)

    def _row_major(self, value: Value) -> Value:
        return self._as(value, plain(value)) if value.name in self.layouts else value

    def _readable(self, stage: Convolution) -> Convolution:
        """With an input that can be read: a halo as wide as the padding, whole groups in a block."""
        layout = self.layouts[stage.x.name]
        wide = all(there >= wanted for there, wanted in zip(layout.halo, stage.padding))
        if is_depthwise(stage):
            held, fits = self.form.maps, layout.block == self.lanes
        else:
            held, fits = self.form.reads, layout.block % self.form.group == 0
        if wide and fits and layout.dtype == held:
            return stage
        block = layout.block if layout.block == self.lanes else self._block(stage)
        halo = tuple(max(a, b) for a, b in zip(layout.halo, stage.padding))
        channels = layout.channels if layout.block == self.lanes else blocked(stage.x, block).channels
        wanted = Layout(channels, block, *stage.x.area, halo, held)  # type: ignore[arg-type]
        return replace(stage, x=self._as(stage.x, wanted))

    def _block(self, stage: Convolution) -> int:
        """Channels a block, where the input is not in blocks of the vector's width: few where there are few."""
        if stage.x.channels >= self.lanes or is_depthwise(stage):
            return self.lanes
        return 1 if self.form.group == 1 else -(-stage.x.channels // self.form.group) * self.form.group

    def _coded(self, stage: Convolution) -> Convolution:
        """With an input of integer codes, scaled by every image's largest number."""
        layout = self.layouts[stage.x.name]
        x = stage.x
        if layout.block % self.form.group:
            x = self._as(x, blocked(x, self._block(stage)))
            layout = self.layouts[x.name]
        positive = stage.x.name in self.positive and self.form.offset > 0
        levels = self.form.levels if positive or not self.form.offset else self.form.offset - 1
        offset = 0 if positive else self.form.offset
        wide = self.lanes * self.form.group
        block = wide if wide <= _CODES and len(layout.channels) % wide == 0 else layout.block
        key = (x.name, replace(layout, block=block, halo=stage.padding, dtype=self.form.reads))
        if (x.name, layout) not in self.copies:
            largest = Value(f"{x.name}_largest", (x.shape[0], 1))
            self.stages.append(Largest(x=x, out=largest))
            self.copies[x.name, layout] = largest
        largest = self.copies[x.name, layout]
        if key not in self.copies:
            codes = Value(f"{x.name}_codes{len(self.copies)}", x.shape, self.form.reads)
            self.layouts[codes.name] = key[1]
            self.stages.append(Quantise(x=x, largest=largest, out=codes, levels=levels, offset=offset))
            self.copies[key] = codes
        return replace(stage, x=self.copies[key], largest=largest, offset=offset)

    def _in_blocks(self, x: Value) -> Value:
        """In blocks of the vector's width, as maps are held."""
        layout = self.layouts[x.name]
        held = layout.block == self.lanes and layout.dtype == self.form.maps
        return x if held else self._as(x, blocked(x, self.lanes, dtype=self.form.maps))

    def _with_operands(self, stage: Convolution | Pool | Elementwise) -> Convolution | Pool | Elementwise:
        """Operands of steps in the blocks of the output."""
        layout = self.layouts[stage.out.name]
        steps: list[Step] = []
        for step in stage.steps:
            if isinstance(step.operand, Value):
                there = self.layouts[step.operand.name]
                height, width = step.operand.area
                one = step.operand.channels == 1 < stage.out.channels
                if not one and (there.channels, there.block) != (layout.channels, layout.block):
                    wanted = replace(layout, halo=NO_HALO, height=height, width=width)
                    step = replace(step, operand=self._as(step.operand, wanted))
            steps.append(step)
        return replace(stage, steps=tuple(steps))

    def _concatenated(self, stage: Concat, halo: Halo) -> Concat:
        parts: list[Value] = []
        channels: list[int] = []
        first = 0
        for part in stage.parts:
            layout = self.layouts[part.name]
            if (layout.block, layout.halo, layout.dtype) != (self.lanes, halo, self.form.maps):
                part = self._as(part, blocked(part, self.lanes, halo, self.form.maps))
                layout = self.layouts[part.name]
            channels += [c + first if c >= 0 else -1 for c in layout.channels]
            first += part.channels
            parts.append(part)
        self.layouts[stage.out.name] = Layout(tuple(channels), self.lanes, *stage.out.area, halo, self.form.maps)
        return Concat(parts=tuple(parts), out=stage.out)

    def _flattened(self, stage: Flatten) -> Flatten:
        x, out = stage.x, stage.out
        if len(out.shape) != 2 or len(x.shape) != 4 or x.shape[0] != out.shape[0] or not out.is_map:
            x = self._row_major(x)
            if out.is_map:
                self.layouts[out.name] = plain(out)
            return Flatten(x=x, out=out)
        layout = self.layouts[x.name]
        if layout.halo != NO_HALO:
            layout = replace(layout, halo=NO_HALO)
            x = self._as(x, layout)
        height, width = x.area
        slots = np.array(layout.channels).reshape(layout.blocks, 1, layout.block)
        pixels = np.arange(height * width).reshape(1, -1, 1)
        order = np.where(slots >= 0, slots * (height * width) + pixels, -1)
        self.layouts[out.name] = Layout(
            tuple(int(i) for i in order.reshape(-1)), layout.block, 1, 1, NO_HALO, layout.dtype
        )  # fmt: skip
        return Flatten(x=x, out=out)

    def _as(self, value: Value, layout: Layout) -> Value:
        """The tensor in that layout: itself if it lies so, the same memory if only the blocks differ, or a copy."""
        there = self.layouts[value.name]
        if there == layout:
            return value
        key = (value.name, layout)
        if key not in self.copies:
            copy = Value(f"{value.name}_{len(self.copies)}", value.shape)
            self.layouts[copy.name] = layout
            same = there.is_plain and layout.is_plain
            self.stages.append((Flatten if same else Relayout)(x=value, out=copy))
            if value.name in self.positive:
                self.positive.add(copy.name)
            self.copies[key] = copy
        return self.copies[key]


_POSITIVE = ("relu", "relu6", "sigmoid")


def _is_positive(stage: Stage, positive: set[str]) -> bool:
    """Whether a stage's output is known to have no negative number."""
    steps = getattr(stage, "steps", ())
    if steps:
        last = steps[-1]
        return last.op in _POSITIVE or (last.op == "clip" and last.numbers[0] >= 0)
    if isinstance(stage, (Pool, Flatten)):
        return stage.x.name in positive
    return isinstance(stage, Concat) and all(part.name in positive for part in stage.parts)


def _halos(program: Program, *, codes: bool) -> dict[str, Halo]:
    """The widest padding that any convolution asks of each tensor; parts of a concatenation share theirs.

    codes : convolutions read integer copies with halos of their own; only depthwise ones read the tensor itself.
    """
    halos: dict[str, Halo] = {}

    def widen(value: Value, halo: Halo) -> None:
        there = halos.get(value.name, NO_HALO)
        halos[value.name] = tuple(max(a, b) for a, b in zip(there, halo))  # type: ignore[assignment]

    for _ in range(len(program.stages)):  # nested concatenations need another round each
        before = dict(halos)
        for stage in reversed(program.stages):
            if isinstance(stage, Convolution):
                if not codes or is_depthwise(stage):
                    widen(stage.x, stage.padding)
            elif isinstance(stage, Concat):
                for part in stage.parts:
                    widen(stage.out, halos.get(part.name, NO_HALO))
                for part in stage.parts:
                    widen(part, halos.get(stage.out.name, NO_HALO))
        if halos == before:
            break
    return halos


def _read_in_blocks(program: Program) -> dict[str, int]:
    """How many stages read each tensor in blocks of channels."""
    found: dict[str, int] = {}
    for stage in program.stages:
        if isinstance(stage, (Convolution, Pool, Elementwise, Concat)):
            for value in reads(stage):
                found[value.name] = found.get(value.name, 0) + 1
    return found
