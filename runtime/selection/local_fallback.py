"""The part of a tree that needs no cloud: where the device goes when it must, or wants to, answer alone."""

from modeltree.tree import ModelTree, Node


class Staying:
    """For every node, whether forks of bandwidth types lead from it to an end on the device, early exits included.

    Exits by confidence are no such ends, for nobody knows who will be sure; what only a policy takes is none either.
    """

    def __init__(self, tree: ModelTree) -> None:
        self._tree = tree
        self._stays = [node.leaf is not None and node.handover is None for node in tree.nodes]
        for node in reversed(tree.nodes):
            self._stays[node.id] |= any(self._stays[child.id] and child.fork.types for child in tree.after(node.id))

    def child(self, here: int | None, bandwidth_type: int) -> Node:
        """The fork that leads to an end on the device and is of the nearest type, the slower of two.

        Where none does, the fork of the bandwidth type; the rest behind its hand-over then runs here.
        """
        staying = []
        for one in self._tree.after(here):
            if self._stays[one.id] and one.fork.types:
                staying.append((min((abs(kind - bandwidth_type), kind) for kind in one.fork.types), one.id))
        return self._tree.nodes[min(staying)[1]] if staying else self._tree.child(here, bandwidth_type)
