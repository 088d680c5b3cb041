"""Operators that only move numbers: torch itself moves their places, so their meaning cannot be misread."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Concat, Value

aten = torch.ops.aten


@operator(aten.view.default, aten.reshape.default, aten.squeeze.dims, aten.squeeze.dim, aten.squeeze.default,
          aten.unsqueeze.default)  # fmt: skip
def renamed(reader: Reader, call: Call, x: Any, size: Any = None, dim: Any = None) -> View | Value:
    """The same numbers in the same order."""
    view = reader.view(x)
    if call.shape == tuple(view.shape):
        return view if view.table is not None else reader.value(x)
    table = None if view.table is None else view.table.reshape(call.shape)
    return View(parts=view.parts, table=table, shape=call.shape, dtype=view.dtype, fill=view.fill)


@operator(
    aten.permute.default, aten.transpose.int, aten.t.default, aten.expand.default, aten.slice.Tensor, aten.select.int,
    aten.flip.default, aten.roll.default, aten.repeat.default, aten.diagonal.default, aten.as_strided.default,
    aten.unfold.default, aten.split_with_sizes.default, aten.split.Tensor, aten.unbind.int, aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default, aten.reflection_pad1d.default, aten.reflection_pad2d.default,
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.constant_pad_nd.default,
    aten.channel_shuffle.default, aten.rot90.default,
    passed_on=True,
)  # fmt: skip
def moved(reader: Reader, call: Call) -> Any:
    """Other numbers, or another order, as torch itself moves them."""
    node = call.node
    view, target = reader.view(node.args[0]), node.target
    args: list[Any] = list(node.args[1:])
    kwargs: dict[str, Any] = dict(node.kwargs)
    if view.table is None and tuple(call.shape) == view.shape and target is aten.expand.default:
        return reader.value(node.args[0])
    if target is aten.constant_pad_nd.default:
        value = float(args[1]) if len(args) > 1 else float(kwargs.pop("value", 0.0))
        return _padded(reader, call, view, list(args[0]), value)
    return _applied(view, lambda places: target(places, *args, **kwargs))  # type: ignore[operator]


def _applied(view: View, move: Callable[[torch.Tensor], Any]) -> Any:
    """The view whose places have been moved; several where the operator makes several tensors."""
    places = view.places().astype(np.float64)  # whole numbers up to 2**53, which every operator of torch takes
    with torch.no_grad():
        moved = move(torch.from_numpy(places))
    several = isinstance(moved, (list, tuple))
    views = tuple(_placed(view, one) for one in (moved if several else [moved]))
    return views if several else views[0]


def _placed(view: View, places: torch.Tensor) -> View | Value:
    """A view of those places; what it is a view of, where nothing moved (a slice that takes all)."""
    table = places.numpy().astype(np.int64)
    whole = view.parts[0]
    alone = len(view.parts) == 1 and isinstance(whole, Value) and table.size == math.prod(whole.shape)
    if alone and (table.reshape(-1) == np.arange(table.size)).all():
        assert isinstance(whole, Value)
        same = table.shape == whole.shape
        return whole if same else View(parts=view.parts, table=None, shape=table.shape, dtype=view.dtype)
    return View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype, fill=view.fill)


def _padded(reader: Reader, call: Call, view: View, pad: list[int], value: float) -> View | Value:
    if not any(pad):
        return reader.value(call.node.args[0]) if view.table is None else view
    if view.table is not None and (view.table < 0).any() and view.fill != value:
        view = reader.view(reader.value(view))  # one fill a view
    shifted = torch.from_numpy(view.places().copy())
    table = aten.constant_pad_nd(shifted, pad, -1).numpy()
    return View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype, fill=value)


@operator(aten.index_select.default)
def index_select(reader: Reader, call: Call, x: Any, dim: int, index: Any) -> View:
    """Places along one axis, by a constant."""
    chosen = _constant_index(reader, call, index)
    return _applied(reader.view(x), lambda places: aten.index_select(places, dim, chosen))


@operator(aten.slice_scatter.default)
def slice_scatter(
    reader: Reader, call: Call, x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> View:
    """A part of a tensor replaced by another one: assignment to a slice."""
    return _replaced(reader, x, src, lambda a, b: aten.slice_scatter(a, b, dim, start, end, step))


@operator(aten.select_scatter.default)
def select_scatter(reader: Reader, call: Call, x: Any, src: Any, dim: int, index: int) -> View:
    """The same at one place of an axis."""
    return _replaced(reader, x, src, lambda a, b: aten.select_scatter(a, b, dim, index))


@operator(aten.copy.default)
def copied(reader: Reader, call: Call, x: Any, src: Any) -> Any:
    """All of a tensor replaced, broadcast."""
    if reader.dtype(src) != call.dtype():
        raise call.refused("changes the type of what it copies", "convert it first")
    return _applied(reader.view(src), lambda places: places.expand(call.shape))


@operator(aten.index_put.default)
def index_put(reader: Reader, call: Call, x: Any, indices: Any, values: Any, accumulate: bool = False) -> View:
    """Assignment by constant indices."""
    if accumulate:
        raise call.refused("adds up", "write the sum out")
    places = tuple(None if one is None else _constant_index(reader, call, one) for one in indices)
    return _replaced(reader, x, values, lambda a, b: aten.index_put(a, places, b))


@operator(aten.cat.default)
def cat(reader: Reader, call: Call, tensors: Any, dim: int = 0) -> View | Value:
    """Tensors one after the other; along the channels of maps without a copy."""
    tensors = [tensor for tensor in tensors if 0 not in reader.shape(tensor)]
    if any(reader.dtype(tensor) != call.dtype() for tensor in tensors):
        raise call.refused("joins tensors of unlike types", "convert them first")
    held = [reader._resolved(tensor) for tensor in tensors]
    maps = all(isinstance(one, Value) and one.name in reader.blocked for one in held)
    if maps and len(call.shape) in (2, 4) and dim % len(call.shape) == 1 and call.dtype() == "float32":
        return reader.add(Concat(parts=tuple(reader.value(t) for t in tensors), out=reader.new(call.shape)))
    views = [reader.view(tensor) for tensor in tensors]
    return _joined(reader, views, lambda tables: torch.cat(tables, dim))


def _replaced(reader: Reader, x: Any, other: Any, put: Callable[[Any, Any], torch.Tensor]) -> View:
    return _joined(reader, [reader.view(x), reader.view(other)], lambda tables: put(*tables))


def _joined(reader: Reader, views: list[View], move: Callable[[list[torch.Tensor]], torch.Tensor]) -> View:
    """Several views as one, whose parts are all of theirs."""
    fills = {view.fill for view in views if view.table is not None and (view.table < 0).any()}
    if len(fills) > 1:
        views = [reader.view(reader.value(view)) for view in views]
    parts: list[Value | np.ndarray] = []
    tables, first = [], 0
    alone = len(views[0].parts) == 1 and all(
        len(view.parts) == 1 and view.parts[0] is views[0].parts[0] for view in views
    )  # fmt: skip
    if alone:
        table = move([torch.from_numpy(view.places()) for view in views]).numpy()
        fill = (fills or {0.0}).pop()
        return View(parts=views[0].parts, table=table, shape=table.shape, dtype=views[0].dtype, fill=fill)
    for view in views:
        places = view.places()
        tables.append(torch.from_numpy(np.where(places >= 0, places + first, -1)))
        parts += view.parts
        first += sum(int(np.prod(part.shape)) for part in view.parts)
    table = move(tables).numpy()
    return View(parts=tuple(parts), table=table, shape=table.shape, dtype=views[0].dtype, fill=(fills or {0.0}).pop())


def _constant_index(reader: Reader, call: Call, index: Any) -> torch.Tensor:
    found = reader.constant(index)
    if found is None:
        raise call.refused("takes places that depend on the input", "use torch.gather, or a mask and a sum")
    return torch.from_numpy(np.array(found))
