"""Matrix products: linear layers, batched products of two tensors, attention."""

from typing import Any

import numpy as np
import torch

from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Convolution, Operand, Product, Rows, Step, Value

aten = torch.ops.aten


@operator(aten.linear.default)
def linear(reader: Reader, call: Call, input: Any, weight: Any, bias: Any = None) -> Value:
    """A constant matrix on the last axis."""
    matrix = reader.constant(weight)
    shift = None if bias is None else reader.constant(bias)
    if matrix is None or (bias is not None and shift is None):
        raise call.refused("has weights that depend on the input", "use torch.matmul")
    return _times(reader, call, input, np.ascontiguousarray(matrix.T), shift)


@operator(aten.addmm.default)
def addmm(reader: Reader, call: Call, x: Any, mat1: Any, mat2: Any, beta: float = 1, alpha: float = 1) -> Value:
    """beta * x + alpha * mat1 @ mat2, for constant x and mat2."""
    shift, matrix = reader.constant(x), reader.constant(mat2)
    if shift is None or matrix is None:
        raise call.refused("adds a tensor that depends on the input", "write the product and the sum apart")
    return _times(reader, call, mat1, np.ascontiguousarray(matrix * np.float32(alpha)), shift * np.float32(beta))


def _times(reader: Reader, call: Call, x: Any, matrix: np.ndarray, shift: np.ndarray | None) -> Value:
    """x @ matrix + shift; a matrix a batch as a convolution of maps of one number."""
    if matrix.dtype != np.float32 or reader.dtype(x) != "float32":
        raise call.refused("is not in float32", "keep to float32")
    shape = reader.shape(x)
    if len(shape) == 2 and (shift is None or shift.size == matrix.shape[1]):
        steps = () if shift is None else (Step(op="add", operand=np.array(shift).reshape(-1)),)
        weight = np.ascontiguousarray(matrix.T)[:, :, None, None]
        return reader.add(Convolution(x=reader.value(x), out=reader.new(call.shape), weight=weight, steps=steps))
    source = reader.value(x)
    rows, (depth, width) = int(np.prod(shape[:-1])), matrix.shape
    return reader.add(
        Product(
            x=Operand(value=source, offsets=np.zeros(1, np.int64), rows=depth, columns=1), y=matrix,
            out=reader.new(call.shape), extent=(1, rows, width, depth),
            steps=() if shift is None else (Step(op="add", operand=np.array(shift)),),
        )
    )  # fmt: skip


@operator(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(
    reader: Reader, call: Call, x: Any = None, other: Any = None, mat2: Any = None, tensor1: Any = None,
    tensor2: Any = None,
) -> Any:  # fmt: skip
    """Any two tensors with at least two axes; batches broadcast."""
    left, right = call.node.args
    matrix = reader.constant(right)
    if matrix is not None and matrix.ndim == 2 and len(reader.shape(left)) > 1:
        return _times(reader, call, left, np.ascontiguousarray(matrix), None)
    return product(reader, call, reader.view(left), reader.view(right), call.shape)


@operator(aten.baddbmm.default)
def baddbmm(reader: Reader, call: Call, x: Any, batch1: Any, batch2: Any) -> Any:
    """x + batch1 @ batch2."""
    found = product(reader, call, reader.view(batch1), reader.view(batch2), call.shape)
    from compile.graph.reading.pointwise import binary

    return binary(reader, call, "add", found, x)


@operator(aten.dot.default, aten.mv.default)
def vector(reader: Reader, call: Call, x: Any, vec: Any = None, tensor: Any = None) -> Any:
    """Products with a vector."""
    return product(reader, call, reader.view(call.node.args[0]), reader.view(call.node.args[1]), call.shape)


def product(
    reader: Reader, call: Call, left: View, right: View, shape: tuple[int, ...], steps: tuple[Step, ...] = ()
) -> Any:  # fmt: skip
    """left @ right as torch.matmul has it."""
    if left.dtype != "float32" or right.dtype != "float32":
        raise call.refused("is not in float32", "convert to float32 first")
    wide, tall = left.places(), right.places()
    wide = wide[None, :] if wide.ndim == 1 else wide
    tall = tall[:, None] if tall.ndim == 1 else tall
    batch = np.broadcast_shapes(wide.shape[:-2], tall.shape[:-2])
    (m, k), n = wide.shape[-2:], tall.shape[-1]
    x = _operand(reader, left, np.broadcast_to(wide, (*batch, m, k)), rows_only=False)
    y = _operand(reader, right, np.broadcast_to(tall, (*batch, k, n)), rows_only=True)
    out = reader.new((*batch, m, n))
    made = reader.add(Product(x=x, y=y, out=out, extent=(int(np.prod(batch)), m, n, k), steps=steps))
    return made if made.shape == shape else View(parts=(made,), table=None, shape=shape, dtype="float32")


def _operand(reader: Reader, view: View, places: np.ndarray, *, rows_only: bool) -> Operand:
    """Matrices where they lie, if their rows and columns have strides; else laid out anew.

    rows_only : neighbours in a row must be neighbours in memory.
    """
    rows, columns = places.shape[-2:]
    matrices = places.reshape(-1, rows, columns)
    found = _strides(matrices) if len(view.parts) == 1 and isinstance(view.parts[0], Value) else None
    if found is not None and (found[2] == 1 or columns == 1 or not rows_only):
        offsets, down, across = found
        value = reader.value(view.parts[0]) if view.table is not None else reader.value(view)
        return Operand(value=value, offsets=offsets, rows=down, columns=across)
    once = _once(places)
    table = places[tuple(slice(0, 1) if one else slice(None) for one in once)]
    laid = reader.value(View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype, fill=view.fill))
    again = np.broadcast_to(np.arange(table.size).reshape(table.shape), places.shape).reshape(-1, rows, columns)
    return Operand(value=laid, offsets=np.ascontiguousarray(again[:, 0, 0]), rows=columns, columns=1)


def _once(places: np.ndarray) -> list[bool]:
    """Batch axes along which everything is the same."""
    batch = places.ndim - 2
    return [
        axis < batch and places.shape[axis] > 1 and bool((places == places.take([0], axis=axis)).all())
        for axis in range(places.ndim)
    ]


def _strides(matrices: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """(offsets, row stride, column stride) of matrices of places, None where they have none."""
    _, rows, columns = matrices.shape
    offsets = matrices[:, 0, 0]
    down = int(matrices[0, 1, 0] - matrices[0, 0, 0]) if rows > 1 else 0
    across = int(matrices[0, 0, 1] - matrices[0, 0, 0]) if columns > 1 else 1
    if down < 0 or across < 0 or (matrices < 0).any():
        return None
    wanted = offsets[:, None, None] + np.arange(rows)[:, None] * down + np.arange(columns) * across
    return (np.ascontiguousarray(offsets), down, across) if np.array_equal(wanted, matrices) else None


def along(reader: Reader, x: Any, matrix: np.ndarray, axis: int) -> Any:
    """`matrix` (out, in) applied along an axis of a tensor."""
    view = reader.view(x)
    last = len(view.shape) - 1
    places = np.moveaxis(view.places(), axis, last)
    turned = reader.value(View(parts=view.parts, table=places, shape=places.shape, dtype=view.dtype, fill=view.fill))
    shape = (*places.shape[:-1], len(matrix))
    made = reader.add(
        Product(
            x=Operand(value=turned, offsets=np.zeros(1, np.int64), rows=places.shape[-1], columns=1),
            y=np.ascontiguousarray(matrix.T), out=reader.new(shape),
            extent=(1, int(np.prod(shape[:-1])), len(matrix), places.shape[-1]),
        )
    )  # fmt: skip
    table = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), last, axis)
    return View(parts=(made,), table=table, shape=table.shape, dtype="float32")


@operator(aten.scaled_dot_product_attention.default)
def attention(
    reader: Reader, call: Call, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(query @ key^T * scale + mask) @ value."""
    if dropout_p or enable_gqa:
        raise call.refused("drops or groups heads", "call it without dropout_p and enable_gqa")
    q, k, v = (reader.view(one) for one in (query, key, value))
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    tokens = k.places().swapaxes(-1, -2)
    k = View(parts=k.parts, table=tokens, shape=tokens.shape, dtype=k.dtype, fill=k.fill)
    steps = [Step(op="multiply", operand=factor)]
    steps += _masked(reader, call, attn_mask, is_causal, (q.shape[-2], tokens.shape[-1]))
    shape = (*np.broadcast_shapes(q.shape[:-2], k.shape[:-2]), q.shape[-2], tokens.shape[-1])
    scores = product(reader, call, q, k, shape, tuple(steps))
    made = reader.add(Rows(x=scores, out=reader.new(scores.shape), kind="softmax", length=scores.shape[-1]))
    return product(reader, call, reader.view(made), v, call.shape)


def _masked(reader: Reader, call: Call, mask: Any, is_causal: bool, shape: tuple[int, int]) -> list[Step]:
    if is_causal:
        return [Step(op="add", operand=np.where(np.tri(*shape, dtype=bool), 0, _NEVER).astype(np.float32))]
    if mask is None:
        return []
    numbers = reader.constant(mask)
    if numbers is None:
        if reader.dtype(mask) != "float32":
            raise call.refused("has a mask of true and false that depends on the input", "add numbers instead")
        return [Step(op="add", operand=reader.value(mask))]
    if numbers.dtype == np.bool_:
        numbers = np.where(numbers, 0, _NEVER)
    return [Step(op="add", operand=np.maximum(numbers, _NEVER).astype(np.float32))]


_NEVER = -1e30
"""Added to a score that must not count: infinite ones would make NaN of a row that has no other."""
