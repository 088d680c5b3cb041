"""Convolutions, pools and batch norm: what works on maps of channels."""

from typing import Any, cast

import numpy as np
import torch

from compile.graph.reading.pointwise import steps
from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Convolution, Loops, Pool, Step, Value

aten = torch.ops.aten
_LOWEST = float("-inf")


@operator(aten.convolution.default)
def convolution(
    reader: Reader, call: Call, input: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """One and two dimensions, any stride, padding, dilation and groups; transposed ones as plain ones."""
    filters, shift = reader.constant(weight), None if bias is None else reader.constant(bias)
    if filters is None or (bias is not None and shift is None):
        raise call.refused("has weights that depend on the input", "use torch.matmul, or weights that are fixed")
    if filters.dtype != np.float32 or reader.dtype(input) != "float32":
        raise call.refused("is not in float32", "keep to float32")
    if filters.ndim not in (3, 4):
        raise call.refused(f"has {filters.ndim - 2} dimensions", "use convolutions of one or two dimensions")
    shape = reader.shape(input)
    x = _as_map(reader, input, shape)
    flat = filters.ndim == 3
    stride, padding, dilation, more = (
        (still, v[0]) if flat else (v[0], v[-1])
        for v, still in ((stride, 1), (padding, 0), (dilation, 1), (output_padding, 0))
    )
    filters = filters if filters.ndim == 4 else filters[:, :, None, :]
    out_shape = call.shape if len(call.shape) == 4 else (*call.shape[:2], 1, call.shape[2])
    if transposed:
        x, filters, padding = _spread(reader, x, filters, stride, padding, dilation, more, groups)
        stride = (1, 1)
    found = _convolved(reader, call, x, filters, shift, stride, padding, dilation, groups, out_shape)
    if len(call.shape) == 4:
        return found
    return View(parts=(found,), table=None, shape=call.shape, dtype="float32")


def _convolved(
    reader: Reader, call: Call, x: Value, filters: np.ndarray, shift: np.ndarray | None, stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], groups: int, shape: tuple[int, ...],
) -> Value:  # fmt: skip
    made = reader.add(
        Convolution(
            x=x, out=reader.new(shape), weight=np.ascontiguousarray(filters), stride=stride,
            padding=(padding[0], padding[1], padding[0], padding[1]), dilation=dilation, groups=groups,
            steps=() if shift is None else (Step(op="add", operand=np.array(shift)),),
        )
    )  # fmt: skip
    assert made.shape[2:] == reader.stages[-1].conv_area, f"{call.node.format_node()} makes {made.shape}"  # type: ignore[union-attr]
    return made


def _as_map(reader: Reader, x: Any, shape: tuple[int, ...]) -> Value:
    """(batch, channels, height, width); a sequence has height 1."""
    if len(shape) == 4:
        return reader.value(x)
    view = reader.view(x)
    wide = (shape[0], shape[1], 1, shape[2])
    table = None if view.table is None else view.table.reshape(wide)
    return reader.value(View(parts=view.parts, table=table, shape=wide, dtype=view.dtype, fill=view.fill))


def _spread(
    reader: Reader, x: Value, filters: np.ndarray, stride: tuple[int, int], padding: tuple[int, int],
    dilation: tuple[int, int], more: tuple[int, int], groups: int,
) -> tuple[Value, np.ndarray, tuple[int, int]]:  # fmt: skip
    """A transposed convolution as a plain one: zeros between the numbers and around, filters turned."""
    batch, channels, height, width = x.shape
    places = np.full((batch, channels, (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1), -1, np.int64)
    places[:, :, :: stride[0], :: stride[1]] = np.arange(np.prod(x.shape)).reshape(x.shape)
    reach = [dilation[i] * (filters.shape[2 + i] - 1) - padding[i] for i in (0, 1)]
    for i in (0, 1):
        low, high = reach[i], reach[i] + more[i]
        if low < 0:
            places = places.take(range(-low, places.shape[2 + i]), axis=2 + i)
        if high < 0:
            places = places.take(range(places.shape[2 + i] + high), axis=2 + i)
        pad = [(0, 0)] * 4
        pad[2 + i] = (max(low, 0), max(high, 0))
        places = np.pad(places, pad, constant_values=-1)
    spread = reader.value(View(parts=(x,), table=places, shape=places.shape, dtype="float32"))
    inside, outside = filters.shape[0] // groups, filters.shape[1]
    turned = filters.reshape(groups, inside, outside, *filters.shape[2:]).swapaxes(1, 2)[..., ::-1, ::-1]
    return spread, np.ascontiguousarray(turned).reshape(groups * outside, inside, *filters.shape[2:]), (0, 0)


@operator(aten._native_batch_norm_legit_no_training.default)
def batch_norm(
    reader: Reader, call: Call, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    momentum: Any, eps: float,
) -> tuple[Any]:  # fmt: skip
    """At inference: a scale and a shift a channel."""
    held = [None if one is None else reader.constant(one) for one in (running_mean, running_var, weight, bias)]
    if any(one is not None and found is None for one, found in zip((weight, bias), held[2:])):
        raise call.refused("has a scale that depends on the input", "multiply and add instead")
    mean, var, scale, shift = cast(Any, [None if one is None else one.astype(np.float64) for one in held])
    factor = (1.0 if scale is None else scale) / np.sqrt(var + eps)
    offset = (0.0 if shift is None else shift) - mean * factor
    return (_affine(reader, call, input, np.asarray(factor, np.float32), np.asarray(offset, np.float32)),)


def _affine(reader: Reader, call: Call, x: Any, factor: np.ndarray, offset: np.ndarray) -> Any:
    source = reader.value(x)
    if not (source.is_map and source.name in reader.blocked):
        sides = (1, -1) + (1,) * (len(call.shape) - 2)
        factor, offset = factor.reshape(sides), offset.reshape(sides)
    return steps(reader, call, source, (Step(op="multiply", operand=factor), Step(op="add", operand=offset)))


@operator(aten.max_pool2d.default)
def max_pool2d(
    reader: Reader, call: Call, x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    kernel = _two(kernel_size)
    strides = _two(stride) if stride else kernel
    around, apart = _two(padding), _two(dilation)
    if len(call.shape) != 4:
        raise call.refused("works on one image without a batch", "keep the batch in front")
    if apart != (1, 1):
        return _dilated(reader, call, x, kernel, strides, around, apart)
    return _pooled(reader, call, x, "max", kernel, strides, around)


def _pooled(
    reader: Reader, call: Call, x: Any, kind: str, kernel: tuple[int, int], strides: tuple[int, int],
    around: tuple[int, int], counts: bool = False,
) -> Value:  # fmt: skip
    """A window that hangs over the edge is more padding, which is never counted."""
    source = reader.value(x)
    ends = [
        max(around[i], (call.shape[2 + i] - 1) * strides[i] + kernel[i] - source.shape[2 + i] - around[i])
        for i in (0, 1)
    ]
    return reader.add(
        Pool(
            x=source, out=reader.new(call.shape), kind=kind, kernel=kernel, stride=strides,
            padding=(around[0], around[1], ends[0], ends[1]), counts_padding=counts,
        )
    )  # fmt: skip


def _dilated(
    reader: Reader, call: Call, x: Any, kernel: tuple[int, int], strides: tuple[int, int], around: tuple[int, int],
    apart: tuple[int, int],
) -> Value:  # fmt: skip
    """Windows laid out one after the other, and their maxima."""
    view = reader.view(x)
    height, width = view.shape[2:]
    rows = np.arange(call.shape[2])[:, None] * strides[0] - around[0] + np.arange(kernel[0]) * apart[0]
    columns = np.arange(call.shape[3])[:, None] * strides[1] - around[1] + np.arange(kernel[1]) * apart[1]
    table = view.places()[:, :, np.clip(rows, 0, height - 1)[:, None, :, None],
                          np.clip(columns, 0, width - 1)[None, :, None, :]]  # fmt: skip
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None, :]
    if view.table is not None and (view.table < 0).any():
        return _dilated(reader, call, reader.value(view), kernel, strides, around, apart)
    table = np.where(inside, table, -1)
    windows = reader.value(View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype, fill=_LOWEST))
    outer, length = int(np.prod(call.shape)), kernel[0] * kernel[1]
    return reader.add(Loops(inputs=(windows,), out=reader.new(call.shape), op="max", numbers=(outer, length, 1)))


@operator(aten.avg_pool2d.default)
def avg_pool2d(
    reader: Reader, call: Call, x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    kernel = _two(kernel_size)
    strides = _two(stride) if stride else kernel
    around = _two(padding)
    if len(call.shape) != 4:
        raise call.refused("works on one image without a batch", "keep the batch in front")
    shape = reader.shape(x)
    hangs = any((call.shape[2 + i] - 1) * strides[i] + kernel[i] > shape[2 + i] + 2 * around[i] for i in (0, 1))
    counts = count_include_pad and any(around)
    if divisor_override is None and not (hangs and counts):
        return _pooled(reader, call, x, "avg", kernel, strides, around, counts)
    sums = _pooled(reader, call, x, "avg", kernel, strides, around, counts=True)  # over the whole window
    factor = np.full(call.shape[2:], kernel[0] * kernel[1], np.float32)
    factor /= divisor_override or _window_sizes(call, shape, kernel, strides, around)
    return _scaled(reader, call, sums, factor.astype(np.float32))


def _scaled(reader: Reader, call: Call, x: Value, factor: np.ndarray) -> Any:
    if np.all(factor == factor.reshape(-1)[0]):
        return steps(reader, call, x, (Step(op="multiply", operand=float(factor.reshape(-1)[0])),))
    return steps(reader, call, x, (Step(op="multiply", operand=factor[None, None]),))


def _window_sizes(
    call: Call, shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], around: tuple[int, int]
) -> np.ndarray:
    """Numbers that torch counts in each window: with the padding, without what hangs over it."""
    sides = []
    for i in (0, 1):
        start = np.arange(call.shape[2 + i]) * strides[i] - around[i]
        sides.append(np.minimum(start + kernel[i], shape[2 + i] + around[i]) - start)
    return sides[0][:, None] * sides[1][None, :]


@operator(aten.adaptive_max_pool2d.default)
def adaptive_max_pool2d(reader: Reader, call: Call, x: Any, output_size: Any) -> Any:
    """Windows that are alike as a pool; else laid out one after the other. Only the maxima are known, not where."""
    if any(user.args[1] != 0 for user in call.node.users):
        raise call.refused("is asked where its maxima are", "use its first result only")
    shape = reader.shape(x)
    if shape[2] % call.shape[2] == 0 and shape[3] % call.shape[3] == 0:
        window = (shape[2] // call.shape[2], shape[3] // call.shape[3])
        return (_pooled(reader, call, x, "max", window, window, (0, 0)),)
    return (_unlike(reader, call, x),)


def _unlike(reader: Reader, call: Call, x: Any) -> Value:
    view = reader.view(x)
    if view.table is not None and (view.table < 0).any():
        view = reader.view(reader.value(x))
    rows, columns = (_windows(view.shape[2 + i], call.shape[2 + i]) for i in (0, 1))
    table = view.places()[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    windows = reader.value(View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype))
    numbers = (int(np.prod(call.shape)), table.shape[-1] * table.shape[-2], 1)
    return reader.add(Loops(inputs=(windows,), out=reader.new(call.shape), op="max", numbers=numbers))


def _windows(inside: int, outside: int) -> np.ndarray:
    """(windows, width) places of adaptive windows; the last one again where a window is shorter."""
    starts = np.arange(outside) * inside // outside
    ends = -(-(np.arange(outside) + 1) * inside // outside)
    width = int((ends - starts).max())
    return np.minimum(starts[:, None] + np.arange(width), ends[:, None] - 1)


def _two(numbers: Any) -> tuple[int, int]:
    if isinstance(numbers, int):
        return numbers, numbers
    return int(numbers[0]), int(numbers[-1])
