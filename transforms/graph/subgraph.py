"""Copying a run of graph nodes, with one tensor in and one out, into a module of its own."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn


def subgraph(
    graph: fx.GraphModule,
    order: Sequence[str],
    source: str,
    result: str,
    plugged: Mapping[tuple[str, ...], nn.Module] | None = None,
) -> fx.GraphModule:
    """The nodes named in `order` as a module, sharing the parameters of `graph`.

    Parameters
    ----------
    order : node names in an order in which they can run.
    source, result : the node whose value enters, and the one whose value leaves (`source` itself if `order` is empty).
    plugged : node names that make up a unit -> the module that takes their place. A module that takes the place of
        several units is given for the first; the values of the nodes it makes superfluous are never computed.
    """
    nodes = {node.name: node for node in graph.graph.nodes}
    root, copy = nn.Module(), fx.Graph()
    values: dict[str, fx.Node] = {source: copy.placeholder("x")}
    starts = {names[0]: (names, module) for names, module in (plugged or {}).items()}
    covered: set[str] = set()
    for name in order:
        if name in covered:
            continue
        if name in starts:
            names, module = starts[name]
            unit_input = next(n.name for n in nodes[name].all_input_nodes if n.op != "get_attr")
            key = f"variant_{names[-1]}"
            root.add_module(key, module)
            covered.update(names)
            values[names[-1]] = copy.call_module(key, (values[unit_input],))
            if getattr(module, "ends_network", False):
                result = names[-1]
                break
            continue
        values[name] = _copied(nodes[name], graph, root, copy, values)
    copy.output(values[result])
    module = fx.GraphModule(root, copy)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    module.training = graph.training  # not .train(): plugged modules are the caller's, and keep their mode
    return module


def _copied(
    node: fx.Node, graph: fx.GraphModule, root: nn.Module, copy: fx.Graph, values: dict[str, fx.Node]
) -> fx.Node:
    def known(argument: fx.Node) -> fx.Node:
        if argument.name not in values:
            assert argument.op == "get_attr", f"{argument.name} is not computed before {node.name}"
            constant = operator.attrgetter(str(argument.target))(graph)
            _attach(root, str(argument.target), constant)
            values[argument.name] = copy.get_attr(str(argument.target))
        return values[argument.name]

    if node.op == "call_module":
        root.add_module(str(node.target), graph.get_submodule(str(node.target)))
    args: Any = fx.node.map_arg(node.args, known)
    kwargs: Any = fx.node.map_arg(node.kwargs, known)
    return copy.create_node(node.op, node.target, args, kwargs, name=node.name)


def _attach(root: nn.Module, name: str, constant: torch.Tensor) -> None:
    if isinstance(constant, nn.Parameter):
        root.register_parameter(name, constant)
    else:
        root.register_buffer(name, constant)
