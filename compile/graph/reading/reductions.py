"""Sums, means, maxima and their like along some axes."""

from typing import Any

import numpy as np
import torch

from compile.graph.reading.pointwise import scalars, step
from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Loops, Pool, Step, Value

aten = torch.ops.aten


@operator(aten.mean.dim)
def mean(reader: Reader, call: Call, x: Any, dim: Any, keepdim: bool = False, dtype: Any = None) -> Any:
    """Over the whole map as a pool; else a sum and a factor."""
    shape = reader.shape(x)
    axes = _axes(dim, len(shape))
    found = reader._resolved(x)
    on_map = isinstance(found, Value) and found.name in reader.blocked
    if len(shape) == 4 and axes == (2, 3) and on_map and call.dtype() == "float32":
        area = (shape[2], shape[3])
        made = reader.add(
            Pool(x=reader.value(x), out=reader.new((*shape[:2], 1, 1)), kind="avg", kernel=area, stride=area)
        )  # fmt: skip
        return made if keepdim else View(parts=(made,), table=None, shape=call.shape, dtype="float32")
    if call.dtype() != "float32":
        raise call.refused("of whole numbers", "convert to float32 first")
    summed = reduced(reader, call, x, dim, "sum")
    count = int(np.prod([shape[axis] for axis in axes]))
    return step(reader, call, summed, Step(op="multiply", operand=1.0 / count))


@operator(aten.mean.default)
def mean_of_all(reader: Reader, call: Call, x: Any, dtype: Any = None) -> Any:
    return mean(reader, call, x, None)


def _kind(kind: str) -> Any:
    def read(reader: Reader, call: Call, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        return reduced(reader, call, x, dim, kind)

    return read


for _kinds, _targets in (
    ("sum", (aten.sum.dim_IntList, aten.sum.default)), ("max", (aten.amax.default, aten.max.default)),
    ("min", (aten.amin.default, aten.min.default)), ("prod", (aten.prod.dim_int, aten.prod.default)),
    ("any", (aten.any.dim, aten.any.dims, aten.any.default)),
    ("argmax", (aten.argmax.default,)), ("argmin", (aten.argmin.default,)),
):  # fmt: skip
    operator(*_targets)(_kind(_kinds))


@operator(aten.max.dim, aten.min.dim)
def largest(reader: Reader, call: Call, x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The largest (smallest) numbers along an axis, and where they are."""
    kind = "max" if call.node.target is aten.max.dim else "min"
    return _pair(reader, call, lambda number, op: reduced(reader, call, x, dim, op, number), (kind, f"arg{kind}"))


def _pair(reader: Reader, call: Call, make: Any, ops: tuple[str, str]) -> tuple[Any, Any]:
    """Both results of a call, each only where it is asked for."""
    asked = {user.args[1] for user in call.node.users}
    return tuple(make(number, op) if number in asked else None for number, op in enumerate(ops))  # type: ignore[return-value]


@operator(aten.var.correction)
def variance(reader: Reader, call: Call, x: Any, dim: Any = None, correction: Any = None, keepdim: bool = False) -> Any:
    """In one pass over every row, by torch's divisor."""
    shape = reader.shape(x)
    count = int(np.prod([shape[axis] for axis in _axes(dim, len(shape))]))
    return reduced(reader, call, x, dim, "variance", extra=(float(count - (1 if correction is None else correction)),))


@operator(aten.linalg_vector_norm.default)
def norm(reader: Reader, call: Call, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    """Of degree 1, 2 or infinity."""
    if ord not in (1, 2, float("inf")):
        raise call.refused(f"of degree {ord} has no rule", "use degree 1, 2 or infinity, or powers and a sum")
    op = {1: "sum_of_sizes", 2: "length", float("inf"): "largest_size"}[ord]
    return reduced(reader, call, x, dim, op)


def _scanned(op: str) -> Any:
    def read(reader: Reader, call: Call, x: Any, dim: int, dtype: Any = None) -> Value:
        shape = reader.shape(x)
        dim = dim % len(shape)
        numbers = (int(np.prod(shape[:dim])), shape[dim], int(np.prod(shape[dim + 1 :])))
        out = reader.new(call.shape, call.dtype())
        return reader.add(Loops(inputs=(reader.value(x),), out=out, op=op, numbers=numbers))

    return read


operator(aten.cumsum.default)(_scanned("cumsum"))
operator(aten.cumprod.default)(_scanned("cumprod"))


def reduced(
    reader: Reader, call: Call, x: Any, dim: Any, op: str, number: int = 0, extra: tuple[float, ...] = ()
) -> Any:  # fmt: skip
    """One operation along some axes, which are moved next to each other first."""
    shape = reader.shape(x)
    axes = _axes(dim, len(shape))
    first = axes[0] if axes else 0
    source = reader.value(x) if axes == tuple(range(first, first + len(axes))) else None
    if source is None:
        view = reader.view(x)
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        places = view.places().transpose([*kept, *axes])
        source = reader.value(
            View(parts=view.parts, table=places, shape=places.shape, dtype=view.dtype, fill=view.fill)
        )  # fmt: skip
        outer, inner = int(np.prod([shape[axis] for axis in kept])), 1
    else:
        outer = int(np.prod(shape[:first]))
        inner = int(np.prod(shape[first + len(axes) :]))
    length = int(np.prod([shape[axis] for axis in axes]))
    if source.dtype == "bool" and op in ("sum", "prod"):
        source = scalars(reader, _like(call, source), "cast", [source])
    made_shape = tuple(call.values[number].shape)
    out = reader.new(made_shape, call.dtype(number))
    return reader.add(Loops(inputs=(source,), out=out, op=op, numbers=(outer, length, inner, *extra)))


class _Shaped:
    """A call's result with another shape."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self._dtype = shape, dtype

    def dtype(self, number: int = 0) -> str:
        return self._dtype


def _like(call: Call, value: Value) -> Any:
    return _Shaped(value.shape, call.dtype())


def _axes(dim: Any, dimensions: int) -> tuple[int, ...]:
    """Axes in order; all of them where none is named."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(dimensions))
    return tuple(sorted({int(axis) % dimensions for axis in (dim if isinstance(dim, (list, tuple)) else [dim])}))
