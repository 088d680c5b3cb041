"""From any network `torch.export` can take to a graph of modules we can cut and change.

`torch.export` gives a flat graph of ATen calls. `lift` turns convolutions and linear layers back into `nn.Conv2d` and
`nn.Linear` (a batch norm behind a convolution folded in), keeps every other call as it is, and makes each node depend
on tensors only, so that a cut needs to carry nothing but one tensor.
"""

import contextlib
import io
import logging
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from modeltree.errors import GraphError

aten = torch.ops.aten
_FILLED: dict[Any, float | None] = {
    aten.new_zeros.default: 0.0, aten.new_ones.default: 1.0, aten.new_empty.default: 0.0, aten.new_full.default: None,
    aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0, aten.empty_like.default: 0.0,
    aten.full_like.default: None,
}  # fmt: skip
"""Tensors made after another one's kind, and what fills them (None: a number that the call is told)."""
_BATCH = 2  # a batch of one would be specialised by torch.export


def export(model: nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """`model` at inference as an exported program with a dynamic batch. The model itself is not touched.

    Parameters
    ----------
    model : takes one float32 tensor (batch, *input_shape) and returns one tensor (batch, classes).
    input_shape : (channels, height, width).

    Raises
    ------
    GraphError : torch.export refuses the network.
    """
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        example = torch.zeros(_BATCH, *input_shape)
        with _quiet():
            return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except Exception as error:  # torch.export raises many unrelated types
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "data-dependent" in first_line:
            raise GraphError(
                "the network decides by the values of a tensor (if x.sum() > 0, .item(), x[mask]), which no fixed "
                "graph can do: write it with torch.where"
            ) from error
        raise GraphError(
            f"torch.export cannot take the network with input {(_BATCH, *input_shape)}: {first_line}: "
            "pass a network that exports with a dynamic batch"
        ) from error
    finally:
        for module, mode in was_training.items():
            module.training = mode


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch prints and logs whole graphs where it refuses a network; what matters is in its error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def lift(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """An exported network as a graph with one input and one output, layers with weights as modules.

    What does not depend on the input is computed once, and calls that work in place become calls that do not. Every
    node's `meta` holds `batch_first` (it is a tensor whose first dimension is the batch) and `image_shape`: its shape
    without the batch; for lists of tensors, and where the batch is not in front, the number of values in an image.

    Raises
    ------
    GraphError : the network has several inputs or outputs, a fixed batch size, an output whose first dimension is not
        the batch, or changes a view in place.
    """
    lifted = _Lifting(program.module()).graph_module()
    nodes = [node for node in lifted.graph.nodes if node.op not in ("get_attr", "output")]
    batch = _symbols(nodes[0].meta["val"])[0]
    for node in nodes:
        value = node.meta.get("val")
        node.meta["batch_first"] = isinstance(value, torch.Tensor) and _symbols(value)[:1] == [batch] != [None]
        if node.meta["batch_first"]:
            node.meta["image_shape"] = tuple(int(side) for side in value.shape[1:])
        else:
            numbers = [_per_image(v, batch, node) for v in _tensors(value)]
            node.meta["image_shape"] = (sum(numbers),) if numbers else ()
    result = next(node for node in lifted.graph.nodes if node.op == "output").args[0]
    if isinstance(result, fx.Node) and result.op != "get_attr" and not result.meta["batch_first"]:
        shape = _written(result.meta["val"])
        raise GraphError(f"the network returns shape {shape}: its first dimension must be the batch: keep it in front")
    return lifted


def _symbols(tensor: torch.Tensor) -> list[Any]:
    """The symbol behind every dimension that is not a number."""
    return [side.node.expr if isinstance(side, torch.SymInt) else None for side in tensor.shape]


def _tensors(value: Any) -> list[torch.Tensor]:
    return [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, torch.Tensor)]


def _written(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _per_image(tensor: torch.Tensor, batch: Any, node: fx.Node) -> int:
    """How many numbers of a tensor belong to one image."""
    numbers: Any = tensor.numel()
    share = numbers.node.expr / batch if isinstance(numbers, torch.SymInt) and batch is not None else None
    if share is None or not share.is_Integer:
        raise GraphError(
            f"{node.name} has shape {_written(tensor)}, not a multiple of the batch size: "
            "write the network for any batch size, every image on its own"
        )
    return int(share)


class _Lifting:
    """Copies an exported graph call by call.

    copies : a node of `exported` -> its copy.
    constants : a node that does not depend on the input -> its value.
    """

    def __init__(self, exported: fx.GraphModule) -> None:
        self.exported = exported
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.constants: dict[fx.Node, Any] = {}

    def graph_module(self) -> fx.GraphModule:
        nodes = list(self.exported.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise GraphError(f"the network has {len(inputs)} inputs: it must have exactly one")
        for node in nodes:
            self._take(node)
        lifted = fx.GraphModule(self.root, self.graph)
        lifted.graph.eliminate_dead_code()
        lifted.delete_all_unused_submodules()
        lifted.graph.lint()
        lifted.recompile()
        return lifted.eval()

    def _take(self, node: fx.Node) -> None:
        if node.op == "output":
            self.graph.output(self._result(node))
        elif node.op == "get_attr":
            self.constants[node] = _own(operator.attrgetter(str(node.target))(self.exported))
        elif node.op == "call_function" and all(n in self.constants for n in node.all_input_nodes):
            self._check_unused(node)
            self.constants[node] = _evaluated(node, self.constants)
        elif (filled := _filled(node)) is not None:
            self.constants[node] = filled
        elif node.op == "placeholder" or (node.op == "call_function" and (node.users or _is_mutating(node))):
            self.copies[node] = self._copy(node)
            self.copies[node].meta["val"] = node.meta.get("val")
        # what is left has no users: torch.export's input guards and assertions

    def _check_unused(self, node: fx.Node) -> None:
        """No constant is changed in place after a call has read it: both would see what it is at the end.

        Raises
        ------
        GraphError : one is.
        """
        if not _is_mutating(node):
            return
        memory = self.constants[node.args[0]].untyped_storage().data_ptr()  # type: ignore[index]
        for read in self.copies:
            value = self.constants.get(read)
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() == memory:
                raise GraphError(f"{node.name} changes {read.name} in place after it was read: write it before")

    def _result(self, node: fx.Node) -> fx.Node:
        results = node.args[0]
        if isinstance(results, (tuple, list)) and len(results) == 1:
            results = results[0]
        if not isinstance(results, fx.Node):
            raise GraphError("the network returns more than one tensor: it must return exactly one")
        return self._known(results)

    def _known(self, node: fx.Node) -> fx.Node:
        """The copy of a node; a constant becomes a parameter or buffer when it is first asked for."""
        if node not in self.copies:
            value = self.constants[node]
            if isinstance(value, nn.Parameter):
                self.root.register_parameter(node.name, value)
            elif isinstance(value, torch.Tensor):
                self.root.register_buffer(node.name, value)
            else:
                raise GraphError(
                    f"{node.name} is a {type(value).__name__} that does not depend on the input: pass tensors"
                )
            self.copies[node] = self.graph.get_attr(node.name)
        return self.copies[node]

    def _copy(self, node: fx.Node) -> fx.Node:
        module = _as_module(node, self.constants)
        if module is not None:
            self.root.add_module(node.name, module)
            return self.graph.call_module(node.name, (self._known(node.all_input_nodes[0]),))
        if node.target is aten.batch_norm.default:
            producer = self._known(node.all_input_nodes[0])
            if producer.op == "call_module" and len(node.all_input_nodes[0].users) == 1:
                conv = self.root.get_submodule(str(producer.target))
                if isinstance(conv, nn.Conv2d) and _fold_batch_norm_(conv, node, self.constants):
                    return producer
        target = _functional(node) if _is_mutating(node) else node.target
        if target is aten.view.default:  # which refuses maps whose channels lie together
            target = aten.reshape.default
        local = _own_batch_size(node, self.graph, self.copies)
        args = fx.node.map_arg(node.args, lambda n: local[n] if n in local else self._known(n))
        kwargs = fx.node.map_arg(node.kwargs, lambda n: local[n] if n in local else self._known(n))
        return self.graph.create_node(node.op, target, args, kwargs, name=node.name)


def _own(value: Any) -> Any:
    """A copy of a parameter or buffer, so that the original network is never touched."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _evaluated(node: fx.Node, constants: dict[fx.Node, Any]) -> Any:
    target: Any = node.target
    args: Any = fx.node.map_arg(node.args, lambda n: constants[n])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: constants[n])
    with torch.no_grad():
        return target(*args, **kwargs)


def _filled(node: fx.Node) -> torch.Tensor | None:
    """What a call makes that takes only the kind of its input (`x.new_zeros(3)`), where its shape is known."""
    if node.target not in _FILLED:
        return None
    value, made = _FILLED[node.target], node.meta["val"]
    if value is None:
        value = node.args[-1] if len(node.args) > 1 else node.kwargs.get("fill_value")  # type: ignore[assignment]
    if not isinstance(value, (int, float)) or any(isinstance(side, torch.SymInt) for side in made.shape):
        return None
    return torch.full(made.shape, value, dtype=made.dtype)


def _is_mutating(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_view(node: fx.Node) -> bool:
    """Whether a call may return the memory it is given."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    shares = any(result.alias_info is not None for result in node.target._schema.returns)
    return shares or node.target in (aten.dropout.default, aten.feature_dropout.default)


def _functional(node: fx.Node) -> Any:
    """The call without side effect that does what this one does in place.

    torch.export lets every later use of the changed tensor read the call's result, so only views stand in the way.

    Raises
    ------
    GraphError : another view of the same memory is in use, or there is no such call.
    """
    assert isinstance(node.target, torch._ops.OpOverload)
    reader, changed = node, node.args[0]
    while isinstance(changed, fx.Node) and changed.op == "call_function":
        others = [user for user in changed.users if user is not reader]
        if any(_is_view(user) for user in others) or (reader is not node and others) or not node.users:
            raise GraphError(f"{node.name} changes a view of {changed.name} in place: write it without {node.target}")
        if not _is_view(changed):
            break
        reader, changed = changed, changed.args[0]
    name = node.target._schema.name.removeprefix("aten::").removesuffix("_")
    try:
        return getattr(getattr(aten, name), node.target._overloadname)
    except AttributeError as error:
        raise GraphError(f"{node.name} works in place by {node.target}: write it without") from error


def _own_batch_size(node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, Any]) -> dict[fx.Node, fx.Node]:
    """Let a call that is told the batch size, or a multiple of it (a reshape), read it from its own tensor.

    A size from further up would be a second thing that is alive between the two.
    """
    tensors = [n for n in node.all_input_nodes if n in copies and isinstance(n.meta.get("val"), torch.Tensor)]
    if not tensors:
        return {}
    source, own = tensors[0], {}
    symbols = _symbols(source.meta["val"])
    for size in node.all_input_nodes:
        value = size.meta.get("val")
        if not isinstance(value, torch.SymInt):
            continue
        for dimension, there in enumerate(symbols):
            ratio = None if there is None else value.node.expr / there
            if ratio is not None and ratio.is_Rational:
                own[size] = _scaled(graph.call_function(aten.sym_size.int, (copies[source], dimension)), ratio)
                own[size].meta["val"] = value
                break
    return own


def _scaled(size: fx.Node, ratio: Any) -> fx.Node:
    """`size` times a fraction that divides it."""
    if ratio.p != 1:
        size = size.graph.call_function(operator.mul, (size, int(ratio.p)))
    if ratio.q != 1:
        size = size.graph.call_function(operator.floordiv, (size, int(ratio.q)))
    return size


def _arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen call by name, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema
    named = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    named.update({a.name: value for a, value in zip(schema.arguments, node.args)})
    return named | dict(node.kwargs)


def _as_module(node: fx.Node, constants: dict[fx.Node, Any]) -> nn.Module | None:
    """`nn.Conv2d` or `nn.Linear` for a call whose weights are constants of the network, otherwise None."""
    if node.target not in (aten.conv2d.default, aten.conv2d.padding, aten.linear.default):
        return None
    named = _arguments(node)
    if any(a is not None and a not in constants for a in (named["weight"], named["bias"])):
        return None
    weight, bias = constants[named["weight"]], constants.get(named["bias"])
    module: Any
    if node.target is aten.linear.default:
        module = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        groups, padding = named["groups"], named["padding"]
        module = nn.utils.skip_init(
            nn.Conv2d, weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]),
            stride=_pair(named["stride"]), padding=padding if isinstance(padding, str) else _pair(padding),
            dilation=_pair(named["dilation"]), groups=groups, bias=bias is not None,
        )  # fmt: skip
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module.eval()


def _pair(numbers: list[int]) -> tuple[int, int]:
    """ATen writes one number for both directions as a list of one."""
    return numbers[0], numbers[-1]


def _fold_batch_norm_(conv: nn.Conv2d, node: fx.Node, constants: dict[fx.Node, Any]) -> bool:
    """Fold a batch norm into the convolution before it; False if it has no running statistics to fold."""
    named = _arguments(node)
    mean, var, scale, shift = (constants.get(named[name]) for name in ("running_mean", "running_var", "weight", "bias"))
    if mean is None or var is None or named["training"]:
        return False
    bias = None if conv.bias is None else conv.bias.detach()
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight.detach(), bias, mean, var, named["eps"], scale, shift)
    return True
