"""Softmax, normalisation and steps on row-major tensors: a row at a time, in vectors."""

import math
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Kernel
from compile.graph.layouts import Layout
from compile.graph.stages import Map, Rows
from compile.schedules.emit import exp, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.schedules.row_major.pieces import RowEpilogue, in_row, over_row, row_step_key, step_operands
from compile.targets import Target
from compile.vectors import lanes_at, spread

_LOWEST = float("-inf")
_SHORT = 256
"""Numbers in a row, below which rows are taken together where nothing tells them apart."""


def steps_on_rows(stage: Map, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Element-wise steps with operands that broadcast."""
    numbers = math.prod(stage.out.shape)
    shape = _taken_together(stage)
    length, count = shape[-1], numbers // shape[-1]
    extra, passed = step_operands(stage.steps)
    parallel = int(numbers >= PARALLEL_NUMBERS and target.threads > 1)

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        x, y = given[0], given[-1]
        epilogue = RowEpilogue(stage.steps, given[1:-1], shape)
        with tasks(count, parallel=bool(tile["parallel"])) as row:

            def work(column: Any, lanes: int) -> None:
                at = lanes_at(row * length + column, lanes)
                T.buffer_store(y, epilogue(x[at], row, column, lanes), [at])

            over_row(length, target.lanes, work)

    return Kernel(
        name="steps", key=("steps", shape, row_step_key(stage.steps)), tiles=((("parallel", parallel),),),
        out=stage.out, body=emit, buffers=(Buffer("x", (numbers,)), *extra, Buffer("y", (numbers,))),
        arguments=(stage.x, *passed),
    )  # fmt: skip


def _taken_together(stage: Map) -> tuple[int, ...]:
    """The shape to work in: rows longer where every operand is one number or as large as the tensor."""
    shape = tuple(stage.out.shape) or (1,)
    for step in stage.steps:
        operand = getattr(step.operand, "shape", None)
        if operand is not None and tuple(operand) != tuple(stage.out.shape):
            return shape
    length, rest = 1, list(shape)
    while rest and length < _SHORT:
        length *= rest.pop()
    return math.prod(rest), length


def rows(stage: Rows, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Softmax, its logarithm, or normalisation."""
    numbers, length = math.prod(stage.out.shape), stage.length
    count = numbers // length
    extra, passed = step_operands(stage.steps)
    parallel = int(numbers >= PARALLEL_NUMBERS // 4 and target.threads > 1)
    work = _normalised if stage.kind == "normalise" else _softmax

    def emit(tile: dict[str, int], given: list[Any]) -> None:
        epilogue = RowEpilogue(stage.steps, given[1:-1], tuple(stage.out.shape))
        with tasks(count, parallel=bool(tile["parallel"])) as row:
            work(stage, given[0], given[-1], row, target.lanes, epilogue)

    return Kernel(
        name=stage.kind, key=(stage.kind, count, length, stage.epsilon, stage.out.shape, row_step_key(stage.steps)),
        tiles=((("parallel", parallel),),), out=stage.out, body=emit,
        buffers=(Buffer("x", (numbers,)), *extra, Buffer("y", (numbers,))), arguments=(stage.x, *passed),
    )  # fmt: skip


def _softmax(stage: Rows, x: Any, y: Any, row: Any, lanes: int, epilogue: RowEpilogue) -> None:
    first, length = row * stage.length, stage.length
    most = in_row(length, lanes, _LOWEST, lambda c, n: x[lanes_at(first + c, n)], tirx.Max)
    if stage.kind == "log_softmax":
        total = in_row(
            length, lanes, 0.0, lambda c, n: exp(x[lanes_at(first + c, n)] - spread(most, n), n), lambda a, b: a + b
        )  # fmt: skip
        shift = T.Bind(most + T.log(total))
        over_row(
            length, lanes,
            lambda c, n: T.buffer_store(
                y, epilogue(x[lanes_at(first + c, n)] - spread(shift, n), row, c, n), [lanes_at(first + c, n)]
            ),
        )  # fmt: skip
        return

    def power(column: Any, width: int) -> Any:
        at = lanes_at(first + column, width)
        T.buffer_store(y, exp(x[at] - spread(most, width), width), [at])
        return y[at]

    total = in_row(length, lanes, 0.0, power, lambda a, b: a + b)
    factor = T.Bind(T.float32(1) / total)
    over_row(
        length, lanes,
        lambda c, n: T.buffer_store(
            y, epilogue(y[lanes_at(first + c, n)] * spread(factor, n), row, c, n), [lanes_at(first + c, n)]
        ),
    )  # fmt: skip


def _normalised(stage: Rows, x: Any, y: Any, row: Any, lanes: int, epilogue: RowEpilogue) -> None:
    first, length = row * stage.length, stage.length
    share = T.float32(1.0 / length)
    total = in_row(length, lanes, 0.0, lambda c, n: x[lanes_at(first + c, n)], lambda a, b: a + b)
    mean = T.Bind(total * share)

    def square(column: Any, width: int) -> Any:
        apart = x[lanes_at(first + column, width)] - spread(mean, width)
        return apart * apart

    squares = in_row(length, lanes, 0.0, square, lambda a, b: a + b)
    factor = T.Bind(T.float32(1) / T.sqrt(squares * share + T.float32(stage.epsilon)))

    def finish(column: Any, width: int) -> None:
        at = lanes_at(first + column, width)
        number = (x[at] - spread(mean, width)) * spread(factor, width)
        T.buffer_store(y, epilogue(number, row, column, width), [at])

    over_row(length, lanes, finish)
