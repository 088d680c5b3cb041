"""The part of a tree that needs no cloud: where the device goes when it must, or wants to, answer alone."""

from collections.abc import Callable

from modeltree.tree import ExitFork, ModelTree, Node


class Staying:
    """For every node, whether a path below it ends on the device."""

    def __init__(self, tree: ModelTree) -> None:
        self._tree = tree
        self._stays = [node.leaf is not None and node.handover is None for node in tree.nodes]
        for node in reversed(tree.nodes):
            self._stays[node.id] |= any(self._stays[child] for child in node.children)

    def child(self, here: int | None, bandwidth_type: int) -> Node:
        """The fork that leads to an end on the device and is of the nearest type, the slower of two.

        Where none does, the fork of the bandwidth type; the rest behind its hand-over then runs here.
        """
        tree = self._tree
        staying = []
        for one in tree.roots if here is None else tree.nodes[here].children:
            fork = tree.nodes[one].fork
            if self._stays[one] and not isinstance(fork, ExitFork):
                staying.append((min((abs(kind - bandwidth_type), kind) for kind in fork.types), one))
        return tree.nodes[min(staying)[1]] if staying else tree.child(here, bandwidth_type)

    def seconds(self, here: int | None, bandwidth_type: int, within_s: Callable[[str], float]) -> float:
        """What follows a node, done here on the forks that `child` takes.

        within_s : seconds of a block or rest.
        """
        total_s = 0.0
        while True:
            node = self.child(here, bandwidth_type)
            total_s += within_s(node.block) if node.block else 0.0
            if node.handover is not None:
                return total_s + within_s(node.handover.block)
            if node.leaf is not None:
                return total_s
            here = node.id
