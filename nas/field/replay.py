"""From measured inferences to what the tree should have foretold: measured means per path, and the replayed tree. Pure.

A path answers *as planned* where the cloud answered what it hands over, and the device what it does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from modeltree.link.traces import Trace
from modeltree.manifest import Manifest
from modeltree.tree import BitsFork, ExitFork, ModelTree, Node
from modeltree.tree.emulate import emulate, link_ms
from modeltree.tree.render import path_text
from modeltree.units import s_from_ms
from nas.field.record import Leaf, MethodRun, Shot
from runtime.selection.branch_selection import SWITCH, on_known_links


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What one method's turn brought beside its shots.

    blocks_ms : block -> every time that it took here. outputs : logits of every shot where they were asked for.
    """

    shots: tuple[Shot, ...]
    blocks_ms: dict[str, tuple[float, ...]]
    outputs: tuple[tuple[float, ...], ...] = ()


def method_run(
    name: str, bundle: str, manifest: Manifest, measured: Measured, trace: Trace, policy: str = SWITCH
) -> tuple[MethodRun, ModelTree]:
    """A method's record, and its tree with measured parts, which the oracle chooses from.

    trace : the link that was played; its round trip replaces the tree's, for it is no prediction of the tree's.
    policy : what drove the session, and drives the emulations.
    """
    tree = msgspec.structs.replace(manifest.tree, rtt_ms=trace.rtt_ms)
    replayed = replayed_tree(tree, measured, trace)
    starts_s = np.array([shot.start_s for shot in measured.shots])
    emulated, again = (
        emulate(one, trace, starts_s=starts_s, choose=on_known_links(one, policy)).latency_ms.tolist()
        for one in (tree, replayed)
    )
    run = MethodRun(
        name=name, bundle=bundle, shots=measured.shots, leaves=leaves_of(tree, measured.shots, trace),
        emulated_ms=tuple(emulated), replayed_ms=tuple(again),
    )  # fmt: skip
    return run, replayed


def replayed_tree(tree: ModelTree, measured: Measured, trace: Trace) -> ModelTree:
    """The tree with the measured means of its blocks, of the cloud's answers and of the round trip.

    The round trip is what transfers took beyond the time in which the trace carries their bytes.
    A block that never ran keeps its prediction, scaled by measured over predicted of all blocks that did (summed); so
    do rests that the cloud never ran. Where nothing of a kind was measured its predictions stay as they are.
    """
    device_ms = {block: mean(times) for block, times in measured.blocks_ms.items() if times}
    own = [(node.device_ms, device_ms[node.block]) for node in tree.nodes if node.block in device_ms]
    device_scale = _scale(own)
    cloud_ms: dict[str, list[float]] = {}
    rtt_ms: list[float] = []
    for shot in measured.shots:
        end = tree.nodes[shot.nodes[-1]] if shot.nodes else None
        if end is not None and end.handover is not None and shot.answered_by == "cloud":
            cloud_ms.setdefault(end.handover.block, []).append(shot.cloud_ms)
            sent_s = shot.start_s + s_from_ms(shot.device_ms + shot.encode_ms)
            above_ms = trace.rtt_at(sent_s) - trace.rtt_ms
            rtt_ms.append(shot.transfer_ms - above_ms - trace.transfer_ms(end.handover.bytes, sent_s))
    cloud_scale = _scale(
        (node.cloud_ms, mean(cloud_ms[node.handover.block]))
        for node in tree.nodes
        if node.handover is not None and node.handover.block in cloud_ms
    )

    def played(node: Node) -> Node:
        own_ms = device_ms.get(node.block, device_scale * node.device_ms)
        far_ms = node.cloud_ms
        if node.handover is not None:
            seen = cloud_ms.get(node.handover.block)
            far_ms = cloud_scale * node.cloud_ms if seen is None else mean(seen)
        return msgspec.structs.replace(node, device_ms=own_ms if node.block else 0.0, cloud_ms=far_ms)

    measured_rtt_ms = max(0.0, mean(rtt_ms)) if rtt_ms else tree.rtt_ms
    return msgspec.structs.replace(tree, nodes=tuple(map(played, tree.nodes)), rtt_ms=measured_rtt_ms)


def leaves_of(tree: ModelTree, shots: Sequence[Shot], trace: Trace) -> tuple[Leaf, ...]:
    """Every path with its predictions and, over the shots that it answered as planned, measured means."""
    return tuple(_leaf(tree, end, shots, trace) for end in tree.leaves())


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def _leaf(tree: ModelTree, end: Node, shots: Sequence[Shot], trace: Trace) -> Leaf:
    assert end.leaf is not None
    path = tree.path(end.id)
    taken = [shot for shot in shots if shot.nodes and shot.nodes[-1] == end.id]
    planned = [shot for shot in taken if shot.answered_by == ("device" if end.handover is None else "cloud")]
    heads = [head for node in path[:-1] if (head := tree.confident(node.id)) is not None and head.id != end.id]
    device_ms, transfer_ms = sum(node.device_ms for node in (*path, *heads)), 0.0
    if end.handover is not None and shots:
        at_s = [shot.start_s + s_from_ms(device_ms) for shot in taken or shots]
        transfer_ms = mean([link_ms(tree, trace, end.handover.bytes, one_s) for one_s in at_s])
    crossed = planned if end.handover is not None else []
    return Leaf(
        leaf=end.id, text=path_text(path), accuracy=end.leaf.accuracy, shots=len(taken), device_predicted_ms=device_ms,
        transfer_predicted_ms=transfer_ms, cloud_predicted_ms=end.cloud_ms,
        device_ms=mean([shot.device_ms for shot in planned]) if planned else None,
        transfer_ms=mean([shot.transfer_ms for shot in crossed]) if crossed else None,
        cloud_ms=mean([shot.cloud_ms for shot in crossed]) if crossed else None,
        exit=end.fork.exit if isinstance(end.fork, ExitFork) else end.handover.exit or None if end.handover else None,
        bits=end.fork.bits if isinstance(end.fork, BitsFork) else None,
    )  # fmt: skip


def _scale(pairs: Iterable[tuple[float, float]]) -> float:
    """Measured over predicted, of (predicted, measured); 1 where nothing was predicted."""
    found = list(pairs)
    predicted = sum(one for one, _ in found)
    return sum(two for _, two in found) / predicted if predicted > 0 else 1.0
