"""Small pieces of code that all schedules emit: vectors, epilogue steps, halos, parallel loops.

Everything works on explicit vectors of the target's width; TVM's IR builder writes it down where it is called.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Buffer, Constant
from compile.graph.layouts import Layout
from compile.graph.stages import Step, Value
from compile.vectors import at_least, at_most, ints, lanes_at, larger, narrowed, smaller, spread, typed, widened

_LOG2_E = 1.4426950408889634
_EXP2 = (1.0, 0.6931471805599453, 0.24022650695910072, 0.05550410866482158, 0.009618129107628477, 0.0013333558146428443)
_EXP_LIMIT = 87.0
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SCALE = 0.3275911


def load(buffer: Any, batch: Any, block: Any, row: Any, column: Any, lanes: int) -> Any:
    """Read a vector at a physical position, as float32."""
    return widened(buffer[batch, block, row, column, lanes_at(0, lanes)], str(buffer.dtype), lanes)


@contextlib.contextmanager
def tasks(count: int, *, parallel: bool) -> Iterator[Any]:
    """A loop over independent tasks, on all threads or on one."""
    with T.parallel(count) if parallel and count > 1 else T.serial(count) as task:
        yield task


def registers(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """A small array that LLVM turns into registers: on the stack, however many vectors it holds."""
    return T.alloc_buffer(shape, dtype, scope="local", annotations={"disable_lower_builtin": True})


def prefetch(buffer: Any, index: Any) -> None:
    """Ask for a cache line that will be read soon; harmless beyond the buffer's end."""
    keep, data, read = T.int32(3), T.int32(1), T.int32(0)
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", T.address_of(buffer[index]), read, keep, data))


def split(index: Any, *extents: int) -> list[Any]:
    """A flat index as one index an extent, the last one fastest; extents of 1 cost nothing."""
    found: list[Any] = []
    for extent in reversed(extents[1:]):
        found.append(0 if extent == 1 else index % extent)
        index = index if extent == 1 else index // extent
    return [index if extents[0] > 1 else 0, *reversed(found)]


def tile_start(tile: Any, size: int, extent: int) -> Any:
    """Where a tile starts: the last one earlier, so that it ends with the output."""
    if isinstance(tile, int):
        return min(tile * size, extent - size)
    return tile * size if extent % size == 0 else T.min(tile * size, extent - size)


def operands(steps: Sequence[Step], channels: Sequence[int], layouts: dict[str, Layout], batch: int) -> tuple[
    list[Buffer], list[Value | Constant]
]:  # fmt: skip
    """Parameters that the steps need beside the running value: per-channel numbers and other tensors."""
    buffers: list[Buffer] = []
    passed: list[Value | Constant] = []
    for position, step in enumerate(steps):
        if isinstance(step.operand, np.ndarray):
            buffers.append(Buffer(f"step{position}", (len(channels),)))
            passed.append(Constant(by_slot(step.operand.astype(np.float32), channels)))
        elif isinstance(step.operand, Value):
            layout = layouts[step.operand.name]
            buffers.append(Buffer(f"step{position}", layout.shape(batch), layout.dtype))
            passed.append(step.operand)
    return buffers, passed


def by_slot(numbers: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Per-channel numbers, (channels,), in the order of the physical slots, (slots,), 0 in padding."""
    slots = np.asarray(channels)
    return np.where(slots >= 0, numbers[np.maximum(slots, 0)], 0).astype(np.float32)


def step_key(steps: Sequence[Step], layouts: dict[str, Layout]) -> tuple[Any, ...]:
    """What the code of the steps depends on."""
    key: list[Any] = []
    for step in steps:
        operand: Any = step.operand
        if isinstance(operand, Value):
            layout = layouts[operand.name]
            operand = (
                "tensor",
                layout.halo,
                layout.dtype,
                (layout.height, layout.width),
                len(operand.shape) and operand.shape[1] == 1,
            )
        elif isinstance(operand, np.ndarray):
            operand = "channels"
        key.append((step.op, operand, step.numbers))
    return tuple(key)


class Epilogue:
    """Applies steps to a vector of the output at a position.

    Parameters
    ----------
    buffers : the TIR buffers of `operands`, in order.
    layouts : of every tensor; operand tensors lie in the output's blocks, with a halo of their own.
    """

    def __init__(self, steps: Sequence[Step], buffers: Sequence[Any], layouts: dict[str, Layout], lanes: int) -> None:
        self.lanes = lanes
        self.work: list[tuple[Step, Any, Layout | None]] = []
        rest = iter(buffers)
        for step in steps:
            buffer = next(rest) if isinstance(step.operand, (np.ndarray, Value)) else None
            layout = layouts[step.operand.name] if isinstance(step.operand, Value) else None
            self.work.append((step, buffer, layout))

    def __call__(self, vector: Any, batch: Any, block: Any, row: Any, column: Any) -> Any:
        for step, buffer, layout in self.work:
            if layout is not None:
                other = _operand(step, buffer, layout, (batch, block, row, column), self.lanes)
            elif isinstance(step.operand, np.ndarray):
                other = buffer[lanes_at(block * self.lanes, self.lanes)]
            else:
                other = None if step.operand is None else spread(float(step.operand), self.lanes)  # type: ignore[arg-type]
            vector = applied(step, vector, other, self.lanes)
        return vector


def _operand(step: Step, buffer: Any, layout: Layout, at: tuple[Any, Any, Any, Any], lanes: int) -> Any:
    """A tensor's vector at a position: its own, that of its only place, or its only channel in every lane."""
    batch, block, row, column = at
    assert isinstance(step.operand, Value)
    if layout.height == layout.width == 1:
        row, column = 0, 0
    row, column = row + layout.halo[0], column + layout.halo[1]
    if step.operand.channels > 1 or len(layout.channels) == lanes == 1:
        return load(buffer, batch, block, row, column, lanes)
    first = layout.channels.index(0)
    number = buffer[batch, first // layout.block, row, column, first % layout.block]
    return spread(widened(number, str(buffer.dtype), 1), lanes)


def applied(step: Step, x: Any, other: Any, lanes: int) -> Any:
    """One step on a vector. What is read more than once is bound: an expression would be written out as often."""
    x = T.Bind(x)
    if step.op in _BINARY:
        return _BINARY[step.op](x, other)
    zero = spread(0.0, lanes)
    if step.op == "relu":
        return at_least(x, zero)
    if step.op == "relu6":
        return at_most(at_least(x, zero), spread(6.0, lanes))
    if step.op == "clip":
        low, high = step.numbers
        x = x if np.isneginf(low) else at_least(x, spread(low, lanes))
        return x if np.isposinf(high) else at_most(x, spread(high, lanes))
    if step.op == "leaky_relu":
        return at_least(x, zero) + at_most(x, zero) * spread(step.numbers[0], lanes)
    if step.op == "negative":
        return zero - x
    if step.op == "sigmoid":
        return _sigmoid(x, lanes)
    if step.op == "silu":
        return x * _sigmoid(x, lanes)
    if step.op == "tanh":
        return spread(2.0, lanes) * _sigmoid(spread(2.0, lanes) * x, lanes) - spread(1.0, lanes)
    if step.op == "gelu":
        return spread(0.5, lanes) * x * (spread(1.0, lanes) + _erf(x * spread(0.7071067811865476, lanes), lanes))
    return _rarer(step, x, lanes)


def _rarer(step: Step, x: Any, lanes: int) -> Any:
    """Steps that few networks have."""
    zero, one = spread(0.0, lanes), spread(1.0, lanes)
    if step.op == "hardswish":
        inside = tirx.Min(tirx.Max(x + spread(3.0, lanes), zero), spread(6.0, lanes))
        return x * inside * spread(1 / 6, lanes)
    if step.op == "gelu_tanh":  # x * (1 + tanh(a)) / 2 is x * sigmoid(2 a)
        inner = x + spread(0.044715, lanes) * x * x * x
        return x * _sigmoid(spread(1.5957691216057308, lanes) * inner, lanes)
    if step.op == "elu":
        alpha, scale, slope = (spread(number, lanes) for number in step.numbers)
        below = alpha * (exp(at_most(x, zero) * slope, lanes) - one)
        return scale * tirx.Select(x > zero, x, below)
    if step.op == "softplus":  # log(1 + e**x) = max(x, 0) + log(1 + e**-|x|), the logarithm of what is 1 to 2
        beta, threshold = step.numbers
        scaled = T.Bind(x * spread(beta, lanes))
        size = tirx.Max(scaled, zero - scaled)
        soft = (at_least(scaled, zero) + _log_one_to_two(exp(zero - size, lanes), lanes)) * spread(1 / beta, lanes)
        return tirx.Select(scaled > spread(threshold, lanes), x, soft)
    if step.op == "abs":
        return tirx.Max(x, zero - x)
    if step.op == "exp":
        return _unclipped_exp(x, lanes)
    if step.op in ("sqrt", "rsqrt"):
        root = T.sqrt(x)
        return root if step.op == "sqrt" else one / root
    if step.op == "reciprocal":
        return one / x
    raise AssertionError(f"no code for step {step.op}")


def _unclipped_exp(x: Any, lanes: int) -> Any:
    """`exp` with 0 and infinity where float32 has them."""
    low, high = spread(-_EXP_LIMIT, lanes), spread(88.722, lanes)
    middle = exp(at_most(x, spread(_EXP_LIMIT, lanes)), lanes)
    above = exp(x - spread(2.0, lanes), lanes) * spread(7.38905609893065, lanes)
    found = tirx.Select(x > spread(_EXP_LIMIT, lanes), above, middle)
    found = tirx.Select(x > high, spread(float("inf"), lanes), found)
    return tirx.Select(x < low, spread(0.0, lanes), found)


def _log_one_to_two(x: Any, lanes: int) -> Any:
    """log(1 + x) for 0 <= x <= 1, by 2 atanh(x / (2 + x)); relative error below 4e-7."""
    x = T.Bind(x)
    z = T.Bind(x / (x + spread(2.0, lanes)))
    square = T.Bind(z * z)
    total = spread(1 / 13, lanes)
    for power in (11, 9, 7, 5, 3, 1):
        total = total * square + spread(1 / power, lanes)
    return spread(2.0, lanes) * z * total


_BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "subtract_from": lambda x, y: y - x,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "divide_into": lambda x, y: y / x,
    "maximum": larger,
    "minimum": smaller,
}


def exp(x: Any, lanes: int) -> Any:
    """e**x by a polynomial of degree 5 around the nearest power of two, for -87 < x < 87 (clipped).

    Relative error as measured: 2.4e-7 for |x| < 1, 6.6e-7 for |x| < 10, 3.9e-6 at the ends.
    """
    limit = spread(_EXP_LIMIT, lanes)
    x = T.Bind(at_least(T.Bind(x), spread(-_EXP_LIMIT, lanes)))
    x = T.Bind(at_most(x, limit) * spread(_LOG2_E, lanes))
    whole = T.Bind(T.floor(x + spread(0.5, lanes)))
    rest = T.Bind(x - whole)
    power = spread(0.00015403530393381608, lanes)
    for coefficient in reversed(_EXP2):
        power = power * rest + spread(coefficient, lanes)
    exponent = (T.cast(whole, typed("int32", lanes)) + ints(127, lanes)) << ints(23, lanes)
    return power * T.reinterpret(typed("float32", lanes), exponent)


def _sigmoid(x: Any, lanes: int) -> Any:
    one = spread(1.0, lanes)
    return one / (one + exp(spread(0.0, lanes) - x, lanes))


def _erf(x: Any, lanes: int) -> Any:
    """[Abramowitz 1964, 7.1.26], absolute error below 1.5e-7."""
    one, zero = spread(1.0, lanes), spread(0.0, lanes)
    x = T.Bind(x)
    size = T.Bind(tirx.Max(x, zero - x))
    t = T.Bind(one / (one + spread(_ERF_SCALE, lanes) * size))
    power = spread(_ERF[-1], lanes)
    for coefficient in reversed(_ERF[:-1]):
        power = power * t + spread(coefficient, lanes)
    value = T.Bind(one - power * t * exp(zero - size * size, lanes))
    return tirx.Select(x < zero, zero - value, value)


def store(buffer: Any, vector: Any, batch: Any, block: Any, row: Any, column: Any, lanes: int) -> None:
    """Write a vector at a physical position."""
    T.buffer_store(
        buffer, narrowed(vector, str(buffer.dtype), lanes), [batch, block, row, column, lanes_at(0, lanes)]
    )  # fmt: skip


def clear_halo(buffer: Any, layout: Layout, batch: Any, block: Any, lanes: int) -> None:
    """Zeros around one map of the output."""
    top, left, bottom, right = layout.halo
    rows, columns = layout.padded
    zero = spread(0.0, lanes)

    def rectangle(first_row: int, count_rows: int, first_column: int, count_columns: int) -> None:
        if count_rows and count_columns:
            with T.serial(count_rows) as r, T.serial(count_columns) as c:
                store(buffer, zero, batch, block, first_row + r, first_column + c, lanes)

    rectangle(0, top, 0, columns)
    rectangle(rows - bottom, bottom, 0, columns)
    rectangle(top, layout.height, 0, left)
    rectangle(top, layout.height, columns - right, right)
