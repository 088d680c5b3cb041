"""Element-wise operators: steps of our schedules where they know them, plain loops for the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import BINARY, ROW_MAJOR, UNARY, Elementwise, Loops, Map, Step, Value

aten = torch.ops.aten


def _unary(op: str) -> Callable[..., Any]:
    def read(reader: Reader, call: Call, x: Any) -> Value | View:
        return step(reader, call, x, Step(op=op))

    return read


for _target, _op in {
    aten.relu.default: "relu", aten.relu6.default: "relu6", aten.sigmoid.default: "sigmoid", aten.tanh.default: "tanh",
    aten.silu.default: "silu", aten.neg.default: "negative", aten.hardswish.default: "hardswish",
    aten.abs.default: "abs", aten.exp.default: "exp", aten.sqrt.default: "sqrt", aten.rsqrt.default: "rsqrt",
    aten.reciprocal.default: "reciprocal",
    **{
        getattr(aten, name).default: name
        for name in (
            "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
            "asinh", "acosh", "atanh", "erf", "floor", "ceil", "round", "trunc", "sign", "isinf", "isnan",
            "logical_not", "bitwise_not",
        )
    },
}.items():  # fmt: skip
    operator(_target)(_unary(_op))


@operator(aten.gelu.default)
def gelu(reader: Reader, call: Call, x: Any, approximate: str = "none") -> Value | View:
    return step(reader, call, x, Step(op="gelu" if approximate == "none" else "gelu_tanh"))


@operator(aten.hardsigmoid.default)
def hardsigmoid(reader: Reader, call: Call, x: Any) -> Value | View:
    """Clipped x / 6 + 1 / 2."""
    return steps(
        reader, call, x,
        (Step(op="multiply", operand=1 / 6), Step(op="add", operand=0.5), Step(op="clip", numbers=(0.0, 1.0))),
    )  # fmt: skip


@operator(aten.hardtanh.default)
def hardtanh(reader: Reader, call: Call, x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Value | View:
    return step(reader, call, x, Step(op="clip", numbers=(float(min_val), float(max_val))))


@operator(aten.clamp.default)
def clamp(reader: Reader, call: Call, x: Any, min: Any = None, max: Any = None) -> Value | View:
    low, high = -np.inf if min is None else float(min), np.inf if max is None else float(max)
    return step(reader, call, x, Step(op="clip", numbers=(low, high)))


@operator(aten.leaky_relu.default)
def leaky_relu(reader: Reader, call: Call, x: Any, negative_slope: float = 0.01) -> Value | View:
    return step(reader, call, x, Step(op="leaky_relu", numbers=(float(negative_slope),)))


@operator(aten.elu.default)
def elu(reader: Reader, call: Call, x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value | View:
    """scale * x above zero, scale * alpha * (exp(input_scale * x) - 1) below: ELU, SELU and CELU."""
    numbers = (float(alpha), float(scale), float(input_scale))
    return step(reader, call, x, Step(op="elu", numbers=numbers))


@operator(aten.softplus.default)
def softplus(reader: Reader, call: Call, x: Any, beta: float = 1, threshold: float = 20) -> Value | View:
    return step(reader, call, x, Step(op="softplus", numbers=(float(beta), float(threshold))))


@operator(aten.fill.Scalar, aten.full_like.default)
def fill(reader: Reader, call: Call, x: Any, value: Any = None, fill_value: Any = None, dtype: Any = None) -> View:
    """One number everywhere."""
    value = fill_value if value is None else value
    full = np.full((1,), value, call.dtype())
    return View(parts=(full,), table=np.zeros(call.shape, np.int64), shape=call.shape, dtype=call.dtype())


@operator(aten._to_copy.default)
def converted(reader: Reader, call: Call, x: Any, dtype: Any = None) -> Any:
    """Another type. Half is float32 rounded to half, which is what torch computes on a CPU, one operator at a time."""
    if call.values[0].dtype in (torch.float16, torch.bfloat16):
        return _rounded(reader, call, x)
    if reader.dtype(x) == call.dtype():
        return reader.known.get(x, x)
    return scalars(reader, call, "cast", [x])


def _rounded(reader: Reader, call: Call, x: Any) -> Value:
    users = {str(user.target) for user in call.node.users}
    if users - {"aten._to_copy.default"} or reader.dtype(x) != "float32":
        kind = str(call.values[0].dtype).removeprefix("torch.")
        raise call.refused(f"goes on in {kind}", "compute in float32; compile with --weights bf16 for narrow weights")
    bits = 10 if call.values[0].dtype is torch.float16 else 7
    source = reader.value(x)
    out = reader.new(call.shape)
    return reader.add(Loops(op="to_half" if bits == 10 else "to_bfloat16", inputs=(source,), out=out))


def _binary(op: str, *, commutes: bool) -> Callable[..., Any]:
    def read(reader: Reader, call: Call, x: Any, other: Any, alpha: Any = 1) -> Value | View:
        return binary(reader, call, op, x, other, alpha=alpha, commutes=commutes)

    return read


for _targets, _op, _commutes in (
    ((aten.add.Tensor, aten.add.Scalar), "add", True),
    ((aten.sub.Tensor, aten.sub.Scalar), "subtract", False),
    ((aten.mul.Tensor, aten.mul.Scalar), "multiply", True),
):
    operator(*_targets)(_binary(_op, commutes=_commutes))
operator(aten.maximum.default)(_binary("maximum", commutes=True))
operator(aten.minimum.default)(_binary("minimum", commutes=True))


@operator(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(reader: Reader, call: Call, x: Any, other: Any, alpha: Any = 1) -> Value | View:
    """other - alpha * x."""
    return binary(reader, call, "subtract", other, x, alpha=alpha, commutes=False)


@operator(aten.div.Tensor, aten.div.Scalar)
def divide(reader: Reader, call: Call, x: Any, other: Any) -> Value | View:
    number = _number(reader, other)
    if number is not None and np.all(number != 0) and reader.constant(x) is None:
        return binary(reader, call, "multiply", x, (1.0 / number.astype(np.float64)).astype(np.float32))
    return binary(reader, call, "divide", x, other, commutes=False)


@operator(aten.div.Tensor_mode, aten.div.Scalar_mode)
def divide_mode(reader: Reader, call: Call, x: Any, other: Any, rounding_mode: Any) -> Value | View:
    if rounding_mode is None:
        return divide(reader, call, x, other)
    return scalars(reader, call, "floor_divide" if rounding_mode == "floor" else "trunc_divide", [x, other])


@operator(aten.pow.Tensor_Scalar)
def power(reader: Reader, call: Call, x: Any, exponent: Any) -> Value | View:
    """By repeated products where they are what torch computes."""
    if call.dtype() == "float32" and reader.dtype(x) == "float32":
        if exponent == 2:
            return binary(reader, call, "multiply", x, x, commutes=True)
        if exponent == 1:
            return reader.value(x)
        if exponent in (0.5, -0.5, -1):
            return step(reader, call, x, Step(op={0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[exponent]))
    return power_of(reader, call, x, exponent)


def _scalar_binary(op: str) -> Callable[..., Any]:
    def read(reader: Reader, call: Call, x: Any, other: Any) -> Value | View:
        return scalars(reader, call, op, [x, other])

    return read


for _op in ("eq", "ne", "lt", "le", "gt", "ge", "fmod", "remainder", "bitwise_and", "bitwise_or", "bitwise_xor"):
    operator(getattr(aten, _op).Tensor, getattr(aten, _op).Scalar)(_scalar_binary(_op))
for _op in ("logical_and", "logical_or", "logical_xor", "atan2"):
    operator(getattr(aten, _op).default)(_scalar_binary(_op))


@operator(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power_of(reader: Reader, call: Call, x: Any, exponent: Any) -> Value | View:
    if call.dtype() != "float32":
        raise call.refused("has a result of whole numbers", "take the power of floats and round it")
    return scalars(reader, call, "power", [x, exponent])


@operator(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(reader: Reader, call: Call, condition: Any, x: Any, other: Any) -> Value:
    return scalars(reader, call, "where", [condition, x, other])


@operator(aten.clamp.Tensor)
def clamp_by(reader: Reader, call: Call, x: Any, min: Any = None, max: Any = None) -> Value:
    found = x
    for op, limit in (("maximum", min), ("minimum", max)):
        if limit is not None:
            found = scalars(reader, call, op, [found, limit])
    return found


def step(reader: Reader, call: Call, x: Any, one: Step) -> Value | View:
    return steps(reader, call, x, (one,))


def steps(reader: Reader, call: Call, x: Any, all_steps: tuple[Step, ...]) -> Value | View:
    """Steps without tensors on a tensor of the result's shape."""
    if call.dtype() != "float32" or reader.dtype(x) != "float32":
        if len(all_steps) == 1 and all_steps[0].op not in ROW_MAJOR[:3] and not all_steps[0].numbers:
            return scalars(reader, call, all_steps[0].op, [x])
        if all_steps[0].op == "clip" and call.dtype() == reader.dtype(x):
            low, high = all_steps[0].numbers
            found = x if np.isneginf(low) else scalars(reader, call, "maximum", [x, low])
            return found if np.isposinf(high) else scalars(reader, call, "minimum", [found, high])
        raise call.refused(f"takes {reader.dtype(x)}", "convert to float32 first")
    if any(one.op not in ROW_MAJOR for one in all_steps):
        return scalars(reader, call, all_steps[0].op, [x])
    source = reader.value(x)
    if _on_maps(reader, source, all_steps):
        return reader.add(Elementwise(x=source, out=reader.new(call.shape), steps=all_steps))
    return reader.add(Map(x=source, out=reader.new(call.shape), steps=all_steps))


def binary(
    reader: Reader, call: Call, op: str, x: Any, other: Any, *, alpha: Any = 1, commutes: bool = True
) -> Value | View:
    """x op alpha * other."""
    kinds = {reader.dtype(t) for t in (x, other) if not isinstance(t, (int, float, bool))}
    if call.dtype() != "float32" or kinds != {"float32"}:
        other = other if alpha == 1 else scalars(reader, call, "multiply", [other, alpha])
        return scalars(reader, call, op, [x, other])
    ahead: tuple[Step, ...] = ()
    if alpha != 1:
        number = _number(reader, other)
        if number is not None:
            other = (number.astype(np.float64) * alpha).astype(np.float32)
        else:
            other = _alone(reader, other, (Step(op="multiply", operand=float(alpha)),))
    if _first_is_other(reader, call, x, other):
        x, other = other, x
        op = op if commutes else {"subtract": "subtract_from", "divide": "divide_into"}[op]
    source = _full(reader, call, x)
    operand = _operand(reader, source, other, in_blocks=op in BINARY)
    all_steps = (*ahead, Step(op=op, operand=operand))
    if _on_maps(reader, source, all_steps):
        return reader.add(Elementwise(x=source, out=reader.new(call.shape), steps=all_steps))
    return reader.add(Map(x=source, out=reader.new(call.shape), steps=all_steps))


def _alone(reader: Reader, tensor: Any, all_steps: tuple[Step, ...]) -> Value:
    source = reader.value(tensor)
    kind = Elementwise if _on_maps(reader, source, all_steps) else Map
    return reader.add(kind(x=source, out=reader.new(source.shape), steps=all_steps))


def _first_is_other(reader: Reader, call: Call, x: Any, other: Any) -> bool:
    """Whether the second operand is the tensor and the first what is done to it."""
    if _number(reader, x) is not None:
        return True
    if _number(reader, other) is not None:
        return False
    return reader.shape(x) != call.shape and reader.shape(other) == call.shape


def _full(reader: Reader, call: Call, x: Any) -> Value:
    """A tensor of the result's shape: spread out where it is smaller."""
    if reader.shape(x) == call.shape:
        return reader.value(x)
    view = reader.view(x)
    table = np.broadcast_to(view.places(), call.shape)
    return reader.value(View(parts=view.parts, table=table, shape=call.shape, dtype=view.dtype, fill=view.fill))


def _operand(reader: Reader, x: Value, other: Any, *, in_blocks: bool) -> Value | np.ndarray | float:
    """One number, one a channel of maps that steps are taken on in blocks, or a tensor; broadcasts stay small."""
    number = _number(reader, other)
    if number is None:
        return reader.value(other)
    if number.size == 1 and np.isfinite(number).all():
        return float(number.reshape(-1)[0])
    shape = (1,) * (len(x.shape) - number.ndim) + number.shape
    wanted = (1, x.shape[1]) + (1,) * (len(x.shape) - 2) if len(x.shape) > 1 else None
    if in_blocks and x.name in reader.blocked and shape == wanted and np.isfinite(number).all():
        return number.reshape(-1)
    return number.reshape(shape)


def _on_maps(reader: Reader, x: Value, all_steps: tuple[Step, ...]) -> bool:
    """Whether steps are taken in blocks of channels: x or its equal lies so, and no padding can do harm."""
    if not x.is_map or any(one.op not in (*UNARY, *BINARY) for one in all_steps):
        return False
    lies = x.name in reader.blocked
    for one in all_steps:
        if isinstance(one.operand, np.ndarray) and one.operand.ndim != 1:
            return False
        if isinstance(one.operand, np.ndarray) and x.name not in reader.blocked:
            return False
        if isinstance(one.operand, Value):
            if not _fits_map(one.operand, x):
                return False
            lies = lies or (one.operand.name in reader.blocked and one.operand.shape == x.shape)
        if isinstance(one.operand, float) and not np.isfinite(one.operand):
            return False
    return lies


def _fits_map(operand: Value, x: Value) -> bool:
    """The same shape; or one number a channel and image, or a pixel and image."""
    if operand.dtype != "float32":
        return False
    if operand.shape == x.shape:
        return True
    if len(x.shape) != 4 or len(operand.shape) != 4 or operand.shape[0] != x.shape[0]:
        return False
    batch, channels, *area = x.shape
    return operand.shape in ((batch, channels, 1, 1), (batch, 1, *area), (batch, 1, 1, 1))


def _number(reader: Reader, tensor: Any) -> np.ndarray | None:
    """A constant in its smallest form, in float32."""
    if isinstance(tensor, (bool, int, float)):
        return np.asarray(tensor, np.float32)
    if isinstance(tensor, (Value, View)):
        return None
    found = tensor if isinstance(tensor, np.ndarray) else reader.constant(tensor)
    if found is None or found.dtype != np.float32:
        return None
    return smallest(found)


def smallest(array: np.ndarray) -> np.ndarray:
    """An array without repetitions that broadcasting makes again."""
    for axis, stride in enumerate(array.strides):
        if stride == 0 and array.shape[axis] > 1:
            array = array.take([0], axis=axis)
    return np.ascontiguousarray(array) if array.ndim else array


def scalars(reader: Reader, call: Call, op: str, operands: list[Any]) -> Value:
    """Any element-wise operator, one number at a time, in the type that torch would compute in."""
    held: list[Value | np.ndarray] = []
    for one in operands:
        if isinstance(one, (bool, int, float)):
            kind = {bool: "bool", int: "int64", float: "float32"}[type(one)]
            floats = any(not isinstance(o, (bool, int, float)) and reader.dtype(o) == "float32" for o in operands)
            held.append(np.asarray(one, "float32" if floats else kind))
        else:
            number = reader.constant(one)
            held.append(reader.value(one) if number is None else smallest(number))
    out = reader.new(call.shape, call.dtype())
    return reader.add(Loops(op=op, inputs=tuple(held), out=out))
