"""Convolutions of 3x3 with a quarter of the products [Lavin 2016, F(4x4, 3x3)]: sums of products in another basis.

A tile of 4x4 outputs needs 6x6 inputs. Inputs and weights are brought into a basis of 36 in which the convolution is
36 products of matrices, one for each; the outputs are brought back. Weights are transformed while running, for some
output vectors at a time, so that they take no more room in the library than those of a direct convolution.

Maps are worked through in strips, so that what is transformed stays in the cache. Where a tile does not divide the
output, the last one starts earlier. Rounding errors are larger than a direct convolution's (docs/compiler.md), and a
number that is not finite spreads over its tile.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.formats import Format
from compile.graph.kernels import Tile
from compile.graph.layouts import Layout
from compile.graph.stages import Convolution
from compile.schedules.emit import Epilogue, clear_halo, load, registers, split, store, tasks, tile_start
from compile.schedules.packing import Packing
from compile.targets import Target
from compile.vectors import lanes_at, larger, spread

SIDE = 4
"""Outputs of a tile along each axis."""
_BASIS = SIDE + 2
_SQUARE = _BASIS * _BASIS
_MOST_TILES = 3
LEAST_STRIP = 32
"""Tiles in a strip at least, where there are as many: the weights are transformed once a strip."""
_LATENCY = 4
_MARGIN = 1.2
"""By which the estimate has to be ahead of a direct convolution's where nothing is timed."""


class Winograd:
    """One convolution, where it can be computed so (`fits`)."""

    def __init__(
        self, stage: Convolution, source: Layout, result: Layout, area: tuple[int, int], target: Target, form: Format,
        packing: Packing,
    ) -> None:  # fmt: skip
        """source, result, packing : as the direct convolution has them. area : height and width before pooling."""
        self.stage, self.source, self.result, self.target, self.form = stage, source, result, target, form
        self.packing = packing
        self.lanes = target.lanes
        self.batch = stage.x.shape[0]
        self.rows, self.columns = area
        self.in_blocks, self.out_blocks = source.blocks, result.blocks
        self.down, self.across = -(-self.rows // SIDE), -(-self.columns // SIDE)
        self.strip = self._strip()

    @property
    def fits(self) -> bool:
        """3x3 with stride 1 on whole vectors of float32, large enough for a tile, its pooling windows inside tiles."""
        stage, form = self.stage, self.form
        plain = stage.weight.shape[2:] == (3, 3) and stage.stride == stage.dilation == (1, 1) and stage.groups == 1
        wide = self.source.block == self.lanes and form.group == 1 and not form.levels
        whole = stage.pool == 1 or (stage.pool == 2 and self.rows % 2 == self.columns % 2 == 0)
        return plain and wide and whole and min(self.rows, self.columns) >= SIDE and len(self.source.channels) >= 16

    def _strip(self) -> int:
        """Rows of tiles that are worked on at once, of all images' rows one below the other."""
        rows = self.batch * self.down
        bytes_a_row = _SQUARE * self.across * len(self.source.channels) * 4
        most = max(self.target.cache_bytes * 3 // 2 // bytes_a_row, -(-LEAST_STRIP // self.across), 1)
        strips = -(-rows // most)
        return -(-rows // strips)

    @property
    def _tiles_a_strip(self) -> int:
        return self.strip * self.across

    @property
    def _depth(self) -> int:
        return self.in_blocks * self.lanes

    def tiles(self, parallel: int) -> Iterator[tuple[float, Tile]]:
        """(estimated cycles, tile) of those that fit the registers, best first; a few. parallel : 0 or 1."""
        found: list[tuple[float, Tile]] = []
        for vectors in range(1, min(self.out_blocks, 8) + 1):
            weights_bytes = self._weights_numbers({"vectors": vectors}) * 4
            if self.out_blocks % vectors or (vectors > 1 and weights_bytes > self.target.cache_bytes // 3):
                continue
            for columns in range(1, min(self._tiles_a_strip, 30) + 1):
                if columns * vectors + vectors + (columns if self._by_lane else 1) > self.target.registers - 1:
                    break
                tile = (("winograd", SIDE), ("vectors", vectors), ("columns", columns), ("parallel", parallel))
                found.append((self._cost(vectors, columns, parallel) * _MARGIN, tile))
        yield from sorted(found)[:_MOST_TILES]

    def _cost(self, vectors: int, columns: int, parallel: int) -> float:
        """Cycles of a thread, as those of the direct convolution are estimated."""
        threads = self.target.threads if parallel else 1
        turns = -(-self.out_blocks // vectors // threads)
        strips = -(-self.batch * self.down // self.strip)
        chunks = -(-self._tiles_a_strip // columns)
        step = max(columns * vectors / 2, (vectors * self.form.load_cost + columns) / 2, _LATENCY)
        products = chunks * _SQUARE * (step * self._depth + 2 * columns * vectors)
        weights = self._depth * vectors * 120
        outputs = chunks * columns * vectors * 200
        inputs = self._tiles_a_strip * self.in_blocks * 150 / threads
        return strips * (turns * (products + weights + outputs) + inputs)

    def scratch(self, tile: dict[str, int]) -> int:
        """Numbers of float32 that a tile needs beside inputs and outputs."""
        return self._inputs_numbers + self._shares(tile) * (self._weights_numbers(tile) + self._sums_numbers(tile))

    @property
    def _inputs_numbers(self) -> int:
        return _SQUARE * self._plane * self.lanes

    @property
    def _plane(self) -> int:
        """Vectors of transformed inputs of one of the 36, and one more: else all fall into one set of the cache."""
        return self.in_blocks * self._tiles_a_strip + 1

    def _weights_numbers(self, tile: dict[str, int]) -> int:
        return _SQUARE * (self._depth * tile["vectors"] + 1) * self.lanes

    def _sums_numbers(self, tile: dict[str, int]) -> int:
        return _SQUARE * tile["columns"] * tile["vectors"] * self.lanes

    def _shares(self, tile: dict[str, int]) -> int:
        """Parts of the output vectors that threads take."""
        return min(self.target.threads, self.out_blocks // tile["vectors"]) if tile["parallel"] else 1

    def emit(
        self, tile: dict[str, int], x: Any, weight: Any, scale: Any, epilogue: Epilogue, y: Any, scratch: Any
    ) -> None:
        """The loops over strips. scratch : (`scratch(tile)`,) float32."""
        rows = self.batch * self.down
        with T.serial(-(-rows // self.strip)) as strip:
            first = tile_start(strip, self.strip, rows)
            self._transform_inputs(tile, x, scratch, first)
            groups, shares = self.out_blocks // tile["vectors"], self._shares(tile)
            with tasks(shares, parallel=shares > 1) as share, T.serial(-(-groups // shares)) as turn:
                group = turn * shares + share
                if groups % shares == 0:
                    self._group(tile, (weight, scale, epilogue, y, scratch), strip, first, share, group)
                else:
                    with T.If(group < groups), T.Then():
                        self._group(tile, (weight, scale, epilogue, y, scratch), strip, first, share, group)

    def _transform_inputs(self, tile: dict[str, int], x: Any, scratch: Any, first: Any) -> None:
        lanes, stage = self.lanes, self.stage
        top, left = self.source.halo[0] - stage.padding[0], self.source.halo[1] - stage.padding[1]
        with tasks(self.in_blocks * self.strip, parallel=bool(tile["parallel"])) as task:
            block, row_of_tiles = split(task, self.in_blocks, self.strip)
            image, row = self._row(first + row_of_tiles)
            with T.serial(self.across) as c:
                column = tile_start(c, SIDE, self.columns)
                half = registers((_SQUARE * lanes,))
                for j in range(_BASIS):
                    read = [
                        T.Bind(load(x, image, block, row + top + i, column + left + j, lanes)) for i in range(_BASIS)
                    ]  # fmt: skip
                    for i, value in enumerate(_input_basis(read, lanes)):
                        T.buffer_store(half, value, [lanes_at((i * _BASIS + j) * lanes, lanes)])
                for i in range(_BASIS):
                    read = [T.Bind(half[lanes_at((i * _BASIS + j) * lanes, lanes)]) for j in range(_BASIS)]
                    for j, value in enumerate(_input_basis(read, lanes)):
                        at = (i * _BASIS + j) * self._plane + block * self._tiles_a_strip
                        place = (at + row_of_tiles * self.across + c) * lanes
                        T.buffer_store(scratch, value, [lanes_at(place, lanes)])

    def _row(self, row_of_tiles: Any) -> tuple[Any, Any]:
        """Image and first output row of a row of tiles, counted through all images."""
        if self.batch == 1:
            return 0, tile_start(row_of_tiles, SIDE, self.rows)
        return row_of_tiles // self.down, tile_start(row_of_tiles % self.down, SIDE, self.rows)

    def _group(
        self, tile: dict[str, int], given: Sequence[Any], strip: Any, first: Any, share: Any, group: Any
    ) -> None:
        """All tiles of a strip, for some output vectors."""
        weight, scale, epilogue, y, scratch = given
        vectors, columns = tile["vectors"], tile["columns"]
        weights_at = self._inputs_numbers + share * (self._weights_numbers(tile) + self._sums_numbers(tile))
        sums_at = weights_at + self._weights_numbers(tile)
        if any(self.result.halo):
            with T.If(strip == 0), T.Then():
                for image in range(self.batch):
                    for v in range(vectors):
                        clear_halo(y, self.result, image, group * vectors + v, self.lanes)
        self._transform_weights(vectors, weight, scratch, weights_at, group)
        with T.serial(-(-self._tiles_a_strip // columns)) as chunk:
            start = tile_start(chunk, columns, self._tiles_a_strip)
            with T.serial(_SQUARE) as element:
                self._multiply(tile, scratch, weights_at, sums_at, element, start)
            with T.serial(columns) as k, T.serial(vectors) as v:
                self._transform_outputs(tile, scratch, sums_at, k, v, (scale, epilogue, y), first, start + k, group)

    def _transform_weights(self, vectors: int, weight: Any, scratch: Any, weights_at: Any, group: Any) -> None:
        lanes, stride = self.lanes, self._depth * vectors + 1
        with T.serial(vectors) as v:
            block = group * vectors + v
            start, apart = self.packing.stream(block, last=block == self.out_blocks - 1)
            for b, before, slots in self.packing.depth.over():
                with T.serial(slots) as i:

                    def read(r: int, c: int, at: Any = before * 9 + i, slots: int = slots) -> Any:
                        return T.Bind(self.form.load(weight, start + (at + (r * 3 + c) * slots) * apart, lanes))

                    half = [_weight_basis([read(r, c) for r in range(3)], lanes) for c in range(3)]
                    for row in range(_BASIS):
                        for column, value in enumerate(_weight_basis([half[c][row] for c in range(3)], lanes)):
                            at = (row * _BASIS + column) * stride + (b * lanes + i) * vectors + v
                            T.buffer_store(scratch, value, [lanes_at(weights_at + at * lanes, lanes)])

    def _multiply(
        self, tile: dict[str, int], scratch: Any, weights_at: Any, sums_at: Any, element: Any, start: Any
    ) -> None:
        """One of the 36 products of matrices, for the tiles of a chunk: sums in registers over all input channels."""
        vectors, columns, lanes = tile["vectors"], tile["columns"], self.lanes
        sums = registers((columns * vectors * lanes,))
        for i in range(columns * vectors):
            T.buffer_store(sums, spread(0.0, lanes), [lanes_at(i * lanes, lanes)])
        for b, _, slots in self.packing.depth.over():
            steps = slots if self._by_lane else 1
            with T.serial(slots // steps) as i:
                row = (element * self._plane + b * self._tiles_a_strip + start) * lanes
                read = [self._numbers(scratch, row + k * lanes + i * steps) for k in range(columns)]
                for step in range(steps):
                    channel = element * (self._depth * vectors + 1) + (b * lanes + i * steps + step) * vectors
                    loaded = [
                        T.Bind(scratch[lanes_at(weights_at + (channel + v) * lanes, lanes)]) for v in range(vectors)
                    ]  # fmt: skip
                    for k in range(columns):
                        wide = T.Bind(read[k](step))
                        for v in range(vectors):
                            here = lanes_at((k * vectors + v) * lanes, lanes)
                            T.buffer_store(sums, sums[here] + wide * loaded[v], [here])
        for i in range(columns * vectors):
            place = sums_at + (element * columns * vectors + i) * lanes
            T.buffer_store(scratch, sums[lanes_at(i * lanes, lanes)], [lanes_at(place, lanes)])

    @property
    def _by_lane(self) -> bool:
        """Whether numbers are multiplied from lanes of a vector; x86 broadcasts from memory as it multiplies."""
        return self.target.architecture != "x86_64"

    def _numbers(self, scratch: Any, at: Any) -> Any:
        """A position's numbers, step by step, each in every lane."""
        if not self._by_lane:
            return lambda step: tirx.Broadcast(scratch[at], self.lanes)
        vector = T.Bind(scratch[lanes_at(at, self.lanes)])
        return lambda step: tirx.Broadcast(tirx.Shuffle([vector], [step]), self.lanes)

    def _transform_outputs(
        self, tile: dict[str, int], scratch: Any, sums_at: Any, k: Any, v: Any, given: Sequence[Any],
        first: Any, place: Any, group: Any,
    ) -> None:  # fmt: skip
        """Sums of a tile back to outputs; scale, steps and pooling; the stores."""
        lanes, vectors, columns, pool = self.lanes, tile["vectors"], tile["columns"], self.stage.pool
        scale, epilogue, y = given
        image, row = self._row(first + place // self.across)
        column = tile_start(place % self.across, SIDE, self.columns)
        block = group * vectors + v
        half: list[list[Any]] = []
        for j in range(_BASIS):
            read = []
            for i in range(_BASIS):
                at = ((i * _BASIS + j) * columns + k) * vectors + v
                read.append(T.Bind(scratch[lanes_at(sums_at + at * lanes, lanes)]))
            half.append([T.Bind(value) for value in _output_basis(read, lanes)])
        values = []
        for i in range(SIDE):
            numbers = _output_basis([half[j][i] for j in range(_BASIS)], lanes)
            for j, vector in enumerate(numbers):
                scaled = vector if scale is None else vector * scale[lanes_at(block * lanes, lanes)]
                vector = epilogue(scaled, image, block, row + i, column + j)
                values.append(T.Bind(self.packing.filled(vector, last=block == self.out_blocks - 1)))
        top, left = self.result.halo[:2]
        for i in range(0, SIDE, pool):
            for j in range(0, SIDE, pool):
                window = [values[(i + r) * SIDE + j + c] for r in range(pool) for c in range(pool)]
                vector = window[0]
                for other in window[1:]:
                    vector = larger(vector, other)
                store(y, vector, image, block, (row + i) // pool + top, (column + j) // pool + left, lanes)


def _input_basis(d: Sequence[Any], lanes: int) -> list[Any]:
    """B^T d [Lavin 2016], for points 0, 1, -1, 2, -2 and infinity."""
    two, four, five = (spread(number, lanes) for number in (2.0, 4.0, 5.0))
    even, odd = T.Bind(d[4] - four * d[2]), T.Bind(d[3] - four * d[1])
    inner, outer = T.Bind(d[4] - d[2]), T.Bind(two * (d[3] - d[1]))
    first, last = four * d[0] - five * d[2] + d[4], four * d[1] - five * d[3] + d[5]
    return [first, even + odd, even - odd, inner + outer, inner - outer, last]


def _weight_basis(g: Sequence[Any], lanes: int) -> list[Any]:
    """G g [Lavin 2016]."""
    quarter, sixth, twelfth, last = (spread(number, lanes) for number in (1 / 4, 1 / 6, 1 / 12, 1 / 24))
    even, odd = T.Bind((g[0] + g[2]) * (spread(0.0, lanes) - sixth)), T.Bind(g[1] * sixth)
    far, near = T.Bind(g[0] * last + g[2] * sixth), T.Bind(g[1] * twelfth)
    return [T.Bind(value) for value in (g[0] * quarter, even - odd, even + odd, far + near, far - near, g[2])]


def _output_basis(m: Sequence[Any], lanes: int) -> list[Any]:
    """A^T m [Lavin 2016]."""
    two, four, eight = (spread(number, lanes) for number in (2.0, 4.0, 8.0))
    near, near_less = T.Bind(m[1] + m[2]), T.Bind(m[1] - m[2])
    far, far_less = T.Bind(m[3] + m[4]), T.Bind(m[3] - m[4])
    return [m[0] + near + far, near_less + two * far_less, near + four * far, near_less + eight * far_less + m[5]]
