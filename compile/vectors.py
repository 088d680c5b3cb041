"""Numbers in the target's vectors: lanes, and the types that hold them."""

from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T


def lanes_at(start: Any, lanes: int) -> Any:
    """Index of `lanes` neighbours from `start`."""
    return tirx.Ramp(start, 1, lanes) if lanes > 1 else start


def widened(vector: Any, dtype: str, lanes: int) -> Any:
    """Numbers of a buffer as float32: bf16 is held as the upper half of one, in uint16."""
    if dtype != "uint16":
        return vector
    return T.reinterpret(typed("float32", lanes), T.cast(vector, typed("uint32", lanes)) << uints(16, lanes))


def narrowed(vector: Any, dtype: str, lanes: int) -> Any:
    """float32 as a buffer holds it, rounded to nearest even."""
    if dtype != "uint16":
        return vector
    bits = T.reinterpret(typed("uint32", lanes), vector)
    rounded = bits + uints(0x7FFF, lanes) + ((bits >> uints(16, lanes)) & uints(1, lanes))
    return T.cast(rounded >> uints(16, lanes), typed("uint16", lanes))


def spread(value: Any, lanes: int) -> Any:
    """One number in every lane."""
    if isinstance(value, (int, float)):
        value = T.float32(value)
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def at_least(x: Any, limit: Any) -> Any:
    """The larger of both, where only `x` may be NaN, and then is the result: what x86 does with them in this order."""
    return tirx.Select(limit > x, limit, x)


def at_most(x: Any, limit: Any) -> Any:
    """The smaller of both, where only `x` may be NaN, and then is the result."""
    return tirx.Select(limit < x, limit, x)


def larger(x: Any, y: Any) -> Any:
    """The larger of both; NaN where one of them is."""
    return tirx.Select(tirx.isnan(y), y, at_least(x, y))


def smaller(x: Any, y: Any) -> Any:
    """The smaller of both; NaN where one of them is."""
    return tirx.Select(tirx.isnan(y), y, at_most(x, y))


def typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def uints(value: int, lanes: int) -> Any:
    return tirx.Broadcast(T.uint32(value), lanes) if lanes > 1 else T.uint32(value)


def ints(value: int, lanes: int) -> Any:
    return tirx.Broadcast(T.int32(value), lanes) if lanes > 1 else T.int32(value)
