"""Movement of data: from any layout to any other, by nested loops where places have strides, else by a table.

The places that are written and read are two columns of numbers, in the order of memory or in that of the tensor's
indices. `nested` finds the loops that make them: as long as neighbours keep their distance they are one loop, whose
first elements are looked at again; and what is left is one turn of what comes again at a distance. What then remains is
a table: of channels, where they are shuffled, not of every number of their maps.
"""

import math
from collections.abc import Callable
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


@dataclass(frozen=True, kw_only=True)
class Nest:
    """Loops over columns of places: `first` (n, columns) starts, and loops inside, (count, steps), the outermost first.

    part : which tensor is read; -1 fills with `fill`. written : the first place that is written and how far the next
        is, where a table need not say it.
    """

    part: int
    fill: float
    first: np.ndarray
    loops: tuple[tuple[int, tuple[int, ...]], ...]
    written: tuple[int, int] | None = None

    @property
    def table(self) -> np.ndarray | None:
        """What the loops do not say, (n, columns): places that are written, unless evenly, and read."""
        if len(self.first) == 1:
            return None
        return (self.first if self.written is None else self.first[:, 1:]).astype(np.int32)

    @property
    def ends_in_table(self) -> bool:
        """Whether the table is gone through inside the loops: where those do not write neighbours."""
        return len(self.first) > 1 and bool(self.loops) and self.loops[-1][1][0] != 1

    @property
    def key(self) -> tuple[Any, ...]:
        starts = tuple(map(int, self.first[0])) if len(self.first) == 1 else len(self.first)
        return (self.part, self.fill, starts, self.loops, self.written)


def gathering(stage: Gather, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Any table, between any layouts."""
    nests = _nests(stage, layouts)
    size = _size(stage.out, layouts)
    tables = [nest.table for nest in nests if nest.table is not None]
    parallel = int(size >= PARALLEL_NUMBERS and target.threads > 1)

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        parts, rest, y = given[: len(stage.parts)], iter(given[len(stage.parts) : -1]), given[-1]
        for nest in nests:
            x = None if nest.part < 0 else parts[nest.part]
            table = next(rest) if nest.table is not None else None
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
    layout = layouts.get(stage.out.name)
    written = places_of(stage.out.shape, layout)
    table = stage.table.reshape(-1)
    which, read = np.full(table.shape, -1), np.zeros_like(table)
    first = 0
    for number, part in enumerate(stage.parts):
        lies = places_of(tuple(part.shape), layouts.get(part.name) if isinstance(part, Value) else None)
        mine = (table >= first) & (table < first + len(lies))
        which[mine], read[mine] = number, lies[table[mine] - first]
        first += len(lies)
    nests = []
    for part in np.unique(which):
        mine = which == part
        columns = written[mine][:, None] if part < 0 else np.stack([written[mine], read[mine]], 1)
        nests.append(_nest(columns, int(part), stage.fill))
    return nests + [_nest(places[:, None], -1, 0.0) for places in _padding(layout, stage.out.shape[0])]


def _padding(layout: Layout | None, batch: int) -> list[np.ndarray]:
    """Places of a buffer that hold no number, in order: those around the maps, and lanes inside without a channel."""
    if layout is None:
        return []
    shape = layout.shape(batch)
    top, left = layout.halo[:2]
    around = np.ones(shape[2:4], bool)
    around[top : top + layout.height, left : left + layout.width] = False
    around = around[None, None, :, :, None]
    empty = np.asarray(layout.channels).reshape(layout.blocks, 1, 1, layout.block) < 0
    kinds = [np.flatnonzero(np.broadcast_to(kind, shape)) for kind in (around, empty & ~around)]
    return [places for places in kinds if len(places)]


def _nest(columns: np.ndarray, part: int, fill: float) -> Nest:
    """With the smaller table of two orders: that in which numbers are written, and the one given."""
    first, loops = nested(columns[columns[:, 0].argsort()])
    if len(first) > 1:
        first, loops = min((first, loops), nested(columns), key=lambda found: len(found[0]))
    written = _evenly(first[:, 0]) if part >= 0 else None
    return Nest(part=part, fill=fill if part < 0 else 0.0, first=first, loops=loops, written=written)


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
    outer = []
    while (turn := _turn(columns)) < len(columns):
        outer.append((len(columns) // turn, tuple(map(int, columns[turn] - columns[0]))))
        columns = columns[:turn]
    return columns, (*outer, *reversed(loops))


def _turn(columns: np.ndarray) -> int:
    """The rows after which all come again at one distance; all of them where they do not."""
    count = len(columns)
    low = [d for d in range(1, math.isqrt(count) + 1) if count % d == 0]
    for turn in sorted({*low, *(count // d for d in low)} - {count}):
        apart = columns[turn] - columns[0]
        if (columns[-1] - columns[-1 - turn] == apart).all() and (columns[turn:] - columns[:-turn] == apart).all():
            return turn
    return count


def _evenly(places: np.ndarray) -> tuple[int, int] | None:
    """The first of some places and how far each is from the one before, if all are as far."""
    if len(places) < 2 or (np.diff(places) != places[1] - places[0]).any():
        return None
    return int(places[0]), int(places[1] - places[0])


def _copy(nest: Nest, table: Any, x: Any, y: Any, lanes: int, dtype: str, *, parallel: bool) -> None:
    """The loops of one nest; the outermost one on all threads."""
    width, loops = nest.first.shape[1], list(nest.loops)
    inner = loops.pop() if loops and not nest.ends_in_table else (1, (1,) * width)

    def started(task: Any) -> list[Any]:
        """Places that an entry of the table says."""
        held = width if nest.written is None else width - 1
        at = [table[task * held + i] for i in range(held)]
        return at if nest.written is None else [nest.written[0] + task * nest.written[1], *at]

    def finish(at: list[Any]) -> None:
        if not nest.ends_in_table:
            _innermost(at, inner, x, y, lanes, dtype, nest.fill)
            return
        with T.serial(len(nest.first)) as task:
            places = [place + start for place, start in zip(at, started(task))]
            _innermost(places, inner, x, y, lanes, dtype, nest.fill)

    if table is not None and not nest.ends_in_table:
        with tasks(len(nest.first), parallel=parallel) as task:
            _inside(started(task), loops, finish)
        return
    starts: list[Any] = [0] * width if table is not None else [int(place) for place in nest.first[0]]
    if not loops:
        finish(starts)
        return
    count, steps = loops.pop(0)
    with tasks(count, parallel=parallel) as task:
        _inside([start + task * step for start, step in zip(starts, steps)], loops, finish)


def _inside(at: list[Any], loops: list[Any], finish: Callable[[list[Any]], None]) -> None:
    """Loops one inside the other, and in the innermost what is done at the places."""
    if not loops:
        finish(at)
        return
    (count, steps), *rest = loops
    with T.serial(count) as i:
        _inside([place + i * step for place, step in zip(at, steps)], rest, finish)


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
