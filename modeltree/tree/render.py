"""A model tree for people: as indented text, as Graphviz DOT, and the phrases that both (and the report) use."""

import itertools
import math
from collections.abc import Iterator, Sequence

from modeltree.image_codes import image_code
from modeltree.tree import Action, BitsFork, ExitFork, Fork, Handover, Leaf, ModelTree, Node, by_confidence
from modeltree.tree.emulate import leaving_share

KEEP = "keep"


def render_text(tree: ModelTree) -> str:
    """The tree as indented plain text, one fork per branch; ends with a newline."""
    shape = "x".join(map(str, tree.input_shape))
    latency_ms, accuracy = expectation(tree)
    lines = [
        f"{tree.base}: {shape} to {answer_text(tree)}, sliced at places {_listed(tree.places)}",
        f"device {tree.device}, cloud {tree.cloud}, trace {tree.trace}, round trip {_round_trip(tree)} ms",
        f"expected: {ms_text(latency_ms)} (predicted), {accuracy:.2f} %{_quality(tree)} ({accuracy_origin(tree)})",
    ]
    if tree.exits:
        lines.insert(1, f"early exits at places {_listed(tree.exits)}")
    for node, last in _with_last(tree, tree.roots):
        lines += _node_text(tree, node, "", last)
    return "\n".join(map(_one_line, lines)) + "\n"


def answer_text(tree: ModelTree) -> str:
    """What a network answers: `10 classes`, or `masks 2x32x32 and boxes 4`."""
    if not tree.outputs:
        return f"{len(tree.classes)} classes"
    return " and ".join(f"{output.name} {'x'.join(map(str, output.shape))}" for output in tree.outputs)


def _quality(tree: ModelTree) -> str:
    return f" {tree.quality}" if tree.quality else ""


def _round_trip(tree: ModelTree) -> str:
    """In ms; of one that changes, its means at the types, the slowest first."""
    if not tree.types.rtt_ms:
        return f"{tree.rtt_ms:g}"
    return f"{tree.rtt_ms:g} (by type {', '.join(f'{rtt_ms:.3g}' for rtt_ms in tree.types.rtt_ms)})"


def render_dot(tree: ModelTree) -> str:
    """The tree as Graphviz DOT: `dot -Tsvg` draws it. Nodes that hand over are blue, other leaves green."""
    lines = [
        "digraph modeltree {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=9];',
        f"  start [label={_quoted([tree.base, tree.device])}, shape=ellipse];",
    ]
    for node in tree.nodes:
        title = f"{block_text(node)}: {ms_text(node.device_ms)} on the device"
        text = [title, *layer_lines(node), *_ending(node)]
        color = "#dbeafe" if node.handover else "#dcfce7" if node.leaf else "#ffffff"
        lines.append(f'  n{node.id} [label={_quoted(text)}, fillcolor="{color}"];')
    for node in tree.nodes:
        parent = "start" if node.parent is None else f"n{node.parent}"
        lines.append(f"  {parent} -> n{node.id} [label={_quoted([when_text(tree, node)], end='')}];")
    return "\n".join([*lines, "}"]) + "\n"


def fork_text(tree: ModelTree, fork: Fork) -> str:
    """When a fork is taken, and what is special on it, in words: `type 1: 5.2 to 9 Mbit/s, 4 bits`."""
    if isinstance(fork, ExitFork) and fork.entropy is not None:
        return f"exit {fork.exit} if entropy <= {fork.entropy:.3g}"
    special = f", exit {fork.exit}" if isinstance(fork, ExitFork) else ""
    if isinstance(fork, BitsFork):
        special = f", {fork.bits} bits"
    return _types_text(tree, fork.types) + special


def when_text(tree: ModelTree, node: Node) -> str:
    """When a node is taken; of an exit by confidence also by how many: `exit 1 if entropy <= 0.31 (62 %)`."""
    share = f" ({100 * leaving_share(tree, node):.0f} %)" if by_confidence(node) else ""
    return fork_text(tree, node.fork) + share


def block_text(node: Node) -> str:
    """What a node runs: `block 2`, `block 2 in int8-dot`, or `head 1` of the first exit by confidence."""
    return (
        f"head {node.fork.exit}"
        if isinstance(node.fork, ExitFork) and by_confidence(node)
        else f"block {node.level + 1}" + (f" in {node.number_format}" if node.number_format != "f32" else "")
    )


def range_text(tree: ModelTree, types: tuple[int, ...]) -> str:
    """The bandwidths of some types, in Mbit/s; an edge belongs to the type above it."""
    edges = (-math.inf, *tree.types.edges_mbps, math.inf)
    ranges = []
    for first, last in _runs(sorted(types)):
        low, high = edges[first], edges[last + 1]
        if low == -math.inf:
            ranges.append("any bandwidth" if high == math.inf else f"below {high:.3g}")
        else:
            ranges.append(f"at least {low:.3g}" if high == math.inf else f"{low:.3g} to {high:.3g}")
    text = " or ".join(ranges)
    return text if text == "any bandwidth" else f"{text} Mbit/s"


def layer_lines(node: Node) -> list[str]:
    """What each layer of a node does: `conv2d_3: prune@0.5`, runs of kept layers on one line."""
    return [f"{layers}: {what}" for layers, what in layer_actions(node)] or [_without_layers(node)]


def layer_actions(node: Node) -> list[tuple[str, str]]:
    """(layers, what is done to them), runs of kept layers as one."""
    found = []
    for kept, group in itertools.groupby(node.actions, key=lambda action: action.technique == KEEP):
        run = list(group)
        if kept and len(run) > 1:
            found.append((f"{run[0].layer} .. {run[-1].layer}", f"{KEEP} ({len(run)} layers)"))
        else:
            found += [(action.layer, action_text(action)) for action in run]
    return found


def action_text(action: Action) -> str:
    """A technique and its rate: `prune@0.5`; a rate of 1 says nothing and is hidden."""
    return action.technique if action.rate == 1.0 else f"{action.technique}@{action.rate:g}"


def handover_text(handover: Handover) -> str:
    """What crosses to the cloud: place, shape, width and size; and through which exit it leaves there."""
    what = f"place {handover.place}" + (" (the input image)" if handover.place == 0 else "")
    shape = "x".join(map(str, handover.shape))
    through = f", through exit {handover.exit}" if handover.exit else ""
    coded = image_code(handover.code).title if handover.code else f"{handover.bits} bits a number"
    return f"{what}: {shape}, {coded}, {bytes_text(handover.bytes)}{through}"


def path_text(path: Sequence[Node]) -> str:
    """What a path does, in a few words."""
    own = sum(1 for node in path if node.partition)
    changed = sum(action.technique not in ("keep", "absorbed") for node in path for action in node.actions)
    end = path[-1].handover
    here = f"{own} block{'s' * (own != 1)} here" if own else ""
    if changed:
        here += f", {changed} layer{'s' * (changed != 1)} compressed"
    leaves = path[-1].fork
    if isinstance(leaves, ExitFork):
        here += f", through exit {leaves.exit}" + (" when sure" if by_confidence(path[-1]) else "")
    if end is None:
        return here or "nothing runs"
    return f"{here}, then {handover_text(end)}" if here else handover_text(end)


def leaf_text(leaf: Leaf) -> str:
    """What a path is worth."""
    accuracy = f"{leaf.accuracy:.2f} % {leaf.accuracy_origin}"
    return f"{ms_text(leaf.latency_ms)} predicted, {accuracy}, chance {100 * leaf.chance:.3g} %"


def ms_text(ms: float) -> str:
    """A time with three digits that matter: `0.412 ms`, `41.2 ms`, `412 ms`, `4120 ms`."""
    if not math.isfinite(ms):
        return "–" if math.isnan(ms) else "never"
    return f"{ms:.0f} ms" if abs(ms) >= 999.5 else f"{ms:.3g} ms"


def bytes_text(size_bytes: int) -> str:
    """A size with three digits that matter, in powers of 1000."""
    size, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def expectation(tree: ModelTree) -> tuple[float, float]:
    """(latency in ms, accuracy in percent) over the leaves, weighted by their chances."""
    leaves = [node.leaf for node in tree.nodes if node.leaf is not None]
    return sum(f.chance * f.latency_ms for f in leaves), sum(f.chance * f.accuracy for f in leaves)


def accuracy_origin(tree: ModelTree) -> str:
    """`measured` only if every leaf's accuracy was."""
    origins = {node.leaf.accuracy_origin for node in tree.nodes if node.leaf is not None}
    return "measured" if origins == {"measured"} else " and ".join(sorted(origins))


def _node_text(tree: ModelTree, node: Node, indent: str, last: bool) -> Iterator[str]:
    what = f"{block_text(node)}, {ms_text(node.device_ms)} on the device"
    yield f"{indent}{'└─' if last else '├─'} {when_text(tree, node)} → {what}"
    below = indent + ("   " if last else "│  ")
    for line in (*layer_lines(node), *_ending(node)):
        yield f"{below}{'│' if node.children else ' '}    {line}"
    for child, last_child in _with_last(tree, node.children):
        yield from _node_text(tree, child, below, last_child)


def _types_text(tree: ModelTree, types: tuple[int, ...]) -> str:
    if not types:
        return "by a policy only"
    if len(types) == tree.types.count:
        return "any bandwidth"
    return f"type{'s' * (len(types) > 1)} {_listed(types)}: {range_text(tree, types)}"


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _ending(node: Node) -> list[str]:
    """Lines for what comes after a node's layers."""
    lines = []
    if node.handover is not None:
        times = f"{ms_text(node.transfer_ms)} transfer, {ms_text(node.cloud_ms)} cloud"
        lines.append(f"to the cloud at {handover_text(node.handover)}; {times}")
    if node.leaf is not None:
        lines.append(f"leaf {node.id}: {leaf_text(node.leaf)}")
    return lines


def _without_layers(node: Node) -> str:
    if isinstance(node.fork, ExitFork):
        return "the head of an exit"
    return "no layer with weights" if node.partition else "nothing runs on the device"


def _with_last(tree: ModelTree, nodes: tuple[int, ...]) -> Iterator[tuple[Node, bool]]:
    return ((tree.nodes[i], i == nodes[-1]) for i in nodes)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of every run of consecutive numbers."""
    for _, group in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield run[0], run[-1]


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _quoted(lines: list[str], end: str = "\\l") -> str:
    """A DOT string of left-aligned lines."""
    escaped = (_one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "".join(line + end for line in escaped) + '"'
