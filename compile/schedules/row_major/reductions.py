"""Reductions (outer, length, inner) -> (outer, inner): a number at a time, sums in vectors over the inner axis."""

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.stages import Loops
from compile.schedules.emit import registers, split, tasks
from compile.schedules.row_major.scalars import differ, is_nan

_LOWEST, _HIGHEST = -3.4028234663852886e38, 3.4028234663852886e38


def _start(op: str, dtype: str) -> Any:
    if op in ("max", "min") and dtype != "float32":
        return (tirx.min_value if op == "max" else tirx.max_value)(dtype)
    return tirx.const({"max": float("-inf"), "min": float("inf"), "prod": 1}.get(op, 0), dtype)


def _reduced(stage: Loops, given: list[Any], parallel: bool) -> None:
    """Sum, product, largest, smallest, any, and norms; a NaN stays one."""
    outer, length, inner = (int(n) for n in stage.numbers[:3])
    x, y, dtype = given[0], given[-1], stage.out.dtype
    held = dtype if dtype != "bool" else "int32"
    with tasks(outer * inner, parallel=parallel) as task:
        o, i = split(task, outer, inner)
        total = registers((1,), held)
        T.buffer_store(total, _start(stage.op, held), [0])
        with T.serial(length) as step:
            number = T.Bind(x[(o * length + step) * inner + i])
            T.buffer_store(total, _joined(stage.op, total[0], number, held), [0])
        made = T.sqrt(total[0]) if stage.op == "length" else total[0]
        T.buffer_store(y, made if dtype != "bool" else total[0] != 0, [task])


def _joined(op: str, total: Any, number: Any, dtype: str) -> Any:
    if op == "any":
        truth = number if str(number.ty.dtype) == "bool" else differ(number, tirx.const(0, number.ty.dtype))
        return tirx.Select(truth, T.int32(1), total)
    number = T.cast(number, dtype)
    size = tirx.Select(number < tirx.const(0, dtype), tirx.const(0, dtype) - number, number)
    if op in ("max", "min", "largest_size"):
        number = size if op == "largest_size" else number
        keep = total < number if op == "min" else total > number
        keep = tirx.any(keep, is_nan(total))
        return tirx.Select(keep, total, number)
    if op == "prod":
        return total * number
    return total + {"sum": number, "sum_of_sizes": size, "length": number * number}[op]


def _variance(stage: Loops, given: list[Any], parallel: bool) -> None:
    """Squares of distances from the mean, over a divisor."""
    outer, length, inner = (int(n) for n in stage.numbers[:3])
    x, y = given[0], given[-1]
    with tasks(outer * inner, parallel=parallel) as task:
        o, i = split(task, outer, inner)
        total = registers((2,))
        for slot in (0, 1):
            T.buffer_store(total, T.float32(0), [slot])
        with T.serial(length) as step:
            T.buffer_store(total, total[0] + x[(o * length + step) * inner + i], [0])
        mean = T.Bind(total[0] * T.float32(1 / length))
        with T.serial(length) as step:
            apart = x[(o * length + step) * inner + i] - mean
            T.buffer_store(total, total[1] + apart * apart, [1])
        T.buffer_store(y, total[1] / T.float32(stage.numbers[3]), [task])


def _place(stage: Loops, given: list[Any], parallel: bool) -> None:
    """Where the largest (smallest) number is, of equal ones the first."""
    outer, length, inner = (int(n) for n in stage.numbers[:3])
    x, y, dtype = given[0], given[-1], str(stage.inputs[0].dtype)
    with tasks(outer * inner, parallel=parallel) as task:
        o, i = split(task, outer, inner)
        best, place = registers((1,), dtype), registers((1,), "int32")
        T.buffer_store(best, x[o * length * inner + i], [0])
        T.buffer_store(place, T.int32(0), [0])
        with T.serial(length) as step:
            number = T.Bind(x[(o * length + step) * inner + i])
            better = number > best[0] if stage.op == "argmax" else number < best[0]
            if dtype == "float32":
                better = tirx.any(better, tirx.all(is_nan(number), tirx.Not(is_nan(best[0]))))
            with T.If(better), T.Then():
                T.buffer_store(best, number, [0])
                T.buffer_store(place, T.cast(step, "int32"), [0])
        T.buffer_store(y, T.cast(place[0], stage.out.dtype), [task])


REDUCTIONS: dict[str, Callable[[Loops, list[Any], bool], None]] = {
    **dict.fromkeys(("sum", "prod", "max", "min", "any", "sum_of_sizes", "length", "largest_size"), _reduced),
    "variance": _variance, "argmax": _place, "argmin": _place,
}  # fmt: skip
