"""The leaf that is worth most by what was met: blocks, coding, server and link as they are, not as the tree was told.

The types of the bandwidth are of no account here: of all leaves below a node the one with the highest reward
[Wang 2020, eq. 7] is gone for. What crosses is valued over all that the bandwidth may be, by the estimator's own record
of errors, not as if the estimate were right, and at no more than it costs to go on alone. What a leaf hands over is
done here where that is the faster, so that no tree is bound to a server that is slower than it was told. The leaf of
the inference before is kept unless another is clearly worth more.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modeltree.offloading.actions import tree_table
from modeltree.reward import Reward
from modeltree.tree import ModelTree, Node
from modeltree.units import bytes_per_ms
from runtime.selection.link_state import LinkState
from runtime.selection.local_fallback import Staying

MARGIN_SHARE = 0.05
"""Of a leaf's latency, what another must save, or be worth in accuracy, to take its place."""

DEVIATIONS = (-1.2816, -0.5244, 0.0, 0.5244, 1.2816)
"""Of a normal distribution, the middles of five parts that are equally likely."""

LATE = 3.0
"""After so many times what it should take an answer is overdue, and the device goes on alone beside."""


class LinkNow(NamedTuple):
    """What is known of the link. mbps, spread : median of the bandwidth and deviation of its logarithm."""

    mbps: float
    spread: float
    rtt_ms: float


class Times(Protocol):
    """What things take here and now, in ms, as met of late; as the tree predicts where nothing was met."""

    def block_ms(self, block: str, predicted_ms: float) -> float:
        """A block, or a rest, on this device."""
        ...

    def encode_ms(self, node: Node) -> float:
        """Coding what a node hands over."""
        ...

    def server_ms(self, node: Node) -> float:
        """The server's own time for it."""
        ...

    def sent_bytes(self, node: Node) -> float:
        """What crosses."""
        ...

    def link(self, seen: LinkState) -> LinkNow | None:
        """The link now; None while nothing is known of it."""
        ...


class AsPredicted:
    """Times as a tree predicts them, on a link that is known."""

    def __init__(self, tree: ModelTree) -> None:
        self._tree = tree

    def block_ms(self, block: str, predicted_ms: float) -> float:
        return predicted_ms

    def encode_ms(self, node: Node) -> float:
        return 0.0 if node.handover is None else node.handover.encode_ms

    def server_ms(self, node: Node) -> float:
        return node.cloud_ms

    def sent_bytes(self, node: Node) -> float:
        return 0.0 if node.handover is None else node.handover.bytes

    def link(self, seen: LinkState) -> LinkNow | None:
        if math.isnan(seen.mbps):
            return None
        return LinkNow(seen.mbps, 0.0, self._tree.rtt_ms + self._tree.extra_ms)


class _Leaf(NamedTuple):
    """A leaf that can be chosen: the nodes to it, the heads on the way, and what it is worth in percent."""

    path: tuple[Node, ...]
    heads: dict[int, Node]
    accuracy: float


class ByMeasured:
    """Towards the leaf that is worth most by measured times; at every fork it weighs again what is below.

    Remembers the last inference's leaf, nothing of the one under way. Where the cloud is not to be asked, it chooses
    among the leaves on the device; where there is none, the switch's way is taken and the rest runs here.
    """

    def __init__(self, tree: ModelTree, times: Times, reward: Reward | None = None) -> None:
        self._tree, self._times, self._reward = tree, times, reward or tree.reward
        self._staying = Staying(tree)
        table = tree_table(tree)
        self._leaves = {
            int(leaf): self._known(int(leaf), float(accuracy))
            for leaf, accuracy in zip(table.leaf, table.accuracy, strict=True)
        }
        self._held: int | None = None

    def child(self, here: int | None, seen: LinkState) -> Node:
        """The next node on the way to the leaf of the highest reward."""
        below = [leaf for leaf, known in self._leaves.items() if here is None or _is_on(here, known.path)]
        if not seen.asks:
            below = [leaf for leaf in below if self._tree.nodes[leaf].handover is None]
        if not below:
            return self._staying.child(here, seen.type)
        path = self._leaves[self._chosen(here, below, seen)].path
        return path[0 if here is None else [node.id for node in path].index(here) + 1]

    def reckons_with(self, times: Times) -> None:
        """These times from now on."""
        self._times = times

    def allows(self, leaf: int) -> bool:
        """Any."""
        return True

    def goes_on_here(self, end: Node, seen: LinkState) -> bool:
        """Whether what an end hands over is better done here, where that is known to be faster."""
        assert end.handover is not None
        rest_ms, crossing_ms = self._rest_ms(end), self._crossing_ms(end, self._link(seen))
        return 0 < rest_ms < (1 - MARGIN_SHARE) * crossing_ms

    def answered(self, leaf: int, seen: LinkState, device_ms: float, radio_ms: float) -> None:
        """Held from now on, where it is one that can be chosen and the cloud could have been."""
        if leaf in self._leaves and seen.asks:
            self._held = leaf

    def _chosen(self, here: int | None, below: Sequence[int], seen: LinkState) -> int:
        link = self._link(seen)
        latency_ms = {leaf: self._latency_ms(here, self._leaves[leaf], link) for leaf in below}
        worth = {leaf: float(self._reward.of(self._leaves[leaf].accuracy, latency_ms[leaf])) for leaf in below}
        best = max(below, key=worth.__getitem__)
        held = self._held
        if held is None or held not in worth:
            return best
        margin = MARGIN_SHARE * latency_ms[held] * self._reward.per_ms
        return best if worth[best] > worth[held] + margin else held

    def _latency_ms(self, here: int | None, leaf: _Leaf, link: LinkNow) -> float:
        """What is still to be done below a node."""
        ids = [node.id for node in leaf.path]
        ahead = leaf.path[0 if here is None else ids.index(here) + 1 :]
        own_ms = 0.0
        for node in ahead:
            coding_ms = 0.0 if node.handover is None else node.handover.encode_ms
            predicted_ms = node.device_ms - coding_ms
            own_ms += self._times.block_ms(node.block, predicted_ms) if node.block else predicted_ms
            if (head := leaf.heads.get(node.id)) is not None:
                own_ms += self._times.block_ms(head.block, head.device_ms)
        end = leaf.path[-1]
        if end.handover is None:
            return own_ms
        return own_ms + min(self._crossing_ms(end, link), self._rest_ms(end) or math.inf)

    def _link(self, seen: LinkState) -> LinkNow:
        return self._times.link(seen) or LinkNow(self._tree.types.representative_mbps[0], 0.0, self._tree.rtt_ms)

    def _rest_ms(self, end: Node) -> float:
        """What follows a hand-over, done here; 0: not known."""
        assert end.handover is not None
        return self._times.block_ms(end.handover.block, end.handover.device_ms)

    def _crossing_ms(self, end: Node, link: LinkNow) -> float:
        """Coding, link and server, on average over what the bandwidth may be."""
        assert end.handover is not None
        rest_ms = self._rest_ms(end)
        fixed_ms = link.rtt_ms + self._times.server_ms(end)
        carry_ms = self._times.sent_bytes(end) / bytes_per_ms(max(link.mbps, 1e-6))
        usual_ms = fixed_ms + carry_ms * math.exp(-DEVIATIONS[0] * link.spread)
        alone_ms = LATE * usual_ms + rest_ms
        waits_ms = [min(fixed_ms + carry_ms * math.exp(-z * link.spread), alone_ms) for z in DEVIATIONS]
        return self._times.encode_ms(end) + sum(waits_ms) / len(waits_ms)

    def _known(self, leaf: int, accuracy: float) -> _Leaf:
        path = self._tree.path(leaf)
        heads = {node.id: head for node in path if (head := self._tree.confident(node.id)) is not None}
        return _Leaf(path, heads, accuracy)


def _is_on(node: int, path: Sequence[Node]) -> bool:
    """Whether a path goes on below a node."""
    return any(one.id == node for one in path[:-1])
