"""Walks core operators in order and says each as stages, views of tensors, or constants."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from compile.graph.core_form import CoreForm, refused
from compile.graph.stages import Concat, Convolution, Elementwise, Flatten, Gather, Pool, Program, Stage, Value
from modeltree.errors import GraphError

OPERATORS: dict[Any, Callable[..., Any]] = {}
"""What is accepted: an overload of ATen, and the function that reads it.

A function's parameters are the arguments whose meaning it knows (`x` is ATen's `self`); any other argument must have
its default value, or the call is refused.
"""

_PASSED_ON: set[Any] = set()
_NAMES = {torch.float32: "float32", torch.bool: "bool", torch.int64: "int64", torch.int32: "int32"}


def operator(*targets: Any, passed_on: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function for some overloads.

    passed_on : it hands all arguments on to torch, so that none can be misread.
    """

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for target in targets:
            assert target not in OPERATORS, f"{target} is read twice"
            OPERATORS[target] = function
            if passed_on:
                _PASSED_ON.add(target)
        return function

    return enter


@dataclass(frozen=True, kw_only=True)
class View:
    """Numbers of tensors in another order, not yet moved.

    table : of the view's shape, places in the parts laid end to end, -1 for `fill`; None where the order is the same.
    """

    parts: tuple[Value | np.ndarray, ...]
    table: np.ndarray | None
    shape: tuple[int, ...]
    dtype: str
    fill: float = 0.0

    def places(self) -> np.ndarray:
        """The table, made where there is none."""
        if self.table is not None:
            return self.table
        return np.arange(math.prod(self.shape), dtype=np.int64).reshape(self.shape)


class Call:
    """One core operator: its result's shape and dtype, and its error."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node
        value = node.meta["val"]
        self.values = list(value) if isinstance(value, (list, tuple)) else [value]
        self.shape = tuple(int(side) for side in self.values[0].shape)

    def dtype(self, number: int = 0) -> str:
        """Of a result.

        Raises
        ------
        GraphError : not one that we compute with.
        """
        found = self.values[number].dtype
        if found not in _NAMES:
            raise self.refused(f"makes numbers of {str(found).removeprefix('torch.')}", "keep to float32")
        return _NAMES[found]

    def refused(self, what: str, instead: str) -> GraphError:
        return refused(self.node, what, instead)


def read(core: CoreForm) -> Program:
    """Core operators as stages.

    Raises
    ------
    GraphError : an operator, or an argument of one, that is not known to be right; it names the layer.
    """
    return Reader(core).program()


class Reader:
    """What is known so far; rules ask it for tensors and give it stages."""

    def __init__(self, core: CoreForm) -> None:
        self.core = core
        self.stages: list[Stage] = []
        self.known: dict[fx.Node, Any] = {}
        self.blocked: set[str] = set()

    def program(self) -> Program:
        shape = tuple(int(side) for side in self.core.entered.meta["val"].shape)
        entered = self.known[self.core.entered] = Value("input", shape)
        if entered.is_map:
            self.blocked.add(entered.name)
        for node in self.core.calls:
            self.known[node] = self._called(node)
        result = self.value(self.core.result)
        if result.dtype != "float32":
            raise refused(self.core.result, f"makes the block's result, of {result.dtype}", "return float32")
        return Program(input=entered, result=result, stages=tuple(self.stages))

    def _called(self, node: fx.Node) -> Any:
        if not isinstance(node.target, torch._ops.OpOverload):  # taking one of several results
            source, index = node.args
            assert isinstance(source, fx.Node)
            return self.known[source][index]
        function = OPERATORS.get(node.target)
        if function is None:
            raise refused(node, "has no rule that is known to be right", "write it with other operators")
        return function(self, Call(node), **_bound(node, function))

    def value(self, tensor: Any) -> Value:
        """A tensor as one that a stage makes: views are moved, constants too."""
        found = self._resolved(tensor)
        if isinstance(found, Value):
            return found
        if isinstance(found, np.ndarray):
            found = View(parts=(found,), table=None, shape=found.shape, dtype=str(found.dtype))
        made = self._moved(found)
        if isinstance(tensor, fx.Node) and tensor not in self.core.constants:
            self.known[tensor] = made
        return made

    def view(self, tensor: Any) -> View:
        """A tensor as a view, perhaps of itself."""
        found = self._resolved(tensor)
        if isinstance(found, View):
            return found
        return View(parts=(found,), table=None, shape=tuple(found.shape), dtype=str(found.dtype))

    def constant(self, tensor: Any) -> np.ndarray | None:
        """A constant's numbers, None for what depends on the input."""
        found = self._resolved(tensor)
        return found if isinstance(found, np.ndarray) else None

    def shape(self, tensor: Any) -> tuple[int, ...]:
        return tuple(self._resolved(tensor).shape)

    def dtype(self, tensor: Any) -> str:
        return str(self._resolved(tensor).dtype)

    def _resolved(self, tensor: Any) -> Value | View | np.ndarray:
        if isinstance(tensor, (Value, View, np.ndarray)):
            return tensor
        if isinstance(tensor, np.generic):  # numpy makes these of arrays without axes
            return np.asarray(tensor)
        if tensor in self.core.constants:
            value = self.core.constants[tensor]
            if value.dtype == torch.float64:
                value = value.float()
            return value.detach().numpy()
        found = self.known[tensor]
        assert not isinstance(found, tuple), f"{tensor} has several results"
        return found

    def _moved(self, view: View) -> Value:
        out = self.new(view.shape, view.dtype)
        if view.table is None and len(view.parts) == 1 and isinstance(view.parts[0], Value):
            return self.add(Flatten(x=view.parts[0], out=out))
        return self.add(Gather(parts=view.parts, out=out, table=view.places(), fill=view.fill))

    def new(self, shape: tuple[int, ...], dtype: str = "float32") -> Value:
        """A name for what the next stage makes."""
        return Value(f"t{len(self.stages)}", tuple(int(side) for side in shape), dtype)

    def add(self, stage: Stage) -> Value:
        """Put a stage at the end; its output."""
        self.stages.append(stage)
        if isinstance(stage, (Convolution, Pool, Elementwise, Concat)):
            self.blocked.add(stage.out.name)
        if isinstance(stage, Flatten) and stage.x.name in self.blocked and stage.out.is_map:
            self.blocked.add(stage.out.name)
        return stage.out


def _bound(node: fx.Node, function: Callable[..., Any]) -> dict[str, Any]:
    """A call's arguments by the names of the function's parameters; every other one must be the default."""
    assert isinstance(node.target, torch._ops.OpOverload)
    if node.target in _PASSED_ON:
        return {}
    wanted = set(inspect.signature(function).parameters)
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        name = "x" if argument.name == "self" else argument.name
        if position < len(node.args):
            value = node.args[position]
        else:
            value = node.kwargs.get(argument.name, argument.default_value)
        if name in wanted:
            bound[name] = value
        elif value != argument.default_value and name not in _HARMLESS:
            raise refused(node, f"with {argument.name} of {value} has no rule", f"leave {argument.name} out")
    return bound


_HARMLESS = {"memory_format", "layout", "device", "pin_memory", "non_blocking", "copy", "sparse_grad", "cudnn_enable",
             "cudnn_enabled", "benchmark"}  # fmt: skip
"""Arguments that say nothing about the numbers."""
