"""What a placement costs, computed from the graph alone: the check of every planner's answer.

A device is a number: accelerators from 0, then CPUs. Load [Tarnawski 2020, sec. 4]: an accelerator pays its nodes'
times plus the transfer of every output that enters or leaves it, once each; a CPU pays its nodes' times.
"""

from collections.abc import Mapping

import networkx as nx

from nas.decisions.placement.graphs.graph_file import OperatorGraph


def loads(graph: OperatorGraph, device_of: Mapping[int, int]) -> dict[int, float]:
    """Load of every device that holds a node; `device_of` maps node ids to devices."""
    load: dict[int, float] = {}
    for node in graph.nodes:
        device = device_of[node.id]
        time = node.accelerator_time if device < graph.accelerators else node.cpu_time
        load[device] = load.get(device, 0.0) + time
    costs = graph.transfer_cost
    for source, device in transfers(graph, device_of):
        if device < graph.accelerators:
            load[device] += costs[source]
    return load


def transfers(graph: OperatorGraph, device_of: Mapping[int, int]) -> set[tuple[int, int]]:
    """Pairs of a node whose output changes device and a device that sends or receives it."""
    pairs = set()
    for edge in graph.edges:
        source, target = device_of[edge.source], device_of[edge.target]
        if source != target:
            pairs |= {(edge.source, source), (edge.source, target)}
    return pairs


def violations(graph: OperatorGraph, device_of: Mapping[int, int], *, contiguous: bool) -> list[str]:
    """What a placement breaks, in words; empty if nothing."""
    problems = []
    size: dict[int, float] = {}
    by_color: dict[int, set[int]] = {}
    for node in graph.nodes:
        device = device_of[node.id]
        if not 0 <= device < graph.accelerators + graph.cpus:
            problems.append(f"node {node.id} is on device {device}, which does not exist")
        if device < graph.accelerators:
            size[device] = size.get(device, 0.0) + node.size
            if not node.supported:
                problems.append(f"node {node.id} is on accelerator {device}, which does not support it")
        if node.color is not None:
            by_color.setdefault(node.color, set()).add(device)
    problems += [f"accelerator {d} holds {s:.0f} bytes" for d, s in size.items() if s > graph.accelerator_bytes]
    problems += [f"class {color} is on devices {sorted(on)}" for color, on in by_color.items() if len(on) > 1]
    if contiguous:
        problems += [f"device {device} is left and entered again" for device in _entered_again(graph, device_of)]
    return problems


def _entered_again(graph: OperatorGraph, device_of: Mapping[int, int]) -> list[int]:
    """Devices whose forward nodes are not contiguous."""
    backward = {node.id for node in graph.nodes if node.backward}
    forward = nx.DiGraph()
    forward.add_nodes_from(node.id for node in graph.nodes if node.id not in backward)
    forward.add_edges_from((e.source, e.target) for e in graph.edges if not {e.source, e.target} & backward)
    broken = []
    for device in sorted({device_of[node] for node in forward}):
        held = {node for node in forward if device_of[node] == device}
        left = {after for node in held for after in forward.successors(node)} - held
        reached = set(left)
        for node in left:
            reached |= nx.descendants(forward, node)
        if reached & held:
            broken.append(device)
    return broken
