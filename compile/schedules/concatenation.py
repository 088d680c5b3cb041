"""Concatenation of several images' maps: every image's parts are copied to lie next to each other.

For one image there is nothing to copy: planning lays the parts inside the whole.
"""

from typing import Any

from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Kernel
from compile.graph.layouts import Layout, described
from compile.graph.stages import Concat
from compile.schedules.emit import split, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target
from compile.vectors import lanes_at


def concatenation(stage: Concat, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Parts in blocks and with halos like the whole's, as placing makes them."""
    parts, result = [layouts[part.name] for part in stage.parts], layouts[stage.out.name]
    batch, (rows, columns), lanes = stage.out.shape[0], result.padded, result.block

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        first = 0
        for x, part in zip(given, parts):
            with tasks(batch * part.blocks, parallel=bool(tile["parallel"])) as task:
                image, block = split(task, batch, part.blocks)
                with T.serial(rows) as row, T.serial(columns) as column:
                    at = [row, column, lanes_at(0, lanes)]
                    T.buffer_store(given[-1], x[(image, block, *at)], [image, first + block, *at])
            first += part.blocks

    parallel = int(result.numbers(batch) >= PARALLEL_NUMBERS and target.threads > 1)
    return Kernel(
        name="concatenation", key=("concatenation", batch, tuple(map(described, parts)), described(result)),
        tiles=((("parallel", parallel),),), out=stage.out, body=emit, arguments=stage.parts,
        buffers=(
            *(Buffer(f"x{i}", part.shape(batch), part.dtype) for i, part in enumerate(parts)),
            Buffer("y", result.shape(batch), result.dtype),
        ),
    )  # fmt: skip
