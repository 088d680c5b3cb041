"""The picture ladder: more ways to send the picture, as leaves of the handed-over tree that a policy alone takes.

A type of the bandwidth stands for a whole range of it and has one leaf. To send the picture in one more code costs a
line in the tree, for the server runs the same network whatever the code. So every code that is best somewhere between
the slowest and the fastest type becomes a leaf at the root without types, of chance 0: what weighs by the bandwidth as
it is (`measured`, `exact`, a trained policy) may take it, as a player takes a rung of a bitrate ladder, and the switch
[Wang 2020, alg. 2] does not.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from modeltree.image_codes import image_code
from modeltree.offloading.actions import tree_table
from modeltree.tree import ModelTree, Node, version_of
from nas.config import SearchConfig
from nas.finalise.choice import TIE
from nas.finalise.finetune import Forest
from nas.finalise.measurement import Batch, measured_as_sent
from nas.finalise.tree_builder import TreeBuilder, export_blocks
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.treesearch.evaluator import PathOutcome, PlanPath
from nas.treesearch.problem import Plan, guarded
from nas.treesearch.search_spaces import SearchSpaces

_STEPS = 64
"""Bandwidths that are tried, evenly in their logarithm."""

Sent = Mapping[str, tuple[float, float]]
"""Code -> percent right, by the base network, of the search and of the test images as a server sees them."""


class Measured(NamedTuple):
    """What the handed-over tree is by the search images, and the base network's percent of them right."""

    tree: ModelTree
    base: float


def picture_ladder(
    config: SearchConfig, prepared: Prepared, spaces: SearchSpaces, builder: TreeBuilder, known: Measured,
    judged: Batch, blocks: Path, progress: Progress, kept: Callable[[Callable[[], Sent]], Sent],
) -> list[Node]:  # fmt: skip
    """The rungs that pay on the links a tree was searched for, measured and exported.

    None where no picture may cross, or where energy is limited, which nothing would hold a rung to. Chosen by the
    accuracy on the probe images, then by that on the search images, and guarded as in the search.

    kept : keeps what was measured for a search that goes on later.
    """
    if config.energy_mj is not None:
        return []
    problem = spaces.tree.problem
    drops = {one.code: one.drop for one in spaces.tree.endings.pictures if one.code in config.offered_codes}
    paths: dict[str, PlanPath] = {
        ending.picture: (Plan(0, (), number),)
        for number, ending in enumerate(problem.blocks[0].endings[0])
        if ending.picture in drops
    }

    def chosen(accuracy: Mapping[str, float]) -> list[str]:
        codes = [code for code in paths if code in accuracy]
        rungs = [builder.rung(paths[code], _right(accuracy[code])) for code in codes]
        guard = partial(guarded, base=known.base, max_loss=config.max_loss)
        return [codes[i] for i in worth_adding(known.tree, rungs, guard)]

    likely = chosen({code: known.base - drop for code, drop in drops.items()})
    if not likely:
        return []
    seen = kept(lambda: measured_as_sent(prepared, judged, list(map(image_code, likely)), progress))
    final = {code: paths[code] for code in chosen({code: seen[code][0] for code in likely})}
    forest = Forest(spaces.network, spaces.tree, spaces.library, dict.fromkeys(final.values(), 0.0))
    exported = export_blocks(spaces.network, forest, list(final.values()), blocks)
    return [builder.rung(path, _right(seen[code][1]), exported) for code, path in final.items()]


def worth_adding(
    tree: ModelTree, rungs: Sequence[Node], guard: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> list[int]:
    """Which rungs are the best there is at some bandwidth between the tree's types, by more than a tie over the tree.

    At every round trip that a type has. guard : what accuracies, (leaves,) in percent, are taken for.
    """
    if not rungs:
        return []
    table = tree_table(with_rungs(tree, rungs))
    first = len(tree.roots)
    rung = (table.leaf >= first) & (table.leaf < first + len(rungs))
    slowest, *_, fastest = (*tree.types.representative_mbps, tree.types.representative_mbps[-1])
    links = itertools.product(np.geomspace(slowest, fastest, _STEPS), set(tree.types.rtt_ms) or {tree.rtt_ms})
    found: set[int] = set()
    for mbps, rtt_ms in links:
        worth = tree.reward.of(guard(table.accuracy), table.latency_ms(float(mbps), rtt_ms + tree.extra_ms))
        best = int(worth.argmax())
        if rung[best] and worth[best] > worth[~rung].max() + TIE:
            found.add(int(table.leaf[best]) - first)
    return sorted(found)


def with_rungs(tree: ModelTree, rungs: Sequence[Node]) -> ModelTree:
    """The tree with more leaves at its root, behind those that it has there."""
    first, count = len(tree.roots), len(rungs)

    def moved(number: int) -> int:
        return number if number < first else number + count

    nodes = [
        msgspec.structs.replace(
            node, id=moved(node.id), parent=None if node.parent is None else moved(node.parent),
            children=tuple(map(moved, node.children)),
        )
        for node in tree.nodes
    ]  # fmt: skip
    nodes[first:first] = [msgspec.structs.replace(rung, id=first + number) for number, rung in enumerate(rungs)]
    return msgspec.structs.replace(
        tree, nodes=tuple(nodes), version=max(tree.version, version_of(nodes, tree.types))
    )  # fmt: skip


def _right(accuracy: float) -> PathOutcome:
    return PathOutcome(accuracy, 1.0)
