"""Depthwise convolution: every lane is a channel, a tile of positions stays in registers over the kernel's window."""

from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from compile.formats import format_of
from compile.graph.kernels import Buffer, Constant, Kernel, Tile
from compile.graph.layouts import Layout, described, is_depthwise
from compile.graph.stages import Convolution
from compile.schedules.convolution import PARALLEL_MACS
from compile.schedules.emit import (
    Epilogue,
    clear_halo,
    load,
    operands,
    registers,
    split,
    step_key,
    store,
    tasks,
    tile_start,
)
from compile.targets import Target
from compile.vectors import lanes_at

_MOST_TILES = 6


def depthwise(stage: Convolution, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel | None:
    """One filter a channel, any kernel, stride, padding and dilation."""
    source, result, lanes = layouts[stage.x.name], layouts[stage.out.name], target.lanes
    if not is_depthwise(stage) or source.block != lanes or source.channels != result.channels:
        return None
    form, batch = format_of(weights, target), stage.x.shape[0]
    if form.group > 1:  # nothing to add up within a group
        form = format_of("f32", target)
    kh, kw = stage.weight.shape[2:]
    packed, scales = form.packed(_by_slot(stage.weight, source))
    extra, passed = operands(stage.steps, result.channels, layouts, batch)
    parallel = int(stage.macs >= PARALLEL_MACS and target.threads > 1)

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        x, weight, y = given[0], given[1], given[-1]
        rest = list(given[2:-1])
        scale = rest.pop(0) if form.scaled else None
        epilogue = Epilogue(stage.steps, rest, layouts, lanes)
        top, left = source.halo[0] - stage.padding[0], source.halo[1] - stage.padding[1]
        columns = tile["columns"]
        with tasks(batch * result.blocks * result.height, parallel=bool(tile["parallel"])) as task:
            image, block, row = split(task, batch, result.blocks, result.height)
            if any(result.halo):
                if isinstance(row, int):
                    clear_halo(y, result, image, block, lanes)
                else:
                    with T.If(row == 0), T.Then():
                        clear_halo(y, result, image, block, lanes)
            with T.serial(-(-result.width // columns)) as column_tile:
                column = tile_start(column_tile, columns, result.width)
                sums = registers((columns * lanes,))
                for i in range(kh):
                    for j in range(kw):
                        factor = T.Bind(form.load(weight, ((block * kh + i) * kw + j) * lanes, lanes))
                        for c in range(columns):
                            where = lanes_at(c * lanes, lanes)
                            number = load(
                                x, image, block, row * stage.stride[0] + i * stage.dilation[0] + top,
                                (column + c) * stage.stride[1] + j * stage.dilation[1] + left, lanes,
                            )  # fmt: skip
                            product = number * factor
                            T.buffer_store(sums, sums[where] + product if i + j else product, [where])
                for c in range(columns):
                    vector = sums[lanes_at(c * lanes, lanes)]
                    if scale is not None:
                        vector = vector * scale[lanes_at(block * lanes, lanes)]
                    vector = epilogue(vector, image, block, row, column + c)
                    store(y, vector, image, block, row + result.halo[0], column + c + result.halo[1], lanes)

    tiles = _tiles(result, target, parallel)
    key = (
        "depthwise", form.name, batch, described(source), described(result), stage.padding, (kh, kw), stage.stride,
        stage.dilation, step_key(stage.steps, layouts),
    )  # fmt: skip
    scaled = [Buffer("scale", (len(result.channels),))] if form.scaled else []
    return Kernel(
        name=f"depthwise{kh}x{kw}", key=key, tiles=tiles, out=stage.out, macs=stage.macs, body=emit,
        buffers=(
            Buffer("x", source.shape(batch), source.dtype), Buffer("weight", (packed.size,), form.weight),
            *scaled, *extra,
            Buffer("y", result.shape(batch), result.dtype),
        ),
        arguments=(stage.x, Constant(packed), *([Constant(scales)] if form.scaled else []), *passed),
    )  # fmt: skip


def _by_slot(weight: np.ndarray, layout: Layout) -> np.ndarray:
    """Filters (blocks, kernel rows, kernel columns, lanes)."""
    slots = np.asarray(layout.channels)
    filters = np.where((slots >= 0)[:, None, None], weight[np.maximum(slots, 0), 0], 0).astype(np.float32)
    shaped = filters.reshape(layout.blocks, layout.block, *filters.shape[1:])
    return np.ascontiguousarray(shaped.transpose(0, 2, 3, 1))


def _tiles(result: Layout, target: Target, parallel: int) -> tuple[Tile, ...]:
    """Columns at once, those that waste least first."""
    most = min(result.width, target.registers - 4)
    by_waste = sorted(range(1, most + 1), key=lambda c: (-(-result.width // c) * (c + 2), -c))
    return tuple((("columns", c), ("parallel", parallel)) for c in by_waste[:_MOST_TILES])
