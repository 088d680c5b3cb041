"""Pieces for kernels on row-major tensors: steps whose operands broadcast, rows in vectors with an end."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Constant
from compile.graph.stages import Step, Value
from compile.schedules.emit import applied, split
from compile.vectors import lanes_at, spread


def step_operands(steps: Sequence[Step]) -> tuple[list[Buffer], list[Value | Constant]]:
    """Parameters for the steps' tensors, flat."""
    buffers: list[Buffer] = []
    passed: list[Value | Constant] = []
    for position, step in enumerate(steps):
        if isinstance(step.operand, np.ndarray):
            array = np.ascontiguousarray(step.operand, np.float32)
            buffers.append(Buffer(f"step{position}", (array.size,)))
            passed.append(Constant(array.reshape(-1)))
        elif isinstance(step.operand, Value):
            buffers.append(Buffer(f"step{position}", (math.prod(step.operand.shape),)))
            passed.append(step.operand)
    return buffers, passed


def row_step_key(steps: Sequence[Step]) -> tuple[Any, ...]:
    """What the code of the steps depends on."""
    return tuple(
        (step.op, tuple(step.operand.shape) if isinstance(step.operand, (np.ndarray, Value)) else step.operand,
         step.numbers)
        for step in steps
    )  # fmt: skip


class RowEpilogue:
    """Applies steps to `lanes` neighbours in a row of a tensor.

    shape : of the tensor. buffers : of `step_operands`, in order.
    """

    def __init__(self, steps: Sequence[Step], buffers: Sequence[Any], shape: tuple[int, ...]) -> None:
        self.shape = shape
        rest = iter(buffers)
        self.work = [
            (step, next(rest) if isinstance(step.operand, (np.ndarray, Value)) else None) for step in steps
        ]  # fmt: skip

    def __call__(self, vector: Any, row: Any, column: Any, lanes: int) -> Any:
        """`row` counts rows of the last axis from the tensor's first."""
        for step, buffer in self.work:
            if buffer is not None:
                other = self._loaded(buffer, tuple(step.operand.shape), row, column, lanes)  # type: ignore[union-attr]
            else:
                other = None if step.operand is None else spread(float(step.operand), lanes)  # type: ignore[arg-type]
            vector = applied(step, vector, other, lanes)
        return vector

    def _loaded(self, buffer: Any, shape: tuple[int, ...], row: Any, column: Any, lanes: int) -> Any:
        if math.prod(shape) == math.prod(self.shape):
            return buffer[lanes_at(row * self.shape[-1] + column, lanes)]
        shape = (1,) * (len(self.shape) - len(shape)) + shape
        at: Any = 0
        if shape[:-1] == self.shape[:-1]:
            at = row * shape[-1]
        elif any(side > 1 for side in shape[:-1]):
            stride = shape[-1]
            places = split(row, *self.shape[:-1])
            for side, place in zip(reversed(shape[:-1]), reversed(places)):
                at = at + place * stride if side > 1 else at
                stride *= side
        if shape[-1] == 1:
            return spread(buffer[at], lanes)
        return buffer[lanes_at(at + column, lanes)]


def pieces(length: int, lanes: int) -> list[tuple[int, int, int]]:
    """(first, lanes, count) of vectors that cover a row: whole ones, then shorter and shorter ones."""
    found, first = [], 0
    while lanes:
        count = (length - first) // lanes
        if count:
            found.append((first, lanes, count))
            first += count * lanes
        lanes //= 2
    return found


def over_row(length: int, lanes: int, work: Callable[[Any, int], None]) -> None:
    """`work(column, lanes)` on all of a row."""
    for first, width, count in pieces(length, lanes):
        if count == 1:
            work(first, width)
        else:
            with T.serial(count) as i:
                work(first + i * width, width)


def in_row(
    length: int, lanes: int, start: float, value: Callable[[Any, int], Any], join: Callable[[Any, Any], Any]
) -> Any:
    """All values of a row joined into one number, e.g. their sum: in vectors, whose lanes are joined at the end."""
    from compile.schedules.emit import registers

    total = registers((1,))
    T.buffer_store(total, T.float32(start), [0])
    for first, width, count in pieces(length, lanes):
        sums = registers((width,))
        T.buffer_store(sums, spread(start, width), [lanes_at(0, width)])
        with T.serial(count) as i:
            here = lanes_at(0, width)
            T.buffer_store(sums, join(sums[here], value(first + i * width, width)), [here])
        for lane in range(width):
            T.buffer_store(total, join(total[0], sums[lane]), [0])
    return T.Bind(total[0])
