"""From an exported program to Relax, and from Relax to stages.

`imported` and `simplified` are Relax's own passes; `read` walks the calls that are left, in order, and says each as a
stage. A call that has no stage of its own becomes an `Other`, never an error.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from compile.graph.stages import Concat, Convolution, Elementwise, Flatten, Other, Pool, Program, Stage, Step, Value
from modeltree.errors import GraphError

_UNARY = {
    "relax.nn.relu": "relu",
    "relax.nn.relu6": "relu6",
    "relax.sigmoid": "sigmoid",
    "relax.tanh": "tanh",
    "relax.nn.silu": "silu",
    "relax.nn.gelu": "gelu",
    "relax.negative": "negative",
}
_BINARY = {
    "relax.add": "add",
    "relax.subtract": "subtract",
    "relax.multiply": "multiply",
    "relax.maximum": "maximum",
    "relax.minimum": "minimum",
}
_RENAMING = ("relax.reshape", "relax.flatten", "relax.squeeze", "relax.expand_dims")


def imported(program: torch.export.ExportedProgram, batch: int) -> tvm.IRModule:
    """The program in Relax, with weights as constants and a fixed batch.

    Raises
    ------
    GraphError : it has several inputs or outputs, or an operator that TVM's importer does not know.
    """
    _check_divisors(program)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module = from_exported_program(program, unwrap_unit_return_tuple=True)
    except Exception as error:  # the importer raises many unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(
            f"the block cannot be brought into Relax: {reason}: rewrite that operator with ones that TVM knows"
        ) from error
    main = module["main"]
    if len(main.params) != 1:
        raise GraphError(f"the block has {len(main.params)} inputs: a block must have exactly one")
    symbols = {str(side) for side in main.params[0].ty.shape if not isinstance(side, tvm.tirx.IntImm)}
    first = main.params[0].ty.shape[0]
    if isinstance(first, tvm.tirx.IntImm) and int(first) != batch:
        raise GraphError(
            f"the block is exported for batches of {int(first)}, not {batch}: export it with a dynamic batch"
        )
    return relax.transform.BindSymbolicVars(dict.fromkeys(symbols, batch))(module) if symbols else module


def simplified(module: tvm.IRModule) -> tvm.IRModule:
    """Batch norm and dropout as at inference, constants computed, what nobody reads removed."""
    passes = (
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        relax.transform.EliminateCommonSubexpr(),
        relax.transform.DeadCodeElimination(),
    )
    with tvm.target.Target("llvm"):
        return tvm.transform.Sequential(passes)(_Ranges(module).transform())


def _check_divisors(program: torch.export.ExportedProgram) -> None:
    """TVM's importer takes an average with a divisor of its own for a plain one, without a word."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.avg_pool2d.default and (
            len(node.args) > 6 or node.kwargs.get("divisor_override")
        ):
            raise GraphError(f"{node.name} is an average with a divisor of its own: take a plain one and multiply")


@relax.expr_functor.mutator
class _Ranges(relax.PyExprMutator):
    """Ranges of numbers as constants: TVM folds what is computed from them, but not them."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.module = module

    def transform(self) -> tvm.IRModule:
        for variable, function in self.module.functions_items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(variable, self.visit_expr(function))
        return self.builder_.get()

    def visit_call_(self, call: relax.Call) -> Any:
        if str(getattr(call.op, "name", "")) == "relax.arange":
            numbers = [_number(argument) for argument in call.args]
            if not any(map(math.isnan, numbers)):
                return relax.const(np.arange(*numbers), str(call.attrs.dtype))
        return super().visit_call_(call)


def read(module: tvm.IRModule) -> Program:
    """The calls of the one function as stages.

    Raises
    ------
    GraphError : a shape is not known, a tensor is not float32 where we need it, or control flow is left.
    """
    return _Reader(module["main"]).program()


class _Reader:
    def __init__(self, function: relax.Function) -> None:
        self.function = function
        self.tensors: dict[Any, Value] = {}
        self.constants: dict[Any, np.ndarray] = {}
        self.tuples: dict[Any, Any] = {}
        self.stages: list[Stage] = []

    def program(self) -> Program:
        (parameter,) = self.function.params
        entered = self.tensors[parameter] = Value("input", _shape(parameter))
        for block in self.function.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        result = self.tensors.get(self.function.body.body)
        if result is None:
            raise GraphError("the block returns something else than one tensor that depends on its input: return one")
        return Program(input=entered, result=result, stages=tuple(self.stages))

    def _bind(self, variable: Any, expression: Any) -> None:
        if isinstance(expression, tvm.ir.GenericConst):
            self.constants[variable] = expression.value.numpy()
        elif isinstance(expression, relax.Var):
            kinds: tuple[dict[Any, Any], ...] = (self.tensors, self.constants, self.tuples)
            for known in kinds:
                if expression in known:
                    known[variable] = known[expression]
        elif isinstance(expression, relax.Tuple):
            self.tuples[variable] = expression.fields
        elif isinstance(expression, relax.TupleGetItem) and expression.tuple_value in self.tuples:
            self._bind(variable, self.tuples[expression.tuple_value][expression.index])
        elif isinstance(expression, relax.Call):
            self._call(variable, expression)
        else:
            raise GraphError(f"the block holds a {type(expression).__name__}: only calls on tensors can be compiled")

    def _call(self, variable: Any, call: relax.Call) -> None:
        name = str(call.op.name)
        if name == "relax.split":
            self.tuples[variable] = _slices(call)
            return
        out = Value(f"t{len(self.stages)}", _shape(variable), str(variable.ty.dtype))
        stage = self._known(name, call, out)
        if stage is None:
            stage = self._other(call, out)
        self.stages.append(stage)
        self.tensors[variable] = stage.out

    def _known(self, name: str, call: relax.Call, out: Value) -> Stage | None:
        """The call as a stage of its own kind, or None."""
        arguments = list(call.args)
        x = self.tensors.get(arguments[0])
        if name in ("relax.add", "relax.multiply") and x is None:
            arguments.reverse()
            x = self.tensors.get(arguments[0])
        if name == "relax.concat":
            return self._concat(call, out)
        if x is None or not out.is_map:
            return None
        if name == "relax.nn.conv2d":
            return self._convolution(x, out, call)
        if name == "relax.matmul":
            return self._dense(x, out, call)
        if name in ("relax.nn.max_pool2d", "relax.nn.avg_pool2d"):
            return _pool(x, out, call)
        if name in ("relax.mean", "relax.nn.adaptive_avg_pool2d"):
            return _global_pool(x, out, call, name)
        if name in _RENAMING and x.is_map and x.shape[0] == out.shape[0]:
            return Flatten(x=x, out=out)
        step = self._step(name, x, arguments, call)
        return Elementwise(x=x, out=out, steps=step) if step and x.shape == out.shape else None

    def _constant(self, expression: Any) -> np.ndarray | None:
        if isinstance(expression, tvm.ir.GenericConst):
            return np.asarray(expression.value.numpy())
        return self.constants.get(expression)

    def _convolution(self, x: Value, out: Value, call: relax.Call) -> Stage | None:
        weight, attrs = self._constant(call.args[1]), call.attrs
        if weight is None or weight.dtype != np.float32 or str(attrs.data_layout) != "NCHW" or len(x.shape) != 4:
            return None
        top, left, bottom, right = (int(v) for v in attrs.padding)
        return Convolution(
            x=x, out=out, weight=weight, stride=_pair(attrs.strides), padding=(top, left, bottom, right),
            dilation=_pair(attrs.dilation), groups=int(attrs.groups),
        )  # fmt: skip

    def _dense(self, x: Value, out: Value, call: relax.Call) -> Stage | None:
        weight = self._constant(call.args[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim != 2 or len(x.shape) != 2:
            return None
        return Convolution(x=x, out=out, weight=np.ascontiguousarray(weight.T)[:, :, None, None])

    def _concat(self, call: relax.Call, out: Value) -> Stage | None:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else self.tuples.get(call.args[0], ())
        parts = [self.tensors.get(part) for part in fields]
        along = int(call.attrs.axis) % len(out.shape)
        if along != 1 or not out.is_map or not parts or any(part is None for part in parts):
            return None
        return Concat(parts=tuple(part for part in parts if part is not None), out=out)

    def _step(self, name: str, x: Value, arguments: list[Any], call: relax.Call) -> tuple[Step, ...] | None:
        if name in _UNARY:
            return (Step(op=_UNARY[name]),)
        if name == "relax.clip":
            low, high = (_number(value) for value in call.args[1:3])
            return None if math.isnan(low) or math.isnan(high) else (Step(op="clip", numbers=(low, high)),)
        if name == "relax.nn.leakyrelu":
            return (Step(op="leaky_relu", numbers=(float(call.attrs.alpha),)),)
        if name == "relax.divide":
            constant = self._per_channel(arguments[1], x)
            if constant is None or np.any(np.asarray(constant) == 0):
                return None
            return (Step(op="multiply", operand=1.0 / constant),)
        if name in _BINARY:
            operand: Value | np.ndarray | float | None = self.tensors.get(arguments[1])
            if isinstance(operand, Value):
                return (Step(op=_BINARY[name], operand=operand),) if operand.shape == x.shape else None
            operand = self._per_channel(arguments[1], x)
            return None if operand is None else (Step(op=_BINARY[name], operand=operand),)
        return None

    def _per_channel(self, expression: Any, x: Value) -> np.ndarray | float | None:
        """A constant as one number, or as one a channel; None where it is neither."""
        constant = self._constant(expression)
        if constant is None or constant.dtype != np.float32 or not np.isfinite(constant).all():
            return None
        if constant.size == 1:
            return float(constant.reshape(-1)[0])
        shape = (1,) * (len(x.shape) - constant.ndim) + constant.shape
        wanted = (1, x.channels) + (1,) * (len(x.shape) - 2)
        return constant.reshape(-1) if shape == wanted else None

    def _other(self, call: relax.Call, out: Value) -> Stage:
        inputs, operands = [], []
        for argument in _variables(call):
            if argument in self.tensors and argument not in operands:
                operands.append(argument)
                inputs.append(self.tensors[argument])
        return Other(inputs=tuple(inputs), out=out, call=self._closed(call), operands=tuple(operands))

    def _closed(self, call: relax.Call) -> relax.Call:
        """The call with tuples and constants written in, so that only tensors of ours are free."""
        arguments = []
        for argument in call.args:
            if argument in self.tuples:
                arguments.append(relax.Tuple(list(self.tuples[argument])))
            elif argument in self.constants:
                arguments.append(relax.const(self.constants[argument]))
            else:
                arguments.append(argument)
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)


def _slices(call: relax.Call) -> list[relax.Call]:
    """A split along an axis as one slice a piece."""
    (x, *_), sections, axis = call.args, call.attrs.indices_or_sections, int(call.attrs.axis)
    side = int(x.ty.shape[axis])
    if isinstance(sections, (int, tvm.tirx.IntImm)):
        each = -(-side // int(sections))
        edges = [min(i * each, side) for i in range(1, int(sections))]
    else:
        edges = [int(edge) for edge in sections]
    ends = zip([0, *edges], [*edges, side])
    return [relax.op.strided_slice(x, [axis], [start], [stop]) for start, stop in ends]


def _variables(expression: Any) -> list[Any]:
    """Variables that a call reads, in order, through tuples."""
    if isinstance(expression, relax.Call):
        return [variable for argument in expression.args for variable in _variables(argument)]
    if isinstance(expression, relax.Tuple):
        return [variable for field in expression.fields for variable in _variables(field)]
    return [expression] if isinstance(expression, relax.Var) else []


def _pool(x: Value, out: Value, call: relax.Call) -> Stage | None:
    attrs = call.attrs
    dilated = any(int(d) != 1 for d in attrs.dilation)
    if dilated or len(x.shape) != 4 or str(attrs.layout) != "NCHW":
        return None
    kernel, stride = _pair(attrs.pool_size), _pair(attrs.strides)
    top, left, bottom, right = (int(v) for v in attrs.padding)
    maximum = call.op.name == "relax.nn.max_pool2d"
    if bool(attrs.ceil_mode):  # the window may hang over: more padding that is never counted
        if not maximum:
            return None
        for axis in (0, 1):
            needed = (out.shape[2 + axis] - 1) * stride[axis] + kernel[axis] - x.shape[2 + axis]
            if axis == 0:
                bottom = max(bottom, needed - top)
            else:
                right = max(right, needed - left)
    return Pool(
        x=x, out=out, kind="max" if maximum else "avg", kernel=kernel, stride=stride,
        padding=(top, left, bottom, right), counts_padding=bool(attrs.count_include_pad),
    )  # fmt: skip


def _global_pool(x: Value, out: Value, call: relax.Call, name: str) -> Stage | None:
    """A mean over the whole map, or an adaptive pooling whose windows are all alike."""
    if len(x.shape) != 4 or x.shape[0] != out.shape[0]:
        return None
    if name == "relax.mean":
        axes = {int(axis) % 4 for axis in call.attrs.axis} if call.attrs.axis is not None else set()
        if axes != {2, 3}:
            return None
        return Pool(x=x, out=out, kind="avg", kernel=x.area, stride=x.area)
    if x.area[0] % out.area[0] or x.area[1] % out.area[1]:
        return None
    window = (x.area[0] // out.area[0], x.area[1] // out.area[1])
    return Pool(x=x, out=out, kind="avg", kernel=window, stride=window)


def _shape(variable: Any) -> tuple[int, ...]:
    kind = variable.ty
    sides = getattr(kind, "shape", None)
    if sides is None or not all(isinstance(side, tvm.tirx.IntImm) for side in sides):
        raise GraphError(f"{variable} has shape {sides}: every shape must be known when a block is compiled")
    return tuple(int(side) for side in sides)


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _number(value: Any) -> float:
    inner = getattr(value, "value", value)
    inner = getattr(inner, "value", inner)
    try:
        return float(inner)
    except (TypeError, ValueError):
        return math.nan
