"""Leaving early: how sure a head is of a sample, and which exits can still be in time.

An answer of the device is a row of blocks to run on a tensor that is at hand: the rest behind a hand-over, the way to
an exit, or nothing at all where a head has spoken already.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modeltree.tree import ExitFork, ModelTree, Node
from runtime.images import Entry


def entropies_nats(logits: np.ndarray) -> np.ndarray:
    """How unsure each answer is: the entropy of its softmax, 0 where one class has it all.

    With z = logits - max, p = e^z / sum e^z:  H = log sum e^z - sum p z, so that no exponential overflows.

    Parameters
    ----------
    logits : (n, classes), float.

    Returns
    -------
    (n,) float64, each from 0 to the logarithm of the number of classes.
    """
    z = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(z)
    total = powers.sum(axis=1, dtype=np.float64)
    return np.asarray(np.log(total) - (powers * z).sum(axis=1, dtype=np.float64) / total)


def entropy_nats(logits: np.ndarray) -> float:
    """`entropies_nats` of one answer: logits of any shape."""
    return float(entropies_nats(logits.reshape(1, -1))[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Onward:
    """A way to an answer on the device.

    blocks : to run one after the other. x : what the first takes; without blocks, the answer itself.
    path : of the leaf it leads to; behind a hand-over, of the node that hands over.
    within_s : seconds in which it is almost surely done.
    """

    blocks: tuple[str, ...]
    x: np.ndarray | Entry
    path: tuple[Node, ...]
    within_s: float

    @property
    def end(self) -> Node:
        """The leaf."""
        return self.path[-1]

    @property
    def leaves(self) -> bool:
        """Whether it ends elsewhere than the cloud would: it is no rest behind a hand-over."""
        return self.end.handover is None


class Leaving:
    """The ends on the device of a tree with early exits, for one who has no time; none where it has no exits."""

    def __init__(self, tree: ModelTree) -> None:
        ends = [node for node in tree.leaves() if node.handover is None] if tree.exits else []
        self._last = len(tree.exits) + 1
        self._paths = [tree.path(end.id) for end in sorted(ends, key=self._rank, reverse=True)]

    def latest(
        self, here: int | None, x: np.ndarray | Entry, left_s: float, within_s: Callable[[str], float],
        allows: Callable[[int], bool] = lambda leaf: True,
    ) -> Onward | None:  # fmt: skip
        """The latest exit, the end of the network being the last, that is reached in time below a node, which gave `x`.

        A head that others leave through by confidence answers whatever its confidence. Of equally late ones it is the
        most accurate. x : (1, *shape). allows : whether a path may end at a leaf.
        """
        for path in self._paths:
            ids = [node.id for node in path]
            if here is None or here in ids[:-1]:
                blocks = tuple(node.block for node in path[0 if here is None else ids.index(here) + 1 :] if node.block)
                needed_s = sum(map(within_s, blocks))
                if needed_s <= left_s and allows(path[-1].id):
                    return Onward(blocks=blocks, x=x, path=path, within_s=needed_s)
        return None

    def later(self, one: Onward | None, other: Onward | None) -> Onward | None:
        """The one that leads to the later exit; None is earlier than any."""
        return max((way for way in (one, other) if way), key=lambda way: self._rank(way.end), default=None)

    def _rank(self, end: Node) -> tuple[int, float]:
        assert end.leaf is not None
        return end.fork.exit if isinstance(end.fork, ExitFork) else self._last, end.leaf.accuracy


def end_text(end: Node) -> str:
    """Where a path ends on the device, in words."""
    return f"left through exit {end.fork.exit}" if isinstance(end.fork, ExitFork) else "the path ends on the device"
