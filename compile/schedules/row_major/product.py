"""Matrix products: a tile of rows by vectors of columns stays in registers over the whole depth.

Constant matrices are packed as they are read, [columns / lanes][depth][lanes]; others are read where they lie. Where
a tile does not divide the output, the last one starts earlier and computes some numbers twice, alike.
"""

import math
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.formats import Format, format_of
from compile.graph.kernels import Buffer, Constant, Kernel, Tile
from compile.graph.layouts import Layout
from compile.graph.stages import Operand, Product
from compile.schedules.convolution import PARALLEL_MACS
from compile.schedules.emit import prefetch, registers, split, tasks, tile_start
from compile.schedules.row_major.pieces import RowEpilogue, row_step_key, step_operands
from compile.targets import Target
from compile.vectors import lanes_at, spread

_MOST_TILES = 6
_LATENCY = 4
_STREAMED_BYTES = 128_000
_AHEAD_VECTORS = 128
_UNROLLED = 4


def product(stage: Product, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Any matrices; weights in any format are widened."""
    return _Product(stage, target, format_of(weights.removesuffix("-dot"), target)).kernel()


class _Product:
    """The numbers of one product on one target."""

    def __init__(self, stage: Product, target: Target, form: Format) -> None:
        self.stage, self.target = stage, target
        self.matrices, self.m, self.n, self.k = stage.extent
        self.lanes = 1 << (min(target.lanes, self.n).bit_length() - 1)
        self.panels = -(-self.n // self.lanes)
        self.packed = isinstance(stage.y, np.ndarray)
        self.form = form if self.packed else format_of("f32", target)
        self.unrolled = math.gcd(self.k, _UNROLLED)

    def kernel(self) -> Kernel:
        stage = self.stage
        extra, passed = step_operands(stage.steps)
        y, scale = self._constants()
        buffers, arguments = [Buffer("x", (math.prod(stage.x.value.shape),))], [stage.x.value]
        tables = [stage.x.offsets]
        if isinstance(stage.y, Operand):
            buffers.append(Buffer("weight", (math.prod(stage.y.value.shape),)))
            arguments.append(stage.y.value)
            tables.append(stage.y.offsets)
        else:
            assert y is not None
            buffers.append(Buffer("weight", (y.size,), self.form.weight))
            arguments.append(Constant(y))  # type: ignore[arg-type]
        if scale is not None:
            buffers.append(Buffer("scale", (scale.size,)))
            arguments.append(Constant(scale))  # type: ignore[arg-type]
        if self.matrices > 1:
            for name, table in zip(("x_starts", "y_starts"), tables):
                buffers.append(Buffer(name, (self.matrices,), "int32"))
                arguments.append(Constant(table.astype(np.int32)))  # type: ignore[arg-type]
        strides = (stage.x.rows, stage.x.columns, stage.y.rows if isinstance(stage.y, Operand) else 0)
        starts = () if self.matrices > 1 else tuple(int(table[0]) for table in tables)
        key = ("product", self.form.name, self.packed, stage.extent, strides, starts, stage.out.shape,
               row_step_key(stage.steps), tuple(buffer.shape for buffer in buffers))  # fmt: skip
        tiles = self.tiles()
        return Kernel(
            name="product", key=key, tiles=tuple(tiles), out=stage.out, macs=stage.macs, body=self.emit,
            cycles=next(iter(tiles.values())),
            buffers=(*buffers, *extra, Buffer("y", (math.prod(stage.out.shape),))),
            arguments=(*arguments, *passed),
        )  # fmt: skip

    def _constants(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """A constant matrix as it is read, and its columns' factors."""
        if isinstance(self.stage.y, Operand):
            return None, None
        starts = np.minimum(np.arange(self.panels) * self.lanes, self.n - self.lanes)
        columns = starts[:, None] + np.arange(self.lanes)
        panels = np.ascontiguousarray(self.stage.y[:, columns].transpose(1, 0, 2))
        packed, scale = self.form.packed(panels)
        return np.ascontiguousarray(packed).reshape(-1), (scale if self.form.scaled else None)

    def tiles(self) -> dict[Tile, float]:
        """Those that fit the registers with their estimated cycles, best first."""
        parallel = int(self.stage.macs >= PARALLEL_MACS and self.target.threads > 1)
        found: dict[Tile, float] = {}
        for vectors in range(1, min(self.panels, 6) + 1):
            for rows in range(1, min(self.m, 30) + 1):
                accumulators = vectors * rows
                if accumulators + vectors + 1 > self.target.registers - 1:
                    continue
                loads = vectors * self.form.load_cost + rows
                step = max(accumulators / 2, loads / 2, _LATENCY)
                count = -(-self.m // rows) * -(-self.panels // vectors)
                found[("vectors", vectors), ("rows", rows), ("parallel", parallel)] = (
                    self.matrices * count * (step * self.k + 20)
                )
        return {tile: found[tile] for tile in sorted(found, key=lambda tile: found[tile])[:_MOST_TILES]}

    def emit(self, tile: dict[str, int], given: list[Any]) -> None:
        stage, y = self.stage, given[-1]
        x, weight, *rest = given[:-1]
        scale = rest.pop(0) if self.packed and self.form.scaled else None
        tables = [rest.pop(0) for _ in range(1 if self.packed else 2)] if self.matrices > 1 else None
        epilogue = RowEpilogue(stage.steps, rest, tuple(stage.out.shape))
        vectors, rows = tile["vectors"], tile["rows"]
        groups = -(-self.panels // vectors)
        with tasks(self.matrices * groups, parallel=bool(tile["parallel"])) as task:
            matrix, group = split(task, self.matrices, groups)
            panel = tile_start(group, vectors, self.panels)
            starts = self._starts(tables, matrix)
            with T.serial(-(-self.m // rows)) as row_tile:
                row = tile_start(row_tile, rows, self.m)
                sums = self._reduced(x, weight, starts, panel, row, vectors, rows)
                for r in range(rows):
                    for v in range(vectors):
                        self._finish(y, sums[lanes_at((r * vectors + v) * self.lanes, self.lanes)], scale,
                                     matrix * self.m + row + r, panel + v, epilogue)  # fmt: skip

    def _starts(self, tables: Any, matrix: Any) -> tuple[Any, Any]:
        stage = self.stage
        if tables is not None:
            found = [T.Bind(table[matrix]) for table in tables]
            return found[0], found[1] if len(found) > 1 else 0
        return int(stage.x.offsets[0]), int(stage.y.offsets[0]) if isinstance(stage.y, Operand) else 0

    def _reduced(
        self, x: Any, weight: Any, starts: tuple[Any, Any], panel: Any, row: Any, vectors: int, rows: int
    ) -> Any:
        stage, lanes, form = self.stage, self.lanes, self.form
        sums = registers((rows * vectors * lanes,))
        for i in range(rows * vectors):
            T.buffer_store(sums, spread(0.0, lanes), [lanes_at(i * lanes, lanes)])
        streams = self.packed and self.k * self.n * np.dtype(form.weight).itemsize >= _STREAMED_BYTES
        ahead = _AHEAD_VECTORS * lanes * 4 // np.dtype(form.weight).itemsize
        by_lane = self.target.architecture != "x86_64" and stage.x.columns == 1 and self.unrolled > 1
        with T.serial(self.k // self.unrolled) as outer:
            first = outer * self.unrolled
            places = [starts[0] + (row + r) * stage.x.rows + first * stage.x.columns for r in range(rows)]
            several = [T.Bind(x[tirx.Ramp(place, 1, self.unrolled)]) for place in places] if by_lane else None
            if streams:
                for v in range(vectors):
                    prefetch(weight, ((panel + v) * self.k + first) * lanes + ahead)
            for step in range(self.unrolled):
                at = first + step
                loaded = [T.Bind(self._weight(weight, starts[1], panel + v, at)) for v in range(vectors)]
                for r in range(rows):
                    if several is not None:
                        number = tirx.Shuffle([several[r]], [step])
                    else:
                        number = x[places[r] + step * stage.x.columns]
                    wide = T.Bind(tirx.Broadcast(number, lanes) if lanes > 1 else number)
                    for v in range(vectors):
                        here = lanes_at((r * vectors + v) * lanes, lanes)
                        T.buffer_store(sums, sums[here] + wide * loaded[v], [here])
        return sums

    def _weight(self, weight: Any, start: Any, panel: Any, depth: Any) -> Any:
        """A vector of a row of the second matrix."""
        if self.packed:
            return self.form.load(weight, (panel * self.k + depth) * self.lanes, self.lanes)
        assert isinstance(self.stage.y, Operand)
        column = tile_start(panel, self.lanes, self.n)
        return weight[lanes_at(start + depth * self.stage.y.rows + column, self.lanes)]

    def _finish(self, y: Any, vector: Any, scale: Any, row: Any, panel: Any, epilogue: RowEpilogue) -> None:
        if scale is not None:
            vector = vector * scale[lanes_at(panel * self.lanes, self.lanes)]
        column = tile_start(panel, self.lanes, self.n)
        T.buffer_store(y, epilogue(vector, row, column, self.lanes), [lanes_at(row * self.n + column, self.lanes)])
