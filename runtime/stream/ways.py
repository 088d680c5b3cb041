"""The ways that a bundle's tree offers a task: every exit and cut as blocks to run here and what the server runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from modeltree.offloading.actions import tree_table
from modeltree.streams.costs import ActionTable, Line
from modeltree.tree import Handover, ModelTree, by_confidence

_WORST_PERCENT, _BEST_PERCENT = 0.1, 99.9


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a task may be answered; one row of the action table.

    leaf : of the tree. exit, cut, bits : as in `modeltree.offloading.actions`. accuracy : 0..1.
    blocks : that the device runs, in order. handover : what then crosses; None where the device does it all.
    """

    leaf: int
    exit: int
    cut: int
    bits: int
    accuracy: float
    blocks: tuple[str, ...]
    handover: Handover | None


def ways_of(tree: ModelTree) -> tuple[Way, ...]:
    """All leaves of a tree, but those taken by confidence. Leaves that differ in the fork alone are one way.

    Raises
    ------
    ConfigError : none of them ends on the device, so that nothing is left when the server is not there.
    """
    table = tree_table(tree)
    leaves = [leaf for leaf in tree.leaves() if not by_confidence(leaf)]
    found: dict[object, Way] = {}
    for row, leaf in enumerate(leaves):
        blocks = tuple(node.block for node in tree.path(leaf.id) if node.block)
        rest = leaf.handover.block if leaf.handover else ""
        way = Way(
            leaf=leaf.id, exit=int(table.exit[row]), cut=int(table.cut[row]), bits=int(table.bits[row]),
            accuracy=float(np.clip(table.accuracy[row], _WORST_PERCENT, _BEST_PERCENT)) / 100, blocks=blocks,
            handover=leaf.handover,
        )  # fmt: skip
        found.setdefault((blocks, rest, way.bits), way)
    ways = tuple(sorted(found.values(), key=lambda way: (way.exit, way.cut, way.bits)))
    if not any(way.handover is None for way in ways):
        raise ConfigError("no path of the tree ends on the device: a stream needs one for when the server is gone")
    return ways


def action_table(
    ways: Sequence[Way], device_ms: Sequence[Line], server_ms: Sequence[Line], sent_bytes: Sequence[Line]
) -> ActionTable:
    """Ways and their lines as actions, action 0 in front: action i is `ways[i - 1]`."""
    columns: dict[str, np.ndarray] = {
        "exit": np.array([0, *(way.exit for way in ways)]),
        "cut": np.array([0, *(way.cut for way in ways)]),
        "accuracy": np.array([0.0, *(way.accuracy for way in ways)]),
        "on_device": np.array([True, *(way.handover is None for way in ways)]),
    }
    for name, lines in (("device", device_ms), ("server", server_ms), ("sent", sent_bytes)):
        columns[f"{name}_k"] = np.array([0.0, *(line.k for line in lines)])
        columns[f"{name}_b"] = np.array([0.0, *(line.b for line in lines)])
    return ActionTable(**columns)
