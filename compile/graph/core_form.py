"""A block in functional form: few core operators of torch, every shape a number, what is constant computed.

torch's own decompositions turn in-place writes, composite layers and rare operators into core ones, so their meaning
is torch's. Layers that we schedule ourselves stay whole (`WHOLE`). What does not depend on the input is computed by
torch here, once; expansions stay views, so a constant is held once however often it is read.
"""

import contextlib
import operator
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from modeltree.errors import GraphError

aten = torch.ops.aten

WHOLE = (
    aten.linear.default, aten.matmul.default, aten.softmax.int, aten.layer_norm.default, aten.group_norm.default,
    aten.scaled_dot_product_attention.default, aten.gelu.default, aten.silu.default,
    aten.hardswish.default, aten.hardsigmoid.default, aten.relu6.default, aten.max_pool2d.default,
    aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default,
    aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec,
)  # fmt: skip
"""Operators that torch must not take apart: rules of ours know them."""

_SAME = {
    aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default, aten.dropout.default,
    aten.lift_fresh_copy.default, aten.detach_.default, aten.feature_dropout.default, aten.alpha_dropout.default,
}  # fmt: skip
_CHECKS = {
    aten._assert_async.msg, aten._assert_tensor_metadata.default, aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default, aten._assert_async.default,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CoreForm:
    """Core operators in the order they run.

    calls : nodes whose arguments are nodes, constants (keys of `constants`) or plain data; `meta["val"]` is the result
        as a fake tensor with a known shape. entered, result : the block's input and what it returns.
    """

    calls: tuple[fx.Node, ...]
    constants: dict[fx.Node, torch.Tensor]
    entered: fx.Node
    result: fx.Node

    def text(self) -> str:
        """One line a call, for dumps."""
        return "".join(f"{node.format_node()} {_described(node)}\n" for node in self.calls)


def core_form(program: torch.export.ExportedProgram, batch: int) -> CoreForm:
    """The program in core operators for a fixed batch; kept while the program lives.

    A block is compiled for several targets and number formats, and their twins, from one form.

    Raises
    ------
    GraphError : several inputs or outputs, another fixed batch, or an operator that draws random numbers.
    """
    forms = _FORMS.setdefault(program, {})
    if batch not in forms:
        forms[batch] = _taken_apart(program, batch)
    return forms[batch]


_FORMS: "weakref.WeakKeyDictionary[torch.export.ExportedProgram, dict[int, CoreForm]]" = weakref.WeakKeyDictionary()


def _taken_apart(program: torch.export.ExportedProgram, batch: int) -> CoreForm:
    _check_ends(program, batch)
    table = torch.export.default_decompositions()
    for kept in WHOLE:
        table.pop(kept, None)
    try:
        with warnings.catch_warnings(), torch.no_grad(), fixed_batch(program, batch):
            warnings.simplefilter("ignore")
            functional = program.run_decompositions(table)
    except Exception as error:  # torch raises many unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(f"torch cannot bring the block into functional form: {reason}: simplify it") from error
    return _Specialising(functional).run()


@contextlib.contextmanager
def fixed_batch(program: torch.export.ExportedProgram, batch: int) -> Iterator[None]:
    """The batch is a number while torch takes the program apart: reasoning about symbols took it twice as long."""
    entering = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    dynamic = entering.meta["val"]
    with dynamic.fake_mode:
        entering.meta["val"] = torch.empty([side if isinstance(side, int) else batch for side in dynamic.shape])
    try:
        yield
    finally:
        entering.meta["val"] = dynamic


def _check_ends(program: torch.export.ExportedProgram, batch: int) -> None:
    entering = program.graph_signature.user_inputs
    if len(entering) != 1:
        raise GraphError(f"the block has {len(entering)} inputs: a block must have exactly one")
    if len(program.graph_signature.user_outputs) != 1:
        raise GraphError("the block returns several values: it must return one tensor")
    value = next(node for node in program.graph.nodes if node.name == entering[0]).meta["val"]
    first = value.shape[0] if value.ndim else 0
    if isinstance(first, int) and first != batch:
        raise GraphError(f"the block is exported for batches of {first}, not {batch}: export it with a dynamic batch")
    if value.dtype != torch.float32:
        raise GraphError(f"the block reads {value.dtype}: its input must be float32")


class _Specialising:
    """Copies a functional graph of known shapes call by call."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.known: dict[fx.Node, Any] = {}
        self.constants: dict[fx.Node, torch.Tensor] = {}
        self.names: dict[int, fx.Node] = {}
        self.made: dict[str, fx.Node] = {}
        self.calls: list[fx.Node] = []

    def run(self) -> CoreForm:
        entered = None
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.known[node] = self._entering(node)
                entered = self.known[node] if node.name in self.program.graph_signature.user_inputs else entered
            elif node.op == "call_function":
                self.known[node] = self._call(node)
            elif node.op == "output":
                result = self.known[_last(node)]
        if not isinstance(result, fx.Node) or entered is None:
            raise GraphError("the block returns something else than one tensor that depends on its input: return one")
        return CoreForm(
            calls=_needed(self.calls, result), constants=self.constants, entered=entered, result=result
        )  # fmt: skip

    def _entering(self, node: fx.Node) -> Any:
        """The block's input as a node, a parameter or a constant as its tensor."""
        signature, program = self.program.graph_signature, self.program
        if node.name in signature.user_inputs:
            copy = self.graph.placeholder(node.name)
            copy.meta["val"] = node.meta["val"]
            return copy
        name = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(node.name)
        name = name or signature.inputs_to_lifted_tensor_constants.get(node.name, node.name)
        value = program.state_dict.get(name, program.constants.get(name))
        return value.detach() if isinstance(value, torch.Tensor) else value

    def _call(self, node: fx.Node) -> Any:
        if node.target in _CHECKS:
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: cast(Any, _Held(self.known[n])))
        args, kwargs = _opened(args), _opened(kwargs)
        if node.target in _SAME:
            return args[0]
        reads = [value for value in _leaves((args, kwargs)) if isinstance(value, fx.Node)]
        if node.target is aten.sym_size.int and reads:
            return int(reads[0].meta["val"].shape[args[1]])
        if node.target is operator.getitem and not reads:
            return args[0][args[1]]
        if not reads:
            return self._evaluated(node, args, kwargs)
        return self._copied(node, args, kwargs)

    def _evaluated(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What does not depend on the input, by torch itself."""
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise refused(node, "draws random numbers", "compute what it gives once and keep it as a buffer")
        if node.target is aten.empty.memory_format:
            return torch.zeros(args[0], dtype=kwargs.get("dtype"))
        with torch.no_grad():
            return _callable(node)(*args, **kwargs)

    def _copied(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        draws = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if draws and node.target is not aten.scaled_dot_product_attention.default:  # whose dropout is checked
            raise refused(node, "draws random numbers", "leave it out at inference")
        args, kwargs = self._named(args), self._named(kwargs)
        said = f"{node.target} {args} {kwargs}"  # a call that was made before is not made again
        if said in self.made:
            return self.made[said]
        copy = self.graph.create_node("call_function", node.target, args, kwargs, name=node.name)
        copy.meta.update({key: node.meta[key] for key in ("nn_module_stack",) if key in node.meta})
        copy.meta["val"] = _result(node)
        if isinstance(copy.meta["val"], (int, float, bool)):
            return copy.meta["val"]
        self.calls.append(copy)
        self.made[said] = copy
        return copy

    def _named(self, arguments: Any) -> Any:
        """Arguments with a node for every constant tensor."""

        def name(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in self.names:
                return self.names[id(value)]
            node = self.graph.create_node("get_attr", f"constant_{len(self.constants)}")
            self.constants[node] = value  # which keeps it alive, and so its id its own
            self.names[id(value)] = node
            return node

        return _mapped(arguments, name)


class _Held:
    """Keeps fx from looking into what stands for an argument."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _opened(arguments: Any) -> Any:
    return _mapped(arguments, lambda value: value.value if isinstance(value, _Held) else value)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return (
            type(value)([_mapped(one, change) for one in value])
            if type(value) in (list, tuple)
            else tuple(_mapped(one, change) for one in value)
        )
    if isinstance(value, dict):
        return {key: _mapped(one, change) for key, one in value.items()}
    return change(value)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for one in value for leaf in _leaves(one)]
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    return [value]


def _result(node: fx.Node) -> Any:
    """What torch found that a call makes: fake tensors of known shape, or a number."""
    found = node.meta["val"]
    for leaf in _leaves(found):
        sides = leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)
        if any(isinstance(side, (torch.SymInt, torch.SymFloat, torch.SymBool)) for side in sides):
            raise refused(node, "has a shape that depends on the numbers", "use shapes that are known")
    return found


def _callable(node: fx.Node) -> Any:
    """What computes a call: views copy where they must, since copies that only change strides are gone."""
    return aten.reshape.default if node.target is aten.view.default else node.target


def _last(output: fx.Node) -> fx.Node:
    results = output.args[0]
    return results[0] if isinstance(results, (tuple, list)) else results  # type: ignore[return-value]


def _needed(calls: list[fx.Node], result: fx.Node) -> tuple[fx.Node, ...]:
    """Calls that the result depends on."""
    wanted, kept = {result}, []
    for node in reversed(calls):
        if node in wanted:
            wanted.update(node.all_input_nodes)
            kept.append(node)
    return tuple(reversed(kept))


def layer_of(node: fx.Node) -> str:
    """The user's layer that a call belongs to: its module path, or the call's own name where there is none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return str(paths[-1]) if paths else node.name


def refused(node: fx.Node, what: str, instead: str) -> GraphError:
    """An error that names the layer and the operator, and says what to write instead."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    return GraphError(f"layer {layer_of(node)}: {name} {what}: {instead}")


def _described(node: fx.Node) -> str:
    value = node.meta["val"]
    return ", ".join(f"{tuple(v.shape)} {v.dtype}" for v in _leaves(value) if isinstance(v, torch.Tensor))
