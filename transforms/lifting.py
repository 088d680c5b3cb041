"""From any network `torch.export` can take to a graph of modules we can cut and change.

`torch.export` gives a flat graph of ATen calls. `lift` turns convolutions and linear layers back into `nn.Conv2d` and
`nn.Linear` (a batch norm behind a convolution folded in), keeps every other call as it is, and makes each node depend
on tensors only, so that a cut needs to carry nothing but one tensor.
"""

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from modeltree.errors import GraphError

aten = torch.ops.aten
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
        return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except Exception as error:  # torch.export raises many unrelated types
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(
            f"torch.export cannot take the network with input {(_BATCH, *input_shape)}: {first_line}: "
            "pass a network that exports with a dynamic batch"
        ) from error
    finally:
        for module, mode in was_training.items():
            module.training = mode


def lift(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """An exported network as a graph with one input and one output, layers with weights as modules.

    Raises
    ------
    GraphError : the network has several inputs or outputs, or its batch size is fixed.
    """
    lifted = _modules_from_calls(program.module())
    for node in lifted.graph.nodes:
        value = node.meta.get("val")
        if node.op != "get_attr" and isinstance(value, torch.Tensor) and isinstance(value.shape[0], int):
            raise GraphError(
                f"{node.name} fixes the batch size to {value.shape[0]}: write the network for any batch size"
            )
    return lifted


def _modules_from_calls(exported: fx.GraphModule) -> fx.GraphModule:
    root = nn.Module()
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {}
    inputs = [node for node in exported.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise GraphError(f"the network has {len(inputs)} inputs: it must have exactly one")
    for node in exported.graph.nodes:
        if node.op == "output":
            results = fx.node.map_arg(node.args[0], lambda n: copies[n])
            if isinstance(results, (tuple, list)) and len(results) == 1:
                results = results[0]
            if not isinstance(results, fx.Node):
                raise GraphError("the network returns more than one tensor: it must return exactly one")
            graph.output(results)
        elif node.op == "call_module":
            continue  # torch.export's input guards
        else:
            copies[node] = _copy(node, exported, root, graph, copies)
            copies[node].meta["val"] = node.meta.get("val")
    lifted = fx.GraphModule(root, graph)
    lifted.graph.eliminate_dead_code()
    lifted.delete_all_unused_submodules()
    lifted.graph.lint()
    lifted.recompile()
    return lifted.eval()


def _copy(
    node: fx.Node, exported: fx.GraphModule, root: nn.Module, graph: fx.Graph, copies: dict[fx.Node, Any]
) -> fx.Node:
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(exported)
        if isinstance(value, nn.Parameter):
            root.register_parameter(node.name, nn.Parameter(value.detach().clone()))
        else:
            root.register_buffer(node.name, value.detach().clone())
        return graph.get_attr(node.name)
    module = _as_module(node, exported)
    if module is not None:
        source = copies[node.all_input_nodes[0]]
        root.add_module(node.name, module)
        return graph.call_module(node.name, (source,))
    if node.target is aten.batch_norm.default:
        producer = copies[node.all_input_nodes[0]]
        if producer.op == "call_module" and len(node.all_input_nodes[0].users) == 1:
            conv = root.get_submodule(str(producer.target))
            if isinstance(conv, nn.Conv2d):
                _fold_batch_norm_(conv, node, exported)
                return producer
    local = _own_batch_size(node, graph, copies)
    args = fx.node.map_arg(node.args, lambda n: local.get(n, copies[n]))
    kwargs = fx.node.map_arg(node.kwargs, lambda n: local.get(n, copies[n]))
    return graph.create_node(node.op, node.target, args, kwargs, name=node.name)


def _own_batch_size(node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, Any]) -> dict[fx.Node, fx.Node]:
    """Let a call that is told the batch size (a reshape) read it from its own tensor, not from one further up."""
    tensors = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor) and n.op != "get_attr"]
    if not tensors or not isinstance(batch := tensors[0].meta["val"].shape[0], torch.SymInt):
        return {}
    own = {}
    for size in node.all_input_nodes:
        value = size.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr == batch.node.expr:
            own[size] = graph.call_function(aten.sym_size.int, (copies[tensors[0]], 0))
            own[size].meta["val"] = value
    return own


def _value(argument: Any, exported: fx.GraphModule) -> torch.Tensor | None:
    """The tensor behind a parameter or buffer argument, None for None."""
    return None if argument is None else operator.attrgetter(str(argument.target))(exported).detach().clone()


def _arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen call by name, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    named = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    named.update({a.name: value for a, value in zip(schema.arguments, node.args)})
    return named | dict(node.kwargs)


def _as_module(node: fx.Node, exported: fx.GraphModule) -> nn.Module | None:
    """`nn.Conv2d` or `nn.Linear` for a call whose weights are constants of the network, otherwise None."""
    if node.target not in (aten.conv2d.default, aten.conv2d.padding, aten.linear.default):
        return None
    named = _arguments(node)
    if any(isinstance(a, fx.Node) and a.op != "get_attr" for a in (named["weight"], named["bias"])):
        return None
    weight, bias = _value(named["weight"], exported), _value(named["bias"], exported)
    assert weight is not None
    module: nn.Module
    if node.target is aten.linear.default:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        groups = named["groups"]
        module = nn.Conv2d(
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]),  # type: ignore[arg-type]
            stride=tuple(named["stride"]), padding=_padding(named["padding"]), dilation=tuple(named["dilation"]),
            groups=groups, bias=bias is not None,
        )  # fmt: skip
    with torch.no_grad():
        module.weight.copy_(weight)  # type: ignore[operator, union-attr]
        if bias is not None:
            module.bias.copy_(bias)  # type: ignore[operator, union-attr]
    return module.eval()


def _padding(padding: Any) -> Any:
    return padding if isinstance(padding, str) else tuple(padding)


def _fold_batch_norm_(conv: nn.Conv2d, node: fx.Node, exported: fx.GraphModule) -> None:
    named = _arguments(node)
    mean, var = _value(named["running_mean"], exported), _value(named["running_var"], exported)
    scale, shift = _value(named["weight"], exported), _value(named["bias"], exported)
    bias = None if conv.bias is None else conv.bias.detach()
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight.detach(), bias, mean, var, named["eps"], scale, shift)
