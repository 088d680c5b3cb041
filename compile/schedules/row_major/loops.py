"""Plain loops on row-major tensors, for operators that are rare: correct, and as fast as LLVM makes them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Constant, Kernel
from compile.graph.layouts import Layout
from compile.graph.stages import Loops, Value
from compile.schedules.emit import registers, split, tasks
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.schedules.row_major.reductions import REDUCTIONS
from compile.schedules.row_major.scalars import SCALARS, is_nan
from compile.targets import Target


def loops(stage: Loops, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """Any of `LOOPS`, or an element-wise operator of `SCALARS`."""
    shapes = tuple(tuple(part.shape) for part in stage.inputs)
    work = max(math.prod(stage.out.shape), *(math.prod(shape) for shape in shapes))
    parallel = int(work >= PARALLEL_NUMBERS and target.threads > 1)
    emit: Callable[[Loops, list[Any], bool], None] = LOOPS.get(stage.op, _pointwise)
    dtypes = tuple(str(part.dtype) for part in stage.inputs)
    arguments = [part if isinstance(part, Value) else Constant(np.ascontiguousarray(part)) for part in stage.inputs]
    return Kernel(
        name=stage.op, key=("loops", stage.op, stage.numbers, shapes, dtypes, stage.out.shape, stage.out.dtype),
        tiles=((("parallel", parallel),),), out=stage.out, arguments=tuple(arguments),
        body=lambda tile, given: emit(stage, given, bool(tile["parallel"])),
        buffers=(
            *(Buffer(f"x{i}", (math.prod(shape),), dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes))),
            Buffer("y", (math.prod(stage.out.shape),), stage.out.dtype),
        ),
    )  # fmt: skip


def _pointwise(stage: Loops, given: list[Any], parallel: bool) -> None:
    """One number at a time; operands broadcast."""
    shape = tuple(stage.out.shape)
    length = shape[-1] if shape else 1
    with tasks(math.prod(shape) // max(length, 1), parallel=parallel) as row:
        places = split(row, *shape[:-1]) if len(shape) > 1 else []
        with T.serial(length) as column:
            numbers = []
            for buffer, part in zip(given, stage.inputs):
                at: Any = 0
                stride = 1
                for side, place in zip(reversed(part.shape), reversed([*places, column])):
                    at = at + place * stride if side > 1 else at
                    stride *= side
                numbers.append(buffer[at])
            made = SCALARS[stage.op](numbers, stage.out.dtype)
            T.buffer_store(given[-1], made, [row * length + column])


def _scanned(stage: Loops, given: list[Any], parallel: bool) -> None:
    """Sums (products) of everything up to each number of an axis."""
    outer, length, inner = (int(n) for n in stage.numbers)
    x, y = given[0], given[-1]
    dtype = stage.out.dtype
    total_type = "float64" if dtype == "float32" else dtype
    with tasks(outer * inner, parallel=parallel) as task:
        o, i = split(task, outer, inner)
        total = registers((1,), total_type)
        T.buffer_store(total, tirx.const(0 if stage.op == "cumsum" else 1, total_type), [0])
        with T.serial(length) as step:
            at = (o * length + step) * inner + i
            number = T.cast(x[at], total_type)
            T.buffer_store(total, total[0] + number if stage.op == "cumsum" else total[0] * number, [0])
            T.buffer_store(y, T.cast(total[0], dtype), [at])


def _ranked(stage: Loops, given: list[Any], parallel: bool) -> None:
    """A number's rank is how many come before it; of equal ones the first does. NaN counts as largest, as in torch."""
    outer, length, count, descending = (int(n) for n in stage.numbers)
    x, y = given[0], given[-1]
    with tasks(outer, parallel=parallel) as o, T.serial(length) as i:
        mine = T.Bind(x[o * length + i])
        rank = registers((1,), "int32")
        T.buffer_store(rank, T.int32(0), [0])
        with T.serial(length) as j:
            other = T.Bind(x[o * length + j])
            theirs, ours = T.Bind(_key(other)), T.Bind(_key(mine))
            bigger, smaller = theirs > ours, theirs < ours
            same = tirx.all(theirs == ours, j < i)
            before = tirx.any(bigger if descending else smaller, same)
            with T.If(before), T.Then():
                T.buffer_store(rank, rank[0] + 1, [0])
        with T.If(rank[0] < count), T.Then():
            made = mine if stage.op == "ranked" else T.cast(i, stage.out.dtype)
            T.buffer_store(y, made, [o * count + rank[0]])


def _key(x: Any) -> Any:
    """A whole number that is ordered as torch orders numbers: both zeros alike, NaN above all and all alike."""
    kind = str(x.ty.dtype)
    if kind != "float32":
        return T.cast(x, "int32") if kind == "bool" else x
    bits = T.reinterpret("int32", x)
    key = bits ^ ((bits >> T.int32(31)) & T.int32(0x7FFFFFFF))  # of negative numbers the larger size is the smaller
    key = tirx.Select(x == T.float32(0), T.int32(0), key)
    return tirx.Select(is_nan(x), T.int32(0x7FFFFFFF), key)


def _taken(stage: Loops, given: list[Any], parallel: bool) -> None:
    """Slices along an axis, by an index."""
    outer, length, inner = (int(n) for n in stage.numbers)
    x, places, y = given
    count = math.prod(stage.inputs[1].shape)
    with tasks(outer * count, parallel=parallel) as task:
        o, p = split(task, outer, count)
        place = _inside(places[p], length)
        with T.serial(inner) as i:
            T.buffer_store(y, x[(o * length + place) * inner + i], [task * inner + i])


def _gathered(stage: Loops, given: list[Any], parallel: bool) -> None:
    """One number for every index, along an axis."""
    outer, length, inner, count = (int(n) for n in stage.numbers)
    x, places, y = given
    with tasks(outer * count, parallel=parallel) as task, T.serial(inner) as i:
        o = task // count
        T.buffer_store(y, x[(o * length + _inside(places[task * inner + i], length)) * inner + i], [task * inner + i])


def _inside(place: Any, length: int) -> Any:
    """An index counted from the end where it is negative, and never beyond the tensor."""
    place = T.cast(place, "int32")
    place = T.Bind(tirx.Select(place < 0, place + length, place))
    return tirx.Min(tirx.Max(place, T.int32(0)), T.int32(length - 1))


LOOPS: dict[str, Callable[[Loops, list[Any], bool], None]] = {
    **REDUCTIONS, "cumsum": _scanned, "cumprod": _scanned, "ranked": _ranked, "ranks": _ranked, "take": _taken,
    "gather": _gathered,
}  # fmt: skip
