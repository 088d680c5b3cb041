"""What a block computes, as stages: few kinds, every shape a number, constants as arrays.

Maps are (batch, channels, height, width); a matrix (batch, features) has height and width 1. Everything else (tokens,
windows, heads) is row-major. Convolutions, poolings, products and rows carry the element-wise steps that follow them
(their epilogue).
"""

from dataclasses import dataclass, replace

import numpy as np

UNARY = (
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "leaky_relu",
    "clip",
    "negative",
    "hardswish",
    "gelu_tanh",
    "elu",
    "softplus",
    "abs",
)
BINARY = ("add", "subtract", "subtract_from", "multiply", "maximum", "minimum")
"""Element-wise operations a step may be. All are finite where their input is: padding channels stay harmless."""

ROW_MAJOR = (*UNARY, *BINARY, "divide", "divide_into", "exp", "sqrt", "rsqrt", "reciprocal")
"""What a step may be on a row-major tensor, where nothing is padding."""


@dataclass(frozen=True)
class Value:
    """A tensor that a stage makes, or the block's input. `shape` is logical, batch first."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def area(self) -> tuple[int, int]:
        """Height and width, 1 where there is none."""
        return (self.shape[2], self.shape[3]) if len(self.shape) == 4 else (1, 1)

    @property
    def is_map(self) -> bool:
        """Whether it has channels, and so may be kept in blocks of them."""
        return len(self.shape) in (2, 4) and self.dtype == "float32"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One element-wise operation on what came before.

    operand : of a binary one: another tensor of the same shape, one number a channel, or one number; for maps also a
        tensor of one number a channel and image, or of one a pixel; on row-major tensors whatever broadcasts.
    numbers : parameters of a unary one (limits of `clip`, slope of `leaky_relu`).
    """

    op: str
    operand: Value | np.ndarray | float | None = None
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """weight : (out, in / groups, height, width). padding : (top, left, bottom, right). A dense layer is 1x1 on 1x1.

    largest, offset : where `x` is held as codes: the tensor with every image's largest number, and the code of zero.
    """

    x: Value
    out: Value
    weight: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    steps: tuple[Step, ...] = ()
    pool: int = 1
    largest: Value | None = None
    offset: int = 0

    @property
    def macs(self) -> int:
        batch, _, *_ = self.out.shape
        height, width = self.conv_area
        return batch * height * width * int(np.prod(self.weight.shape))

    @property
    def conv_area(self) -> tuple[int, int]:
        """Height and width before a fused pooling."""
        (height, width), (kh, kw), (top, left, bottom, right) = self.x.area, self.weight.shape[2:], self.padding
        rows = (height + top + bottom - self.dilation[0] * (kh - 1) - 1) // self.stride[0] + 1
        columns = (width + left + right - self.dilation[1] * (kw - 1) - 1) // self.stride[1] + 1
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class Pool:
    """kind : `max` or `avg`. counts_padding : whether an average divides by the whole window at the edges."""

    x: Value
    out: Value
    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    counts_padding: bool = False
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Elementwise:
    """Steps on a tensor that nothing else could take with it."""

    x: Value
    out: Value
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Concat:
    """Tensors one after the other along the channels."""

    parts: tuple[Value, ...]
    out: Value


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """(batch, channels, height, width) to (batch, features), or any other reshape that keeps the batch in front."""

    x: Value
    out: Value


@dataclass(frozen=True, kw_only=True)
class Gather:
    """Numbers of other tensors in another order: every movement of data, whatever it was called.

    parts : tensors, and constants. table : for every number of `out`, its place in the parts laid end to end; -1 is
        `fill`.
    """

    parts: tuple[Value | np.ndarray, ...]
    out: Value
    table: np.ndarray
    fill: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Matrices inside a tensor: number (row, column) of matrix b lies at offsets[b] + row * rows + column * columns."""

    value: Value
    offsets: np.ndarray
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class Product:
    """Matrix products: out[b] = x[b] @ y[b]. `y` is a constant (k, n) where it is one for all.

    extent : (matrices, m, n, k). steps : epilogue, on row-major tensors.
    """

    x: Operand
    y: Operand | np.ndarray
    out: Value
    extent: tuple[int, int, int, int]
    steps: tuple[Step, ...] = ()

    @property
    def macs(self) -> int:
        return int(np.prod(self.extent))


@dataclass(frozen=True, kw_only=True)
class Map:
    """Steps on a row-major tensor; operands broadcast as in numpy."""

    x: Value
    out: Value
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """`softmax`, `log_softmax` or `normalise` (less the mean, over the deviation) of every row of `length` numbers."""

    x: Value
    out: Value
    kind: str
    length: int
    epsilon: float = 0.0
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loops:
    """Plain loops over row-major tensors, for what is rare.

    op : a name of `compile.schedules.row_major.loops`. numbers : parameters, as (outer, length, inner) of a reduction.
    """

    inputs: tuple[Value | np.ndarray, ...]
    out: Value
    op: str
    numbers: tuple[int | float, ...] = ()


Stage = Convolution | Pool | Elementwise | Concat | Flatten | Gather | Product | Map | Rows | Loops


def reads(stage: Stage) -> tuple[Value, ...]:
    """Tensors a stage reads, in order."""
    if isinstance(stage, (Concat, Gather)):
        return tuple(part for part in stage.parts if isinstance(part, Value))
    if isinstance(stage, Loops):
        return tuple(part for part in stage.inputs if isinstance(part, Value))
    operands = tuple(s.operand for s in getattr(stage, "steps", ()) if isinstance(s.operand, Value))
    if isinstance(stage, Product):
        return (stage.x.value, *((stage.y.value,) if isinstance(stage.y, Operand) else ()), *operands)
    scale = getattr(stage, "largest", None)
    return (stage.x, *(() if scale is None else (scale,)), *operands)


def users(stages: list[Stage]) -> dict[str, list[Stage]]:
    """Who reads each tensor, by name."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        for value in reads(stage):
            found.setdefault(value.name, []).append(stage)
    return found


@dataclass(frozen=True, kw_only=True)
class Program:
    """A block as stages in an order they can run in; `result` is among their outputs (or the input itself)."""

    input: Value
    result: Value
    stages: tuple[Stage, ...]

    def with_stages(self, stages: list[Stage]) -> "Program":
        return replace(self, stages=tuple(stages))

    def text(self) -> str:
        """One line a stage, for dumps."""
        lines = [f"input {self.input.name} {self.input.shape}"]
        for stage in self.stages:
            inputs = ", ".join(value.name for value in reads(stage))
            detail = _detail(stage)
            lines.append(f"{stage.out.name} {stage.out.shape} = {type(stage).__name__}({inputs}){detail}")
        return "\n".join([*lines, f"output {self.result.name}"]) + "\n"


def _detail(stage: Stage) -> str:
    parts = []
    if isinstance(stage, Convolution):
        parts.append(f"weight={stage.weight.shape} stride={stage.stride} padding={stage.padding} groups={stage.groups}")
        if stage.pool > 1:
            parts.append(f"pool={stage.pool}")
    if isinstance(stage, Pool):
        parts.append(f"{stage.kind} kernel={stage.kernel} stride={stage.stride} padding={stage.padding}")
    if isinstance(stage, Loops):
        parts.append(stage.op)
    if isinstance(stage, Product):
        parts.append(f"matrices, m, n, k = {stage.extent}")
    if isinstance(stage, Rows):
        parts.append(f"{stage.kind} of {stage.length}")
    steps = getattr(stage, "steps", ())
    if steps:
        parts.append("then " + " ".join(step.op for step in steps))
    return (" " + " ".join(parts)) if parts else ""
