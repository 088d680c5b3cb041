"""Direct convolution: a tile of output positions by output vectors stays in registers over the whole reduction.

Input channels, kernel rows and columns are the reduction; every step of it loads `vectors` vectors of packed weights
and one number a position, and adds `positions * vectors` products. Weights lie in the order they are read
(`packing.py`). Padding is read from the input's halo.
Where a tile does not divide the output, the last one starts earlier and computes some positions twice, alike.
Groups are convolutions of a range of input blocks, with zeros where the range is wider than the group; but where a
vector of outputs has several groups whole, each lane reads the channels of its own.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.formats import Format, format_of
from compile.graph.kernels import Buffer, Constant, Kernel, Tile
from compile.graph.layouts import Layout, described
from compile.graph.stages import Convolution, Value
from compile.schedules.emit import (
    Epilogue,
    clear_halo,
    operands,
    prefetch,
    registers,
    split,
    step_key,
    store,
    tasks,
    tile_start,
)
from compile.schedules.packing import (
    Depth,
    Packing,
    dense,
    depth_of,
    groups_a_vector,
    own_channels,
    own_weights,
    ranges,
)
from compile.schedules.winograd import Winograd
from compile.targets import Target
from compile.vectors import lanes_at, larger, spread

PARALLEL_MACS = 40_000
"""Below this one thread does it all: waking a second one would cost more than it saves. Chosen, not tuned."""

_MOST_TILES = 10
_FEW_TILES, _CLEARLY = 4, 0.8
"""So few direct tiles are timed where the estimate of those in Winograd's basis is below this share of theirs."""
_STREAMED_BYTES = 128_000
_AHEAD_VECTORS = 128
"""How far ahead of their use weights are fetched, in vectors of float32: measured (benchmarks/README.md)."""
_LINE_BYTES = 64
_LATENCY = 4
"""Cycles from one multiply-add to the next that needs its sum."""
_MOST_WIDENED = 4
"""Steps written out where weights are widened: LLVM widens those of all steps ahead, and each takes a register."""


def convolution(stage: Convolution, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel | None:
    """Any convolution of maps with any kernel, stride, padding, dilation and groups, and any dense layer."""
    source, result = layouts[stage.x.name], layouts[stage.out.name]
    if result.block != target.lanes:
        return None
    shape = _Shape(stage, source, result, target, format_of(weights, target))
    return shape.kernel(layouts)


class _Shape:
    """The numbers of one convolution on one target."""

    def __init__(self, stage: Convolution, source: Layout, result: Layout, target: Target, form: Format) -> None:
        self.stage, self.target, self.form = stage, target, form
        self.lanes = target.lanes
        self.batch = stage.x.shape[0]
        self.kernel_area: tuple[int, int] = stage.weight.shape[2:]
        self.rows, self.columns = stage.conv_area
        self.source, self.result = source, result
        if self._is_pointwise:
            self.source, self.rows, self.columns = _one_row(source), 1, self.rows * self.columns
            self.result = _one_row(result)
        if source.height == source.width == 1 and source.halo == (0, 0, 0, 0) and min(source.channels) >= 0:
            self.source = source.reblocked(_divisor(len(source.channels), 64, form.group))
        self.out_blocks = result.blocks
        self.first, self.in_blocks = ranges(stage, self.source, self.result)
        area = self.kernel_area[0] * self.kernel_area[1]
        self.groups = groups_a_vector(stage, self.source, self.result, form.group)
        depth = depth_of(self.source, self.in_blocks, form.group)
        if self.groups > 1:
            self.first = own_channels(stage, self.result, self.groups)
            depth = Depth(repeats=1, runs=((1, stage.weight.shape[1]),))
        self.packing = Packing(depth, self.result, area, form)
        self.cycles = 0.0
        self.winograd = Winograd(
            stage, self.source, self.result, (self.rows, self.columns), target, form, self.packing
        )  # fmt: skip

    @property
    def _is_pointwise(self) -> bool:
        """Whether rows may be taken as one long row: 1x1, stride 1, no halo on either side, no window to pool."""
        stage = self.stage
        no_halo = self.source.halo == self.result.halo == (0, 0, 0, 0)
        alone = not any(not isinstance(s.operand, (np.ndarray, float, type(None))) for s in stage.steps)
        return self.kernel_area == (1, 1) and stage.stride == (1, 1) and no_halo and alone and stage.pool == 1

    def kernel(self, layouts: dict[str, Layout]) -> Kernel:
        stage = self.stage
        tiles = tuple(self.tiles())
        extra, passed = operands(stage.steps, self.result.channels, layouts, self.batch)
        scale = [Buffer("scale", (len(self.result.channels),))] if self.form.scaled else []
        largest = [Buffer("largest", (self.batch, 1))] if self.form.levels else []
        shift = [Buffer("shift", (len(self.result.channels),), "int32")] if stage.offset else []
        starts = [] if stage.groups == 1 else [Buffer("first", (self.out_blocks,), "int32")]
        codes, scales = self.form.packed(
            own_weights(stage, self.result)
            if self.groups > 1
            else dense(stage, self.source, self.result, self.first, self.in_blocks)
        )
        weights = Constant(self.packing.packed(codes))
        buffers = (
            Buffer("x", self.source.shape(self.batch), self.source.dtype),
            Buffer("weight", (self.packing.numbers,), self.form.weight),
            *scale, *largest, *shift, *starts, *extra,
            Buffer("y", self.result.shape(self.batch), self.result.dtype),
        )  # fmt: skip
        constants: list[Value | Constant] = [Constant(scales / self._levels)] if self.form.scaled else []
        constants += [stage.largest] if stage.largest is not None else []
        constants += [Constant(self._shift(codes))] if stage.offset else []
        constants += [] if stage.groups == 1 else [Constant(self.first)]
        key = (
            "convolution", self.form.name, self.batch, described(self.source), described(self.result), stage.padding,
            self.kernel_area, stage.stride, stage.dilation, self.in_blocks, stage.pool, step_key(stage.steps, layouts),
            stage.groups > 1, self.groups, stage.offset, self.packing.key,
        )  # fmt: skip
        return Kernel(
            name=f"conv{self.kernel_area[0]}x{self.kernel_area[1]}", key=key, tiles=tiles, buffers=buffers,
            arguments=(stage.x, weights, *constants, *passed), out=stage.out, macs=stage.macs,
            body=lambda tile, given: self.emit(tile, given, layouts),
            scratch=lambda tile: self.winograd.scratch(tile) if "winograd" in tile else 0,
            cycles=self.cycles,
        )  # fmt: skip

    @property
    def _levels(self) -> np.float32:
        """Codes that the largest number of an image stands for, 1 where maps are not codes."""
        if not self.form.levels:
            return np.float32(1)
        return np.float32(self.stage.offset - 1 if self.stage.offset else self.form.levels)

    def _shift(self, codes: np.ndarray) -> np.ndarray:
        """What sums start at, so that the code of zero counts nothing: minus the offset times each slot's weights."""
        axes = (*range(1, codes.ndim - 2), codes.ndim - 1)
        return (-self.stage.offset * codes.astype(np.int64).sum(axis=axes)).astype(np.int32).reshape(-1)

    def tiles(self) -> Iterator[Tile]:
        """Tiles that fit the registers, best first by `_cost`."""
        parallel = int(self.stage.macs >= PARALLEL_MACS and self.target.threads > 1)
        found: dict[Tile, float] = {}
        step = self.stage.pool
        most_vectors = 1 if self.stage.groups > 1 else 8
        for vectors in range(1, min(self.out_blocks, most_vectors) + 1):
            if self.out_blocks % vectors:
                continue
            for rows in range(step, min(self.rows, 4 * step) + 1, step):
                for columns in range(step, min(self.columns, 30) + 1, step):
                    for images in {1, min(self.batch, 4)} if self.rows * self.columns == 1 else {1}:
                        tile = (
                            ("vectors", vectors), ("images", images), ("rows", rows), ("columns", columns),
                            ("parallel", parallel),
                        )  # fmt: skip
                        cost = self._cost(vectors, images, rows, columns, parallel)
                        if cost is not None:
                            found[tile] = cost
        best = sorted(found, key=lambda tile: found[tile])[:_MOST_TILES]
        fast = list(self.winograd.tiles(parallel)) if self.winograd.fits else []
        least = found[best[0]]
        self.cycles = min([least, *(cost for cost, _ in fast[:1])])
        if fast and fast[0][0] < _CLEARLY * least:
            best = best[:_FEW_TILES]
        yield from (tile for cost, tile in fast if cost < least)
        yield from best
        yield from (tile for cost, tile in fast if cost >= least)
        if parallel and self.stage.macs < 8 * PARALLEL_MACS:
            yield from [(*tile[:-1], ("parallel", 0)) for tile in best[:2]]

    def _cost(self, vectors: int, images: int, rows: int, columns: int, parallel: int) -> float | None:
        """Estimated cycles of a thread; None where the accumulators do not fit the registers.

        A cycle takes two multiply-adds or two loads; a chain of dependent multiply-adds takes four cycles a link.
        """
        positions = images * rows * columns
        accumulators = positions * vectors
        held = positions if self._by_lane else 1
        if accumulators + vectors + held > self.target.registers - 1:
            return None
        tiles = [
            -(-self.batch // images), self.out_blocks // vectors, -(-self.rows // rows), -(-self.columns // columns),
        ]  # fmt: skip
        split_over = tiles[0] * tiles[1] * tiles[2]
        shares = -(-split_over // self.target.threads) if parallel else split_over
        loads = vectors * self.form.load_cost + positions * self.groups
        step = max(accumulators / 2, loads / 2, _LATENCY)
        return shares * tiles[3] * (step * self.packing.steps + 3 * accumulators + 10)

    def emit(self, tile: dict[str, int], given: list[Any], layouts: dict[str, Layout]) -> None:
        """The loops over tiles, on all threads: each takes all columns of some rows of some output vectors."""
        given, scratch = (given[:-1], given[-1]) if "winograd" in tile else (given, None)
        rest = iter(given[2:-1])
        scale = next(rest) if self.form.scaled else None
        largest = next(rest) if self.form.levels else None
        shift = next(rest) if self.stage.offset else None
        starts = next(rest) if self.stage.groups > 1 else None
        epilogue = Epilogue(self.stage.steps, list(rest), layouts, self.lanes)
        x, weight, y = given[0], given[1], given[-1]
        if scratch is not None:
            self.winograd.emit(tile, x, weight, scale, epilogue, y, scratch)
            return
        vectors, images, rows, columns = (tile[name] for name in ("vectors", "images", "rows", "columns"))
        row_tiles, out_tiles = -(-self.rows // rows), self.out_blocks // vectors
        image_tiles = -(-self.batch // images)
        with self._instruction(), tasks(out_tiles * image_tiles * row_tiles, parallel=bool(tile["parallel"])) as task:
            out_tile, image_tile, row_tile = split(task, out_tiles, image_tiles, row_tiles)
            image = tile_start(image_tile, images, self.batch)
            row = tile_start(row_tile, rows, self.rows)
            if any(self.result.halo):
                self._clear(y, image, images, out_tile * vectors, vectors, row_tile)
            with T.serial(-(-self.columns // columns)) as column_tile:
                column = tile_start(column_tile, columns, self.columns)
                sums = self._reduced(x, weight, shift, starts, tile, out_tile, image, row, column)
                self._finish(y, sums, (scale, largest), epilogue, tile, out_tile, image, row, column)

    def _instruction(self) -> Any:
        """Brings the format's own instruction into the function's LLVM module."""
        if not self.form.llvm:
            return contextlib.nullcontext()
        return T.attr(tirx.IntImm("int32", 0), "pragma_import_llvm", tvm.ir.StringImm(self.form.llvm))

    def _clear(self, y: Any, image: Any, images: int, block: Any, vectors: int, row_tile: Any) -> None:
        def clear() -> None:
            for i in range(images):
                for v in range(vectors):
                    clear_halo(y, self.result, image + i, block + v, self.lanes)

        if isinstance(row_tile, int):
            clear()
            return
        with T.If(row_tile == 0), T.Then():
            clear()

    def _reduced(
        self, x: Any, weight: Any, shift: Any, starts: Any, tile: dict[str, int],
        out_tile: Any, image: Any, row: Any, column: Any,
    ) -> Any:  # fmt: skip
        """Sums of one tile, in registers: position-major, then vectors."""
        vectors, lanes = tile["vectors"], self.lanes
        places = self._places(tile)
        kh, kw = self.kernel_area
        (sh, sw), (dh, dw) = self.stage.stride, self.stage.dilation
        top, left = self.source.halo[0] - self.stage.padding[0], self.source.halo[1] - self.stage.padding[1]
        sums = registers((len(places) * vectors * lanes,), self.form.sums)
        for i in range(len(places) * vectors):
            start = tirx.Broadcast(tirx.const(0, self.form.sums), lanes)
            if shift is not None:
                start = shift[lanes_at((out_tile * vectors + i % vectors) * lanes, lanes)]
            T.buffer_store(sums, start, [lanes_at(i * lanes, lanes)])
        first: Any = 0 if starts is None else T.Bind(starts[out_tile])
        block, channel = (first // lanes, first % lanes) if self.groups > 1 else (first, 0)
        group = self.form.group
        streams = [
            self.packing.stream(out_tile * vectors + v, last=self.packing.is_last(out_tile, v, vectors))
            for v in range(vectors)
        ]
        for b, before, slots in self.packing.depth.over():
            groups, unrolled = slots // group, self._unrolled(slots)
            loops = T.serial(kh), T.serial(kw), T.serial(groups // unrolled)
            with loops[0] as r, loops[1] as c, loops[2] as i:
                at = before * (kh * kw) // group + (r * kw + c) * groups + i * unrolled
                for start, apart in streams if self._streams else ():
                    prefetch(weight, start + at * apart + self._ahead)
                read = []
                for n, pr, pc in places:
                    down, across = (row + pr) * sh + r * dh + top, (column + pc) * sw + c * dw + left
                    from_channel = channel + i * unrolled * group
                    read.append(self._read(x, image + n, block + b, down, across, from_channel, unrolled))
                for step in range(unrolled):
                    loaded = [
                        T.Bind(self.form.load(weight, start + (at + step) * apart, lanes)) for start, apart in streams
                    ]
                    for position in range(len(places)):
                        wide = T.Bind(read[position](step))
                        for v in range(vectors):
                            here = lanes_at((position * vectors + v) * lanes, lanes)
                            T.buffer_store(sums, self.form.multiply_add(sums[here], wide, loaded[v], lanes), [here])
        return sums

    def _unrolled(self, slots: int) -> int:
        """Steps of a block's reduction written out: as many as weights of one vector fill a cache line."""
        groups = slots // self.form.group
        bytes_a_step = self.lanes * self.form.group * np.dtype(self.form.weight).itemsize
        steps = max(1, _LINE_BYTES // bytes_a_step)
        return math.gcd(groups, min(steps, _MOST_WIDENED) if self.form.load_cost > 1 else steps)

    @property
    def _by_lane(self) -> bool:
        """Whether numbers are multiplied from lanes of a vector, which stays in a register for all its steps."""
        several = self.groups == 1 and self._unrolled(self.source.block) > 1
        return several and self.target.architecture != "x86_64" and self.form.reads != "uint16"

    def _read(
        self, x: Any, image: Any, block: Any, row: Any, column: Any, channel: Any, steps: int
    ) -> Callable[[int], Any]:
        """Numbers of one position, step by step, each in every lane, or in those of its group.

        x86 broadcasts from memory as it multiplies; ARM multiplies by a lane of a vector that is loaded once.
        """
        group, width = self.form.group, self.stage.weight.shape[1]
        if not self._by_lane or steps == 1:
            return lambda step: self._by_group(
                [
                    self.form.spread(x, [image, block, row, column, channel + k * width + step * group], self.lanes)
                    for k in range(self.groups)
                ]
            )
        several = T.Bind(self.form.several(x, [image, block, row, column, channel], steps))
        return lambda step: tirx.Broadcast(tirx.Shuffle([several], [step]), self.lanes)

    def _by_group(self, vectors: list[Any]) -> Any:
        """The lanes of each group from its own vector."""
        vector = vectors[-1]
        for k in range(len(vectors) - 1, 0, -1):
            first = k * self.lanes // self.groups
            vector = tirx.Select(
                tirx.Ramp(0, 1, self.lanes) < tirx.Broadcast(T.int32(first), self.lanes), vectors[k - 1], vector
            )
        return vector

    @property
    def _streams(self) -> bool:
        """Whether the weights come from memory: more of them than a cache keeps from one run to the next."""
        return self.packing.numbers * np.dtype(self.form.weight).itemsize >= _STREAMED_BYTES

    @property
    def _ahead(self) -> int:
        """How many weights ahead to fetch."""
        return _AHEAD_VECTORS * self.lanes * 4 // np.dtype(self.form.weight).itemsize

    def _places(self, tile: dict[str, int]) -> list[tuple[int, int, int]]:
        return [
            (n, r, c) for n in range(tile["images"]) for r in range(tile["rows"]) for c in range(tile["columns"])
        ]  # fmt: skip

    def _finish(
        self, y: Any, sums: Any, scales: tuple[Any, Any], epilogue: Epilogue, tile: dict[str, int],
        out_tile: Any, image: Any, row: Any, column: Any,
    ) -> None:  # fmt: skip
        """Scale, steps and pooling on the sums of a tile, then the stores."""
        vectors, lanes, pool = tile["vectors"], self.lanes, self.stage.pool
        top, left = self.result.halo[:2]
        scale, largest = scales
        at = {place: position for position, place in enumerate(self._places(tile))}

        def value(n: int, r: int, c: int, v: int) -> Any:
            vector = sums[lanes_at((at[n, r, c] * vectors + v) * lanes, lanes)]
            block = out_tile * vectors + v
            if largest is not None:
                vector = T.cast(vector, f"float32x{lanes}") * spread(largest[image + n, 0], lanes)
            if scale is not None:
                vector = vector * scale[lanes_at(block * lanes, lanes)]
            vector = epilogue(vector, image + n, block, row + r, column + c)
            return self.packing.filled(vector, last=self.packing.is_last(out_tile, v, vectors))

        for n in range(tile["images"]):
            for r in range(0, tile["rows"], pool):
                for c in range(0, tile["columns"], pool):
                    for v in range(vectors):
                        window = [value(n, r + i, c + j, v) for i in range(pool) for j in range(pool)]
                        vector = window[0]
                        for other in window[1:]:
                            vector = larger(vector, other)
                        place = ((row + r) // pool + top, (column + c) // pool + left)
                        store(y, vector, image + n, out_tile * vectors + v, *place, lanes)


def _one_row(layout: Layout) -> Layout:
    return replace(layout, height=1, width=layout.height * layout.width)


def _divisor(number: int, most: int, group: int) -> int:
    """The largest divisor up to `most` that is a multiple of `group` (which divides the number)."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0 and d % group == 0)
