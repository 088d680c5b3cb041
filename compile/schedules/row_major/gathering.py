"""Movement of data: from any layout to any other, by nested loops where places have strides, else by a table.

The places that are written and read are two columns of numbers. `nested` finds the loops that make them: as long as
neighbours keep their distance they are one loop, whose first elements are looked at again. What is left is a table.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Constant, Kernel
from compile.graph.layouts import Layout
from compile.graph.stages import Gather, Value
from compile.schedules.emit import tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target
from compile.vectors import lanes_at, spread

_PADDING = -2
"""Source of a slot that holds no number: 0."""


@dataclass(frozen=True, kw_only=True)
class Nest:
    """Loops over columns of places: `first` (n, columns) starts, and loops inside, (count, steps), the outermost first.

    part : which tensor is read; -1 fills with `fill`.
    """

    part: int
    fill: float
    first: np.ndarray
    loops: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        starts = tuple(map(int, self.first[0])) if len(self.first) == 1 else len(self.first)
        return (self.part, self.fill, starts, self.loops)


def gathering(stage: Gather, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Any table, between any layouts."""
    nests = _nests(stage, layouts)
    size = _size(stage.out, layouts)
    tables = [nest.first.astype(np.int32) for nest in nests if len(nest.first) > 1]
    parallel = int(size >= PARALLEL_NUMBERS and target.threads > 1)

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        parts, rest, y = given[: len(stage.parts)], iter(given[len(stage.parts) : -1]), given[-1]
        for nest in nests:
            x = None if nest.part < 0 else parts[nest.part]
            table = next(rest) if len(nest.first) > 1 else None
            _copy(nest, table, x, y, target.lanes, stage.out.dtype, parallel=bool(tile["parallel"]))

    arguments = [part if isinstance(part, Value) else Constant(np.ascontiguousarray(part)) for part in stage.parts]
    return Kernel(
        name="gather", key=("gather", stage.out.dtype, size, tuple(nest.key for nest in nests)),
        tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(
            *(Buffer(f"x{i}", (_size(part, layouts),), stage.out.dtype) for i, part in enumerate(stage.parts)),
            *(Buffer(f"table{i}", (table.size,), "int32") for i, table in enumerate(tables)),
            Buffer("y", (size,), stage.out.dtype),
        ),
        arguments=(*arguments, *(Constant(table.reshape(-1)) for table in tables)),
    )  # fmt: skip


def places_of(shape: tuple[int, ...], layout: Layout | None) -> np.ndarray:
    """Where every number of a tensor lies, in row-major order of its indices."""
    if layout is None:
        return np.arange(math.prod(shape), dtype=np.int64)
    batch, channels = shape[0], len([c for c in layout.channels if c >= 0])
    slots = np.zeros(channels, np.int64)
    for slot, channel in enumerate(layout.channels):
        if channel >= 0:
            slots[channel] = slot
    rows, columns = layout.padded
    top, left = layout.halo[:2]
    block, lane = slots // layout.block, slots % layout.block
    images = np.arange(batch)[:, None, None, None] * layout.blocks
    lines = (images + block[:, None, None]) * rows + np.arange(layout.height)[:, None] + top
    found = (lines * columns + np.arange(layout.width) + left) * layout.block + lane[:, None, None]
    return found.reshape(-1)


def _size(part: Value | np.ndarray, layouts: dict[str, Layout]) -> int:
    """Numbers that lie in memory."""
    if isinstance(part, Value) and part.name in layouts:
        return layouts[part.name].numbers(part.shape[0])
    return math.prod(part.shape)


def _nests(stage: Gather, layouts: dict[str, Layout]) -> list[Nest]:
    """Loops that write every number of the output once, and zeros into its padding."""
    written = places_of(stage.out.shape, layouts.get(stage.out.name))
    read = np.full(_size(stage.out, layouts), _PADDING, np.int64)
    table = stage.table.reshape(-1)
    which, inside = np.full(table.shape, -1), np.zeros_like(table)
    first = 0
    for number, part in enumerate(stage.parts):
        layout = layouts.get(part.name) if isinstance(part, Value) else None
        lies = places_of(tuple(part.shape), layout)
        mine = (table >= first) & (table < first + len(lies))
        which[mine], inside[mine] = number, lies[table[mine] - first]
        first += len(lies)
    parts = np.full(len(read), _PADDING)
    parts[written], read[written] = which, inside
    nests = []
    for part in np.unique(parts):
        at = np.flatnonzero(parts == part)
        columns = at[:, None] if part < 0 else np.stack([at, read[at]], 1)
        first_places, loops = nested(columns)
        fill = stage.fill if part == -1 else 0.0
        nests.append(Nest(part=max(int(part), -1), fill=fill, first=first_places, loops=loops))
    return nests


def nested(columns: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, tuple[int, ...]], ...]]:
    """Starts that are left, and the loops inside them, outermost first, of rows of places (n, columns)."""
    loops: list[tuple[int, tuple[int, ...]]] = []
    while len(columns) > 1:
        apart = np.diff(columns, axis=0)
        breaks = np.flatnonzero((apart != apart[0]).any(1)) + 1
        count = math.gcd(len(columns), *map(int, breaks)) if len(breaks) else len(columns)
        if count == 1:
            break
        loops.append((count, tuple(map(int, apart[0]))))
        columns = columns[::count]
    return columns, tuple(reversed(loops))


def _copy(nest: Nest, table: Any, x: Any, y: Any, lanes: int, dtype: str, *, parallel: bool) -> None:
    """The loops of one nest; the outermost one on all threads."""
    width = nest.first.shape[1]
    loops = list(nest.loops)
    inner = loops.pop() if loops else (1, (1,) * width)
    if table is not None:
        with tasks(len(nest.first), parallel=parallel) as task:
            _inside([table[task * width + i] for i in range(width)], loops, inner, x, y, lanes, dtype, nest.fill)
        return
    starts: list[Any] = [int(place) for place in nest.first[0]]
    if not loops:
        _innermost(starts, inner, x, y, lanes, dtype, nest.fill)
        return
    count, steps = loops.pop(0)
    with tasks(count, parallel=parallel) as task:
        at = [start + task * step for start, step in zip(starts, steps)]
        _inside(at, loops, inner, x, y, lanes, dtype, nest.fill)


def _inside(
    at: list[Any], loops: list[Any], inner: tuple[int, tuple[int, ...]], x: Any, y: Any, lanes: int, dtype: str,
    fill: float,
) -> None:  # fmt: skip
    if not loops:
        _innermost(at, inner, x, y, lanes, dtype, fill)
        return
    (count, steps), *rest = loops
    with T.serial(count) as i:
        _inside([place + i * step for place, step in zip(at, steps)], rest, inner, x, y, lanes, dtype, fill)


def _innermost(
    at: list[Any], inner: tuple[int, tuple[int, ...]], x: Any, y: Any, lanes: int, dtype: str, fill: float
) -> None:
    """Whole vectors where neighbours are written next to each other and read so too (or all from one place)."""
    count, steps = inner
    together = steps[0] == 1 and (len(steps) == 1 or steps[1] in (0, 1)) and dtype == "float32"
    done = count // lanes * lanes if together and count >= lanes else 0
    if done:
        with T.serial(done // lanes) as i:
            to = at[0] + i * lanes
            if x is None:
                vector = spread(fill, lanes)
            elif steps[1] == 1:
                vector = x[lanes_at(at[1] + i * lanes, lanes)]
            else:
                vector = spread(x[at[1]], lanes)
            T.buffer_store(y, vector, [lanes_at(to, lanes)])
    if done < count:
        with T.serial(count - done) as i:
            number = tirx.const(fill if dtype == "float32" else int(fill), dtype)
            if x is not None:
                number = x[at[1] + (i + done) * steps[1]]
            T.buffer_store(y, number, [at[0] + (i + done) * steps[0]])
