"""Numbers chosen by other numbers: sorting, the largest few, looking up by index."""

from typing import Any

import numpy as np
import torch

from compile.graph.reading.movement import _applied
from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Loops

aten = torch.ops.aten


@operator(aten.topk.default)
def topk(
    reader: Reader, call: Call, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Any, Any]:
    """The k largest (smallest) numbers, in order, and where they are; of equal ones the first."""
    return _ranked(reader, call, x, dim, k, descending=largest)


@operator(aten.sort.default, aten.sort.stable)
def sort(
    reader: Reader, call: Call, x: Any, dim: int = -1, descending: bool = False, stable: Any = None
) -> tuple[Any, Any]:
    """All numbers in order, and where they were; of equal ones the first."""
    return _ranked(reader, call, x, dim, reader.shape(x)[dim], descending=descending)


def _ranked(reader: Reader, call: Call, x: Any, dim: int, count: int, *, descending: bool) -> tuple[Any, Any]:
    length = reader.shape(x)[dim]
    if length > _LONGEST:
        raise call.refused(f"of {length} numbers would take {length}^2 steps", f"sort at most {_LONGEST}")
    asked = {user.args[1] for user in call.node.users}

    def made(number: int) -> Any:
        op = ("ranked", "ranks")[number]

        def work(value: Any) -> Any:
            shape = (*value.shape[:-1], count)
            numbers = (int(np.prod(shape[:-1])), length, count, int(descending))
            return reader.add(
                Loops(inputs=(value,), out=reader.new(shape, call.dtype(number)), op=op, numbers=numbers)
            )  # fmt: skip

        return _cut(reader, x, dim, work)

    return tuple(made(number) if number in asked else None for number in (0, 1))  # type: ignore[return-value]


def _cut(reader: Reader, x: Any, dim: int, work: Any) -> Any:
    """`on_last_axis` for work that changes how long the axis is."""
    view = reader.view(x)
    last, dim = len(view.shape) - 1, dim % len(view.shape)
    if dim == last:
        return work(reader.value(x))
    places = np.moveaxis(view.places(), dim, last)
    made = work(
        reader.value(View(parts=view.parts, table=places, shape=places.shape, dtype=view.dtype, fill=view.fill))
    )  # fmt: skip
    back = np.moveaxis(np.arange(np.prod(made.shape)).reshape(made.shape), last, dim)
    return View(parts=(made,), table=back, shape=back.shape, dtype=made.dtype)


_LONGEST = 4096


@operator(aten.index.Tensor)
def index(reader: Reader, call: Call, x: Any, indices: Any) -> Any:
    """By constants, or by one tensor along one axis."""
    held = [None if one is None else reader.constant(one) for one in indices]
    if all(found is not None or one is None for one, found in zip(indices, held)):
        chosen = [None if found is None else torch.from_numpy(np.array(found)) for found in held]
        return _applied(reader.view(x), lambda places: aten.index(places, chosen))
    asked = [axis for axis, one in enumerate(indices) if one is not None]
    if len(asked) != 1 or reader.dtype(indices[asked[0]]) != "int64":
        raise call.refused("takes places along several axes", "use torch.gather or one axis at a time")
    return _taken(reader, call, x, asked[0], indices[asked[0]])


@operator(aten.embedding.default)
def embedding(reader: Reader, call: Call, weight: Any, indices: Any) -> Any:
    """Rows of a table."""
    return _taken(reader, call, weight, 0, indices)


def _taken(reader: Reader, call: Call, x: Any, axis: int, places: Any) -> Any:
    shape = reader.shape(x)
    numbers = (int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :])))
    found = reader.constant(x)
    source = reader.value(x) if found is None else np.array(found)
    return reader.add(
        Loops(
            inputs=(source, reader.value(places)), out=reader.new(call.shape, call.dtype()), op="take", numbers=numbers
        )
    )  # fmt: skip


@operator(aten.gather.default)
def gather(reader: Reader, call: Call, x: Any, dim: int, index: Any) -> Any:
    """One number for every index, along an axis."""
    shape, places = reader.shape(x), reader.shape(index)
    dim = dim % len(shape)
    if shape[:dim] != places[:dim] or shape[dim + 1 :] != places[dim + 1 :]:
        raise call.refused("takes a part of the other axes", "slice first")
    numbers = (int(np.prod(shape[:dim])), shape[dim], int(np.prod(shape[dim + 1 :])), places[dim])
    inputs = (reader.value(x), reader.value(index))
    return reader.add(Loops(inputs=inputs, out=reader.new(call.shape, call.dtype()), op="gather", numbers=numbers))
