"""Softmax and normalisations: work on whole rows of numbers."""

from typing import Any

import numpy as np
import torch

from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Map, Rows, Step, Value

aten = torch.ops.aten


@operator(aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default)
def softmax(reader: Reader, call: Call, x: Any, dim: int, half_to_float: bool = False) -> Any:
    if reader.dtype(x) != "float32" or call.dtype() != "float32":
        raise call.refused("changes the type", "convert to float32 first")
    kind = "log_softmax" if "log" in str(call.node.target) else "softmax"
    return on_last_axis(reader, x, dim, lambda value: _row(reader, value, kind, value.shape[-1]))


@operator(aten.layer_norm.default)
def layer_norm(
    reader: Reader, call: Call, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Value:  # fmt: skip
    """Over the last axes."""
    value = reader.value(input)
    steps = [
        Step(op=op, operand=_constant(reader, call, one))
        for op, one in (("multiply", weight), ("add", bias))
        if one is not None
    ]
    return _row(reader, value, "normalise", int(np.prod(normalized_shape)), eps, tuple(steps))


@operator(aten.group_norm.default)
def group_norm(
    reader: Reader, call: Call, input: Any, num_groups: int, weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Value:  # fmt: skip
    """Over groups of channels and the whole map."""
    value = reader.value(input)
    sides = (-1,) + (1,) * (len(value.shape) - 2)
    steps = [
        Step(op=op, operand=_constant(reader, call, one).reshape(sides))
        for op, one in (("multiply", weight), ("add", bias))
        if one is not None
    ]
    length = int(np.prod(value.shape[1:])) // num_groups
    return _row(reader, value, "normalise", length, eps, tuple(steps))


@operator(aten._native_batch_norm_legit.no_stats)
def instance_norm(
    reader: Reader, call: Call, input: Any, weight: Any, bias: Any, training: bool, momentum: float,
    eps: float,
) -> tuple[Value]:  # fmt: skip
    """Instance norm, as torch takes it apart: (1, batch * channels, ...) with statistics of its own."""
    value = reader.value(input)
    if value.shape[0] != 1 or not training:
        raise call.refused("takes the statistics of the batch", "call .eval(), and keep running statistics")
    sides = (-1,) + (1,) * (len(value.shape) - 2)
    steps = [
        Step(op=op, operand=_constant(reader, call, one).reshape(sides))
        for op, one in (("multiply", weight), ("add", bias))
        if one is not None
    ]
    return (_row(reader, value, "normalise", int(np.prod(value.shape[2:])), eps, tuple(steps)),)


def on_last_axis(reader: Reader, x: Any, dim: int, work: Any) -> Any:
    """`work` on a tensor whose axis `dim` has been moved to the end, and back."""
    view = reader.view(x)
    last = len(view.shape) - 1
    dim = dim % len(view.shape)
    if dim == last or all(side == 1 for side in view.shape[dim + 1 :]):
        value = reader.value(x)
        if dim == last:
            return work(value)
        flat = reader.value(View(parts=(value,), table=None, shape=value.shape[: dim + 1], dtype=value.dtype))
        return View(parts=(work(flat),), table=None, shape=value.shape, dtype=value.dtype)
    places = np.moveaxis(view.places(), dim, last)
    turned = reader.value(View(parts=view.parts, table=places, shape=places.shape, dtype=view.dtype, fill=view.fill))
    made = work(turned)
    back = np.moveaxis(np.arange(np.prod(places.shape)).reshape(places.shape), last, dim)
    return View(parts=(made,), table=back, shape=back.shape, dtype=made.dtype)


def _row(
    reader: Reader, x: Value, kind: str, length: int, epsilon: float = 0.0, steps: tuple[Step, ...] = ()
) -> Value:  # fmt: skip
    """Steps ride along where a row is one of the last axis."""
    inside = steps if length == x.shape[-1] else ()
    made = reader.add(
        Rows(x=x, out=reader.new(x.shape), kind=kind, length=length, epsilon=float(epsilon), steps=inside)
    )  # fmt: skip
    return made if inside == steps else reader.add(Map(x=made, out=reader.new(x.shape), steps=steps))


def _constant(reader: Reader, call: Call, tensor: Any) -> np.ndarray:
    found = reader.constant(tensor)
    if found is None:
        raise call.refused("has a scale that depends on the input", "multiply and add instead")
    return np.array(found, np.float32)
