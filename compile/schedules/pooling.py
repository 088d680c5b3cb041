"""Pooling, global pooling among it: every lane is a channel; windows at the edge leave out what is not there."""

from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Kernel
from compile.graph.layouts import Layout, described
from compile.graph.stages import Pool
from compile.schedules.emit import Epilogue, clear_halo, load, operands, registers, split, step_key, store, tasks
from compile.targets import Target
from compile.vectors import lanes_at, larger, spread

PARALLEL_NUMBERS = 60_000
"""Numbers read, below which a second thread costs more than it saves."""

_LOWEST = float("-inf")


def pooling(stage: Pool, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel | None:
    """Maximum or average, any kernel, stride and padding."""
    source, result, lanes = layouts[stage.x.name], layouts[stage.out.name], target.lanes
    if source.block != lanes or result.channels != source.channels:
        return None
    batch = stage.x.shape[0]
    extra, passed = operands(stage.steps, result.channels, layouts, batch)
    read = batch * len(source.channels) * result.height * result.width * stage.kernel[0] * stage.kernel[1]

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        epilogue = Epilogue(stage.steps, list(given[1:-1]), layouts, lanes)
        with tasks(batch * result.blocks, parallel=bool(tile["parallel"])) as task:
            image, block = split(task, batch, result.blocks)
            if any(result.halo):
                clear_halo(given[-1], result, image, block, lanes)
            with T.serial(result.height) as row, T.serial(result.width) as column:
                vector = _window(stage, source, given[0], (image, block, row, column), lanes)
                vector = epilogue(vector, image, block, row, column)
                store(given[-1], vector, image, block, row + result.halo[0], column + result.halo[1], lanes)

    key = (
        "pooling", stage.kind, batch, described(source), described(result), stage.kernel, stage.stride, stage.padding,
        stage.counts_padding, step_key(stage.steps, layouts),
    )  # fmt: skip
    parallel = int(read >= PARALLEL_NUMBERS and target.threads > 1)
    return Kernel(
        name=f"{stage.kind}pool", key=key, tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(
            Buffer("x", source.shape(batch), source.dtype), *extra, Buffer("y", result.shape(batch), result.dtype),
        ),
        arguments=(stage.x, *passed),
    )  # fmt: skip


def _window(stage: Pool, source: Layout, x: Any, at: tuple[Any, Any, Any, Any], lanes: int) -> Any:
    """The pooled vector of one window."""
    image, block, row, column = at
    (kh, kw), (sh, sw), (top, left, _, _) = stage.kernel, stage.stride, stage.padding
    maximum = stage.kind == "max"
    guarded = any(stage.padding)
    best = registers((lanes,))
    here = lanes_at(0, lanes)
    T.buffer_store(best, spread(_LOWEST if maximum else 0.0, lanes), [here])

    def take(i: Any, j: Any) -> None:
        r, c = row * sh + i - top, column * sw + j - left
        vector = load(x, image, block, r + source.halo[0], c + source.halo[1], lanes)
        T.buffer_store(best, larger(vector, best[here]) if maximum else best[here] + vector, [here])

    with T.serial(kh) as i, T.serial(kw) as j:
        if guarded:
            r, c = row * sh + i - top, column * sw + j - left
            inside = tirx.all(r >= 0, r < source.height, c >= 0, c < source.width)
            with T.If(inside), T.Then():
                take(i, j)
        else:
            take(i, j)
    if maximum:
        return best[here]
    if not guarded or stage.counts_padding:
        return best[here] * spread(1.0 / (kh * kw), lanes)
    tall = T.min(row * sh - top + kh, source.height) - T.max(row * sh - top, 0)
    wide = T.min(column * sw - left + kw, source.width) - T.max(column * sw - left, 0)
    return best[here] / spread(T.cast(tall * wide, "float32"), lanes)
