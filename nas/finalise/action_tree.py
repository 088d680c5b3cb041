"""The base network's exits, cuts and bits as one tree: the actions that a policy chooses among [Niu 2022, eq. 6].

The tree is a spine, the network itself in the device's hands, one node from place to place. At every place it may be
left: handed over with some bits, to some exit in the cloud, or ended by an exit here. A policy takes any of these; by
bandwidth type, each type takes what is best at the bandwidth it stands for.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import nn

from modeltree.offloading.actions import tree_table
from modeltree.offloading.decisions import Decisions, Objective
from modeltree.profiles import DeviceProfile
from modeltree.tree import BandwidthFork, BitsFork, ExitFork, Fork, Handover, Leaf, ModelTree, Node
from nas.exits.catalogue import KnownEndings
from nas.finalise.tree_builder import IMAGE_BITS
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.training.block_files import write_block
from nas.treesearch.search_spaces import SearchSpaces
from runtime.wire.codec import FLOAT_BITS
from transforms import Network, values_at
from transforms.quantise import quantised

_IMAGES = 2000
_BATCH = 250
_SWEEP_MBPS = (0.0, *np.geomspace(0.05, 1000.0, 200).tolist())

Batch = tuple[torch.Tensor, np.ndarray]


class Chosen(NamedTuple):
    """An action a = (exit, cut, bits); the last exit is the network's end.

    Nothing is sent where the cut is at the exit, and `bits` is 32 then.
    """

    exit: int
    cut: int
    bits: int


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """Exported blocks: (start, stop) of the spine, heads by exit, rests by (cut, exit)."""

    spine: Mapping[tuple[int, int], str] = field(default_factory=dict)
    heads: Mapping[int, str] = field(default_factory=dict)
    rests: Mapping[tuple[int, int], str] = field(default_factory=dict)


class ActionCatalogue:
    """All actions of a base network with its exits and codes; one that is plain gives cuts alone."""

    def __init__(self, prepared: Prepared, spaces: SearchSpaces, head: ModelTree) -> None:
        """head : a tree of the same search, for what every tree of it says of itself."""
        self.prepared, self.spaces, self.header = prepared, spaces, head
        self.endings: KnownEndings = spaces.tree.endings
        self.network: Network = spaces.network
        self.last = len(self.network.spec.segments)
        self.exits = (*(known.place for known in self.endings.exits), self.last)
        bits = sorted({known.bits for known in self.endings.codes if not known.kept})
        self.actions = [
            Chosen(number, cut, width)
            for number, place in enumerate(self.exits, 1)
            for cut in range(place + 1)
            for width in self._widths(cut, place, bits)
        ]

    @staticmethod
    def _widths(cut: int, place: int, bits: Sequence[int]) -> tuple[int, ...]:
        if cut == place:
            return (FLOAT_BITS,)
        return (*bits, FLOAT_BITS) if cut else (IMAGE_BITS,)

    def measure(self, seed: int, progress: Progress) -> dict[str, list[float]]:
        """Accuracy in percent of every action, each through its code and its exit, on `search` and on `test` images.

        The first are for choosing, the second for saying what was chosen; up to 2000 of each.
        """
        test = self.prepared.dataset.test
        chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:_IMAGES])
        parts = np.array_split(chosen, -(-len(chosen) // _BATCH))
        shown = [(self.prepared.dataset.normalise(np.asarray(test.images[p])), test.truth[p]) for p in parts]
        images, labels = self.prepared.search_images(seed)
        judged = list(zip(images.split(_BATCH), np.split(labels, range(_BATCH, len(labels), _BATCH)), strict=True))
        total = len(judged) + len(shown)

        def told(batches: Iterable[Batch], before: int) -> Iterator[Batch]:
            for done, batch in enumerate(batches, before + 1):
                yield batch
                progress(done, total, "exits, cuts and bits")

        return {"search": self._right(told(judged, 0)), "test": self._right(told(shown, len(judged)))}

    def _right(self, batches: Iterable[Batch]) -> list[float]:
        right, count = dict.fromkeys(self.actions, 0.0), 0
        with torch.no_grad():
            for images, labels in batches:
                for action, logits in self._logits(images, right):
                    right[action] += float(self.prepared.measure.scores(logits, labels).sum())
                count += len(labels)
        return [100.0 * right[action] / max(count, 1) for action in self.actions]

    def _logits(self, images: torch.Tensor, right: Collection[Chosen]) -> list[tuple[Chosen, torch.Tensor]]:
        """Every action on a batch; those that differ in nothing but the exit share the way there."""
        answers = []
        spine = values_at(self.network, images, range(self.last + 1))
        for cut, width in dict.fromkeys((action.cut, action.bits) for action in self.actions):
            coded = cut > 0 and width < FLOAT_BITS
            crossing = quantised(spine[cut], width) if coded else spine[cut]
            numbers = {p: n for n, p in enumerate(self.exits, 1) if Chosen(n, cut, width) in right}
            for place, x in values_at(self.network, crossing, numbers, start=cut).items():
                logits = x if place == self.last else self.endings.heads[place](x)
                answers.append((Chosen(numbers[place], cut, width), logits))
        return answers

    def tree(
        self, judged: Sequence[float], actions: Sequence[Chosen], *, shown: Sequence[float] | None = None,
        exported: Hashes | None = None,
    ) -> ModelTree:  # fmt: skip
        """The tree of some actions, with everything on the device always among them.

        judged, shown : accuracies by which bandwidth types choose, and those of the leaves (the same by default).
        """
        known = dict(zip(self.actions, judged))
        end = Chosen(len(self.exits), self.last, FLOAT_BITS)
        offered = sorted({*actions, end}, key=lambda action: (action.cut, action.exit, action.bits))
        cuts = sorted({0, self.last, *(action.cut for action in offered)})
        hashes = exported or Hashes()
        nodes: list[Node] = []
        parent: int | None = None
        for level, (start, stop) in enumerate(itertools.pairwise(cuts)):
            here = [action for action in offered if action.cut == start]
            nodes += [self._leaves(len(nodes) + i, level, parent, a, known[a], hashes) for i, a in enumerate(here)]
            nodes.append(self._on(len(nodes), level, parent, (start, stop), known[end], hashes, ends=stop == self.last))
            parent = nodes[-1].id
        by_parent: dict[int | None, list[int]] = {}
        for node in nodes:
            by_parent.setdefault(node.parent, []).append(node.id)
        linked = [msgspec.structs.replace(node, children=tuple(by_parent.get(node.id, ()))) for node in nodes]
        plain = msgspec.structs.replace(
            self.header, nodes=tuple(linked), places=tuple(cuts), exits=tuple(self.exits[:-1])
        )
        tree = self._by_type(plain)
        if shown is None:
            return tree
        logits_of = dict(zip(self.actions, shown))
        table = tree_table(tree)
        keys = zip(table.leaf.tolist(), table.exit.tolist(), table.cut.tolist(), table.bits.tolist())
        by_leaf = {leaf: logits_of[Chosen(exit, cut, bits)] for leaf, exit, cut, bits in keys}
        return msgspec.structs.replace(tree, nodes=tuple(_worth(node, by_leaf.get(node.id)) for node in tree.nodes))

    def export(self, actions: Sequence[Chosen], folder: Path) -> Hashes:
        """Write the blocks that some actions need to `folder`."""
        spec = self.network.spec
        cuts = sorted({0, self.last, *(action.cut for action in actions)})
        spine = {
            (start, stop): write_block(self.network.between(start, stop).eval(), spec.places[start].shape, folder)
            for start, stop in itertools.pairwise(cuts)
        }
        heads, rests = {}, {}
        for number, cut, _ in actions:
            place = self.exits[number - 1]
            if cut < place:
                rests[cut, number] = write_block(self._to(cut, number), spec.places[cut].shape, folder)
            elif place < self.last:
                heads[number] = write_block(self.endings.heads[place].eval(), spec.places[place].shape, folder)
        return Hashes(spine=spine, heads=heads, rests=rests)

    def _to(self, cut: int, number: int) -> nn.Module:
        """The network from a cut to an exit."""
        place = self.exits[number - 1]
        rest: nn.Module = self.network.between(cut, place)
        return (rest if place == self.last else nn.Sequential(rest, self.endings.heads[place])).eval()

    def _ms(self, device: DeviceProfile, start: int, number: int) -> float:
        """Time from a place to an exit, head included."""
        place = self.exits[number - 1]
        head = () if place == self.last else self.endings.exits[number - 1].layers
        return device.compute_ms([*self.network.spec.layers(start, place), *head])

    def _on(
        self, number: int, level: int, parent: int | None, between: tuple[int, int], accuracy: float, hashes: Hashes, *,
        ends: bool,
    ) -> Node:  # fmt: skip
        """The next piece of the spine."""
        scenario = self.spaces.scenario
        return Node(
            id=number, level=level, parent=parent, fork=BandwidthFork(types=tuple(range(scenario.types.count))),
            partition=1, segments=1, actions=(),
            device_ms=scenario.device.compute_ms(self.network.spec.layers(*between)),
            block=hashes.spine.get(between, ""), leaf=_leaf(accuracy, chance=1.0) if ends else None,
        )  # fmt: skip

    def _leaves(
        self, number: int, level: int, parent: int | None, action: Chosen, accuracy: float, hashes: Hashes
    ) -> Node:
        """A way to leave the spine."""
        scenario, spec = self.spaces.scenario, self.network.spec
        exit, cut, bits = action
        if cut == self.exits[exit - 1]:
            return Node(
                id=number, level=level, parent=parent, fork=ExitFork(exit=exit), partition=0, segments=1, actions=(),
                device_ms=self._ms(scenario.device, cut, exit), block=hashes.heads.get(exit, ""), leaf=_leaf(accuracy),
            )  # fmt: skip
        coded = next((k for k in self.endings.codes_at(cut) if k.bits == bits and not k.kept), None)
        size = round(coded.bytes) if coded else spec.places[cut].bytes
        numbers = int(np.prod(spec.places[cut].shape)) if coded else 0
        fork: Fork = BitsFork(types=(), bits=bits) if coded else BandwidthFork(types=())
        return Node(
            id=number, level=level, parent=parent, fork=fork, partition=0, segments=1, actions=(),
            device_ms=scenario.device.codec_ms(numbers),
            transfer_ms=float(np.mean([scenario.transfer.ms(size, b) for b in scenario.types.representative_mbps])),
            cloud_ms=self._ms(scenario.cloud, cut, exit) + scenario.cloud.codec_ms(numbers),
            handover=Handover(
                place=cut, shape=spec.places[cut].shape, bytes=size, bits=bits,
                exit=exit if exit < len(self.exits) else 0,
                block=hashes.rests.get((cut, exit), ""), device_ms=self._ms(scenario.device, cut, exit),
            ),
            leaf=_leaf(accuracy),
        )  # fmt: skip

    def _by_type(self, tree: ModelTree) -> ModelTree:
        """The same tree, every bandwidth type taking the action that is best for it by [Wang 2020, eq. 7]."""
        table = tree_table(tree)
        decisions = Decisions(table=table, rtt_ms=tree.rtt_ms, objective=tree.reward)
        taken = {k: int(table.leaf[decisions.best(b)]) for k, b in enumerate(tree.types.representative_mbps)}
        nodes: list[Node] = []
        chance: dict[int | None, float] = {None: 1.0}
        for siblings in _siblings(tree):
            spine = siblings[-1]
            left = [k for k in range(tree.types.count) if taken[k] not in {s.id for s in siblings[:-1]}]
            for node in siblings:
                mine = tuple(left if node is spine else (k for k in taken if taken[k] == node.id))
                chance[node.id] = chance[node.parent] * sum(tree.types.initial[k] for k in mine)
                leaf = node.leaf and msgspec.structs.replace(
                    node.leaf, chance=chance[node.id],
                    latency_ms=sum(n.device_ms for n in tree.path(node.id)) + node.transfer_ms + node.cloud_ms,
                )  # fmt: skip
                fork = msgspec.structs.replace(node.fork, types=mine)
                nodes.append(msgspec.structs.replace(node, fork=fork, leaf=leaf))
        return msgspec.structs.replace(tree, nodes=tuple(nodes))


def worth_having(tree: ModelTree) -> list[Chosen]:
    """The actions of a tree that are best at some bandwidth, by Niu's reward or by Wang's, in the order of its leaves.

    Every exit on the device, and the image as it is to the cloud, are among them.
    """
    table = tree_table(tree)
    chosen: set[int] = set()
    for objective in (Objective(), tree.reward):
        decisions = Decisions(table=table, rtt_ms=tree.rtt_ms, objective=objective)
        chosen |= {decisions.best(mbps) for mbps in _SWEEP_MBPS}
    every = [Chosen(*map(int, row)) for row in zip(table.exit, table.cut, table.bits)]
    exits = (*tree.exits, tree.places[-1])
    chosen |= {i for i, action in enumerate(every) if action.cut == exits[action.exit - 1]}
    whole = Chosen(len(exits), 0, IMAGE_BITS)
    return [action for i, action in enumerate(every) if i in chosen or action == whole]


def _worth(node: Node, accuracy: float | None) -> Node:
    if node.leaf is None or accuracy is None:
        return node
    return msgspec.structs.replace(node, leaf=msgspec.structs.replace(node.leaf, accuracy=accuracy))


def _siblings(tree: ModelTree) -> list[list[Node]]:
    """Nodes of each level; the spine's is the last of them."""
    levels = max(node.level for node in tree.nodes) + 1
    return [[node for node in tree.nodes if node.level == level] for level in range(levels)]


def _leaf(accuracy: float, chance: float = 0.0) -> Leaf:
    return Leaf(chance=chance, latency_ms=0.0, accuracy=accuracy, accuracy_origin="measured")
