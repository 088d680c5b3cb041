"""Element-wise work that found no convolution to ride on."""

from typing import Any

from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Kernel
from compile.graph.layouts import Layout, described
from compile.graph.stages import Elementwise
from compile.schedules.emit import Epilogue, clear_halo, load, operands, split, step_key, store, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target


def elementwise(stage: Elementwise, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel | None:
    """Any steps, on tensors in blocks of the vector's width."""
    source, result, lanes = layouts[stage.x.name], layouts[stage.out.name], target.lanes
    if source.block != lanes or result.channels != source.channels:
        return None
    batch = stage.x.shape[0]
    extra, passed = operands(stage.steps, result.channels, layouts, batch)

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        epilogue = Epilogue(stage.steps, list(given[1:-1]), layouts, lanes)
        with tasks(batch * result.blocks, parallel=bool(tile["parallel"])) as task:
            image, block = split(task, batch, result.blocks)
            if any(result.halo):
                clear_halo(given[-1], result, image, block, lanes)
            with T.serial(result.height) as row, T.serial(result.width) as column:
                vector = load(given[0], image, block, row + source.halo[0], column + source.halo[1], lanes)
                vector = epilogue(vector, image, block, row, column)
                store(given[-1], vector, image, block, row + result.halo[0], column + result.halo[1], lanes)

    key = ("elementwise", batch, described(source), described(result), step_key(stage.steps, layouts))
    parallel = int(source.numbers(batch) >= PARALLEL_NUMBERS and target.threads > 1)
    return Kernel(
        name="elementwise", key=key, tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(
            Buffer("x", source.shape(batch), source.dtype), *extra, Buffer("y", result.shape(batch), result.dtype),
        ),
        arguments=(stage.x, *passed),
    )  # fmt: skip
