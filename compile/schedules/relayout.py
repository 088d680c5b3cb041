"""From one layout to another: at the edges of a block, and around what only takes the plain one."""

from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Constant, Kernel
from compile.graph.layouts import Layout, Relayout, described
from compile.schedules.emit import split, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target
from compile.vectors import narrowed, widened


def relayout(stage: Relayout, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel | None:
    """Any layout to any other; a table of slots says where each channel comes from, where it is not in order."""
    source, result = layouts[stage.x.name], layouts[stage.out.name]
    batch = stage.x.shape[0]
    slot = {channel: i for i, channel in enumerate(source.channels) if channel >= 0}
    table = np.array([slot[c] if c >= 0 else -1 for c in result.channels], np.int32)
    in_order = bool((table == np.arange(len(table))).all())
    rows, columns = result.padded

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        x, y = given[0], given[-1]
        with tasks(batch * result.blocks * rows, parallel=bool(tile["parallel"])) as task:
            image, block, row = split(task, batch, result.blocks, rows)
            with T.serial(columns) as column, T.serial(result.block) as lane:
                at: Any = block * result.block + lane if in_order else T.Bind(given[1][block * result.block + lane])
                r, c = row - result.halo[0], column - result.halo[1]
                inside = [at >= 0] if not in_order and table.min() < 0 else []
                inside += [r >= 0, r < result.height] if result.halo[0] or result.halo[2] else []
                inside += [c >= 0, c < result.width] if result.halo[1] or result.halo[3] else []

                def copy() -> None:
                    number = x[
                        image, at // source.block, r + source.halo[0], c + source.halo[1], at % source.block
                    ]  # fmt: skip
                    number = narrowed(widened(number, source.dtype, 1), result.dtype, 1)
                    T.buffer_store(y, number, [image, block, row, column, lane])

                if not inside:
                    copy()
                else:
                    with T.If(_all(inside)):
                        with T.Then():
                            copy()
                        with T.Else():
                            T.buffer_store(y, tirx.const(0, result.dtype), [image, block, row, column, lane])

    numbers = result.numbers(batch)
    parallel = int(numbers >= PARALLEL_NUMBERS and target.threads > 1)
    tables = [] if in_order else [Buffer("slots", (len(table),), "int32")]
    return Kernel(
        name="relayout", key=("relayout", batch, described(source), described(result), in_order, bool(table.min() < 0)),
        tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(
            Buffer("x", source.shape(batch), source.dtype), *tables,
            Buffer("y", result.shape(batch), result.dtype),
        ),
        arguments=(stage.x, *([] if in_order else [Constant(table)])),
    )  # fmt: skip


def _all(conditions: list[Any]) -> Any:
    return tirx.all(*conditions) if len(conditions) > 1 else conditions[0]
