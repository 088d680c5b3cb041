"""Element-wise operators on single numbers, as torch computes them."""

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.stages import ROW_MAJOR, Step
from compile.schedules.emit import applied


def _type(number: Any) -> str:
    return str(number.ty.dtype)


def _same(numbers: list[Any]) -> tuple[list[Any], str]:
    """Numbers in one type: float32 where any is, else the widest."""
    ranks = ["bool", "int32", "int64", "float32"]
    kind = max((_type(number) for number in numbers), key=ranks.index)
    return [T.cast(number, kind) if _type(number) != kind else number for number in numbers], kind


def _compare(make: Callable[[Any, Any], Any]) -> Callable[[list[Any], str], Any]:
    def work(numbers: list[Any], dtype: str) -> Any:
        (x, y), kind = _same(numbers)
        if kind == "bool":
            x, y = T.cast(x, "int32"), T.cast(y, "int32")
        return make(x, y)

    return work


def _arithmetic(make: Callable[[Any, Any], Any]) -> Callable[[list[Any], str], Any]:
    """In the result's type."""

    def work(numbers: list[Any], dtype: str) -> Any:
        x, y = (T.cast(number, dtype) if _type(number) != dtype else number for number in numbers)
        return make(x, y)

    return work


def is_nan(x: Any) -> Any:
    """By its bits: what is compared with itself is simplified away, and TVM takes NaN for equal to everything."""
    if _type(x) != "float32":
        return tirx.const(False, "bool")
    return (T.reinterpret("uint32", x) & T.uint32(0x7FFFFFFF)) > T.uint32(0x7F800000)


def differ(x: Any, y: Any) -> Any:
    """x != y as in torch, where NaN differs from everything, itself too."""
    return tirx.any(is_nan(x), is_nan(y), x != y) if _type(x) == "float32" else x != y


def _truth(number: Any) -> Any:
    return number if _type(number) == "bool" else differ(number, tirx.const(0, _type(number)))


def _logical(make: Callable[..., Any]) -> Callable[[list[Any], str], Any]:
    return lambda numbers, dtype: make(*(_truth(number) for number in numbers))


def _function(name: str) -> Callable[[list[Any], str], Any]:
    return lambda numbers, dtype: getattr(T, name)(*(T.cast(number, "float32") for number in numbers))


def _floor_divide(x: Any, y: Any) -> Any:
    """torch's: the quotient of what the remainder leaves, rounded down, so that exact quotients stay exact."""
    if _type(x) != "float32":
        return tirx.floordiv(x, y)
    rest = _fmod(x, y)
    quotient = (x - rest) / y
    quotient = tirx.Select(
        tirx.all(rest != T.float32(0), rest * y < T.float32(0)), quotient - T.float32(1), quotient
    )  # fmt: skip
    whole = T.floor(quotient)
    whole = tirx.Select(quotient - whole > T.float32(0.5), whole + T.float32(1), whole)
    return tirx.Select(y == T.float32(0), x / y, whole)


def _fmod(x: Any, y: Any) -> Any:
    return tirx.call_extern("float32", "fmodf", x, y) if _type(x) == "float32" else tirx.truncmod(x, y)


def _remainder(x: Any, y: Any) -> Any:
    if _type(x) != "float32":
        return tirx.floormod(x, y)
    rest = _fmod(x, y)
    other_side = tirx.all(rest != T.float32(0), rest * y < T.float32(0))
    return tirx.Select(other_side, rest + y, rest)


def _where(numbers: list[Any], dtype: str) -> Any:
    condition, x, y = numbers
    return tirx.Select(_truth(condition), T.cast(x, dtype), T.cast(y, dtype))


def _largest(largest: bool) -> Callable[[Any, Any], Any]:
    """Where one is NaN, so is the result."""

    def make(x: Any, y: Any) -> Any:
        if _type(x) == "bool":
            return tirx.any(x, y) if largest else tirx.all(x, y)
        keep = x > y if largest else x < y
        keep = tirx.any(keep, is_nan(x))
        return tirx.Select(keep, x, y)

    return make


def _sign(numbers: list[Any], dtype: str) -> Any:
    (x,) = numbers
    one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
    return tirx.Select(x > zero, one, tirx.Select(x < zero, zero - one, zero))


def _round(numbers: list[Any], dtype: str) -> Any:
    """To the nearest, halves to even."""
    return T.nearbyint(numbers[0])


def _power(x: Any, y: Any) -> Any:
    if _type(x) != "float32":
        raise AssertionError("whole powers are refused where they are read")
    return T.pow(x, y)


def _to_half(numbers: list[Any], dtype: str) -> Any:
    """Rounded to 11 significant bits, to nearest even; beyond 65504 infinite; below 2**-14 in steps of 2**-24."""
    (x,) = numbers
    bits = T.reinterpret("uint32", x)
    sign, size = bits & T.uint32(0x80000000), bits & T.uint32(0x7FFFFFFF)
    normal = (size + T.uint32(0xFFF) + ((size >> T.uint32(13)) & T.uint32(1))) & T.uint32(0xFFFFE000)
    normal = tirx.Select(normal >= T.uint32(0x47800000), T.uint32(0x7F800000), normal)
    steps = T.nearbyint(T.reinterpret("float32", size) * T.float32(2.0**24))
    small = T.reinterpret("uint32", steps * T.float32(2.0**-24))
    made = tirx.Select(size < T.uint32(0x38800000), small, normal)
    made = tirx.Select(size > T.uint32(0x7F800000), size, made)
    return T.reinterpret("float32", made | sign)


def _to_bfloat16(numbers: list[Any], dtype: str) -> Any:
    (x,) = numbers
    bits = T.reinterpret("uint32", x)
    rounded = (bits + T.uint32(0x7FFF) + ((bits >> T.uint32(16)) & T.uint32(1))) & T.uint32(0xFFFF0000)
    return T.reinterpret("float32", tirx.Select(x == x, rounded, bits))


def _cast(numbers: list[Any], dtype: str) -> Any:
    (x,) = numbers
    return _truth(x) if dtype == "bool" else T.cast(x, dtype)


def _vector_step(op: str) -> Callable[[list[Any], str], Any]:
    """A step of one lane."""

    def work(numbers: list[Any], dtype: str) -> Any:
        x, *rest = (T.cast(number, "float32") for number in numbers)
        return applied(Step(op=op), x, rest[0] if rest else None, 1)

    return work


SCALARS: dict[str, Callable[[list[Any], str], Any]] = {
    **{op: _vector_step(op) for op in ROW_MAJOR if op not in ("clip", "leaky_relu", "elu", "softplus")},
    **{name: _function(name) for name in (
        "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh",
        "acosh", "atanh", "erf", "floor", "ceil", "trunc", "atan2",
    )},
    "add": _arithmetic(lambda x, y: tirx.any(x, y) if _type(x) == "bool" else x + y),
    "subtract": _arithmetic(lambda x, y: x - y),
    "multiply": _arithmetic(lambda x, y: tirx.all(x, y) if _type(x) == "bool" else x * y),
    "maximum": _arithmetic(_largest(True)),
    "minimum": _arithmetic(_largest(False)), "divide": _arithmetic(lambda x, y: x / y),
    "negative": lambda numbers, dtype: tirx.const(0, dtype) - numbers[0],
    "abs": lambda numbers, dtype: tirx.abs(numbers[0]), "sign": _sign, "round": _round,
    "expm1": lambda numbers, dtype: T.exp(numbers[0]) - T.float32(1),
    "isinf": lambda numbers, dtype: tirx.abs(numbers[0]) == T.float32(math.inf),
    "isnan": lambda numbers, dtype: is_nan(numbers[0]),
    "eq": _compare(lambda x, y: x == y), "ne": _compare(differ), "lt": _compare(lambda x, y: x < y),
    "le": _compare(lambda x, y: x <= y), "gt": _compare(lambda x, y: x > y), "ge": _compare(lambda x, y: x >= y),
    "fmod": _arithmetic(_fmod), "remainder": _arithmetic(_remainder), "floor_divide": _arithmetic(_floor_divide),
    "trunc_divide": _arithmetic(lambda x, y: T.trunc(x / y) if _type(x) == "float32" else tirx.truncdiv(x, y)),
    "power": _arithmetic(_power), "where": _where, "cast": _cast,
    "logical_and": _logical(tirx.all), "logical_or": _logical(tirx.any), "logical_not": _logical(tirx.Not),
    "logical_xor": _logical(lambda x, y: T.cast(x, "int32") != T.cast(y, "int32")),
    "bitwise_and": _arithmetic(lambda x, y: tirx.all(x, y) if _type(x) == "bool" else x & y),
    "bitwise_or": _arithmetic(lambda x, y: tirx.any(x, y) if _type(x) == "bool" else x | y),
    "bitwise_xor": _arithmetic(lambda x, y: T.cast(x, "int32") != T.cast(y, "int32") if _type(x) == "bool" else x ^ y),
    "bitwise_not": lambda numbers, dtype: tirx.Not(numbers[0]) if dtype == "bool" else ~numbers[0],
    "to_half": _to_half, "to_bfloat16": _to_bfloat16,
}  # fmt: skip
"""By name: (numbers, result's type) to the result."""
