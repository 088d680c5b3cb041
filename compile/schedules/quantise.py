"""Feature maps as integer codes, for the dot-product instructions: every image scaled by its own largest number.

The scale is found while running, so no calibration images are needed, and an image's answer does not depend on what
else is in its batch. Codes have no NaN: an image with one has NaN for its scale, and so in all that is made of it.
"""

from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Kernel
from compile.graph.layouts import Largest, Layout, Quantise, described
from compile.schedules.emit import load, registers, split, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target
from compile.vectors import at_least, ints, lanes_at, spread, typed


def largest(stage: Largest, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """The largest absolute number of every image, NaN if it has one; its halo is zeros and does not matter."""
    source = layouts[stage.x.name]
    batch, lanes = stage.x.shape[0], source.block
    rows, columns = source.padded

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        x, y = given
        here = lanes_at(0, lanes)
        with T.serial(batch) as image:
            most = registers((lanes,), "int32")  # bits of what is not negative are ordered as it is, NaN above all
            T.buffer_store(most, ints(0, lanes), [here])
            with T.serial(source.blocks) as block, T.serial(rows) as row, T.serial(columns) as column:
                bits = T.reinterpret(typed("int32", lanes), load(x, image, block, row, column, lanes))
                T.buffer_store(most, T.max(most[here], bits & ints(0x7FFFFFFF, lanes)), [here])
            with T.serial(lanes) as lane:
                T.buffer_store(most, T.max(most[0], most[lane]), [0])
            T.buffer_store(y, T.reinterpret("float32", most[0]), [image, 0])

    return Kernel(
        name="largest", key=("largest", batch, described(source)), tiles=((),), out=stage.out, body=emit,
        buffers=(Buffer("x", source.shape(batch), source.dtype), Buffer("y", (batch, 1))), arguments=(stage.x,),
    )  # fmt: skip


def quantise(stage: Quantise, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Codes in the same blocks or in several of them taken together, with a halo of their own."""
    source, result = layouts[stage.x.name], layouts[stage.out.name]
    batch, lanes = stage.x.shape[0], source.block
    parts = result.block // source.block
    rows, columns = result.padded

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        x, most, y = given
        with tasks(batch * result.blocks, parallel=bool(tile["parallel"])) as task:
            image, block = split(task, batch, result.blocks)
            per_code = T.Bind(T.float32(stage.levels) / at_least(most[image, 0], T.float32(_LEAST)))
            with T.serial(rows) as row, T.serial(columns) as column:
                r, c = row - result.halo[0], column - result.halo[1]
                zero = _spread_int(stage.offset, result.dtype, lanes)
                inside = tirx.all(r >= 0, r < result.height, c >= 0, c < result.width)
                for part in range(parts):
                    at = [image, block, row, column, lanes_at(part * lanes, lanes)]
                    with T.If(inside):
                        with T.Then():
                            where = (r + source.halo[0], c + source.halo[1])
                            vector = load(x, image, block * parts + part, *where, lanes)
                            code = vector * spread(per_code, lanes) + spread(stage.offset + 0.5, lanes)
                            whole = T.cast(T.floor(code), typed("int32", lanes))
                            T.buffer_store(y, T.cast(whole, typed(result.dtype, lanes)), at)
                        with T.Else():
                            T.buffer_store(y, zero, at)

    key = ("quantise", batch, described(source), described(result), stage.levels, stage.offset)
    parallel = int(result.numbers(batch) >= PARALLEL_NUMBERS and target.threads > 1)
    return Kernel(
        name="quantise", key=key, tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(
            Buffer("x", source.shape(batch), source.dtype), Buffer("largest", (batch, 1)),
            Buffer("y", result.shape(batch), result.dtype),
        ),
        arguments=(stage.x, stage.largest),
    )  # fmt: skip


_LEAST = 1e-30


def _spread_int(value: int, dtype: str, lanes: int) -> Any:
    number = tirx.IntImm(dtype, value)
    return tirx.Broadcast(number, lanes) if lanes > 1 else number
