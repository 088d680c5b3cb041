"""From plans to a `ModelTree`, with every block exported and named by its content."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from modeltree.files import write_bytes
from modeltree.layers import LayerSpec
from modeltree.tree import Action, BandwidthFork, Handover, Leaf, ModelTree, Node
from nas.bases import fingerprint
from nas.data import Dataset
from nas.evaluate import Branch
from nas.finetune import Forest
from nas.methods import Bench
from nas.prepare import exported_bytes
from nas.problem import Block, Plan, Problem
from transforms import Network, export

IMAGE_BITS, FLOAT_BITS = 8, 32


class TreeBuilder:
    """Turns plans into trees for one bench; `names` go into every tree's header."""

    def __init__(
        self, bench: Bench, cuts: Sequence[int], dataset: Dataset, *, base: str, trace: str
    ) -> None:  # fmt: skip
        self.bench, self.cuts = bench, tuple(cuts)
        self.dataset, self.base, self.trace = dataset, base, trace

    def tree(
        self, plans: Sequence[Plan | None], accuracies: Mapping[Branch, float], origin: str,
        blocks: Mapping[Branch, str] | None = None, rests: Mapping[int, str] | None = None,
    ) -> ModelTree:  # fmt: skip
        """The tree of some plans.

        accuracies : percent per complete branch, `origin` of which is `predicted` or `measured`.
        blocks : per branch's first part, the content hash of its last node's block. rests : likewise per cut.
        """
        problem, shape = self.bench.tree.problem, self.bench.tree.problem.shape
        groups = merged(problem, plans)
        number = {group[0]: i for i, group in enumerate(groups)}
        branch: dict[int, Branch] = {-1: ()}
        chance: dict[int, float] = {-1: 1.0}
        nodes = []
        for group in groups:
            node, above = group[0], shape.parent[group[0]]
            plan, level = plans[node], shape.level[node]
            assert plan is not None
            branch[node] = (*branch[above], plan)
            siblings = list(range(shape.first[1]) if above < 0 else shape.children[above])
            chances = problem.chances(above)
            chance[node] = chance[above] * sum(chances[siblings.index(twin)] for twin in group)
            types = tuple(sorted(k for twin in group for k in problem.types(twin)))
            block = problem.blocks[level]
            transfer_ms, cloud_ms, handover = 0.0, 0.0, None
            if plan.partition < block.places:
                cloud_ms = float(block.cloud_ms[plan.partition])
                transfer_ms = problem.handover_ms(level, types, plan.partition) - cloud_ms
                handover = self._handover(block.start + plan.partition, rests or {})
            hidden = handover is not None
            children = () if hidden else tuple(number[c] for c in shape.children[node] if c in number)
            nodes.append(
                Node(
                    id=number[node],
                    level=level,
                    parent=None if above < 0 else number[above],
                    fork=BandwidthFork(types=types),
                    partition=plan.partition,
                    segments=block.places,
                    actions=self._actions(block, plan),
                    device_ms=block.device_ms(plan),
                    transfer_ms=transfer_ms,
                    cloud_ms=cloud_ms,
                    block=(blocks or {}).get(branch[node], ""),
                    handover=handover,
                    leaf=None if children else self._leaf(chance[node], branch[node], types, accuracies, origin),
                    children=children,
                )
            )
        return self._headed(nodes)

    def jpeg(self, jpeg_bytes: int, accuracy: float) -> ModelTree:
        """The tree of one node that sends the image as a JPEG."""
        problem, scenario = self.bench.tree.problem, self.bench.scenario
        types = tuple(range(scenario.types.count))
        place = self.bench.network.spec.places[0]
        device_ms = scenario.device.jpeg_ms(place.shape[1], place.shape[2])
        cloud_ms = float(problem.blocks[0].cloud_ms[0]) + scenario.cloud.jpeg_ms(place.shape[1], place.shape[2])
        times = [scenario.transfer.ms(jpeg_bytes, mbps) for mbps in scenario.types.representative_mbps]
        transfer_ms = sum(p * t for p, t in zip(scenario.types.initial, times))
        handover = Handover(place=0, shape=place.shape, bytes=jpeg_bytes, bits=IMAGE_BITS)
        leaf = Leaf(
            chance=1.0, latency_ms=device_ms + transfer_ms + cloud_ms, accuracy=accuracy, accuracy_origin="measured"
        )  # fmt: skip
        node = Node(
            id=0, level=0, parent=None, fork=BandwidthFork(types=types), partition=0,
            segments=problem.blocks[0].places, actions=(), device_ms=device_ms, transfer_ms=transfer_ms,
            cloud_ms=cloud_ms, handover=handover, leaf=leaf,
        )  # fmt: skip
        return self._headed([node])

    def _headed(self, nodes: list[Node]) -> ModelTree:
        spec, scenario = self.bench.network.spec, self.bench.scenario
        return ModelTree(
            base=self.base, input_shape=spec.input_shape, mean=self.dataset.mean, std=self.dataset.std,
            classes=self.dataset.classes, places=self.cuts,
            types=scenario.types, rtt_ms=scenario.transfer.rtt_ms, device=scenario.device.name,
            cloud=scenario.cloud.name, trace=self.trace, nodes=tuple(nodes),
        )  # fmt: skip

    def _actions(self, block: Block, plan: Plan) -> tuple[Action, ...]:
        actions = []
        for table, option in zip(block.units, plan.options):
            choice = self.bench.tree.choices[table.unit][option]
            name = self.bench.network.units[table.unit].name
            technique, rate = ("keep", 1.0) if choice is None else choice
            actions.append(Action(layer=name, technique=technique, rate=rate))
        return tuple(actions)

    def _handover(self, place: int, rests: Mapping[int, str]) -> Handover:
        at = self.bench.network.spec.places[place]
        bits = IMAGE_BITS if place == 0 else FLOAT_BITS
        spec = self.bench.network.spec
        return Handover(
            place=place, shape=at.shape, bytes=at.bytes, bits=bits, block=rests.get(place, ""),
            device_ms=self.bench.scenario.device.compute_ms(spec.layers(place, len(spec.segments))),
        )  # fmt: skip

    def _leaf(
        self, chance: float, branch: Branch, types: tuple[int, ...], accuracies: Mapping[Branch, float], origin: str
    ) -> Leaf:
        blocks, last = self.bench.tree.problem.blocks, len(branch) - 1
        latency = sum(blocks[n].device_ms(plan) for n, plan in enumerate(branch))
        if branch[-1].partition < blocks[last].places:
            latency += self.bench.tree.problem.handover_ms(last, types, branch[-1].partition)
        return Leaf(chance=chance, latency_ms=latency, accuracy=accuracies[branch], accuracy_origin=origin)


def merged(problem: Problem, plans: Sequence[Plan | None]) -> list[tuple[int, ...]]:
    """Nodes that exist, in breadth-first order, siblings that do the same all the way down taken together.

    Each group is named by its first node; the others of a group, and all below them, are not in the tree any more.
    """
    shape = problem.shape
    alike: dict[int, tuple[object, ...]] = {}
    for node in range(len(plans) - 1, -1, -1):
        alike[node] = (plans[node], *(alike[child] for child in shape.children[node]))
    groups: list[tuple[int, ...]] = []
    waiting: list[Sequence[int]] = [range(shape.first[1])]
    while waiting:
        following: list[Sequence[int]] = []
        for siblings in waiting:
            by_look: dict[tuple[object, ...], list[int]] = {}
            for node in siblings:
                if plans[node] is not None:
                    by_look.setdefault(alike[node], []).append(node)
            for group in by_look.values():
                groups.append(tuple(group))
                following.append(shape.children[group[0]])
        waiting = following
    return groups


def export_blocks(
    network: Network, forest: Forest, branches: Sequence[Branch], folder: Path
) -> tuple[dict[Branch, str], dict[int, str]]:
    """Write every device block and cloud rest of some complete branches to `folder/<hash>.pt2`, each content once.

    Returns the hashes, per first part of a branch and per place of hand-over.
    """
    blocks: dict[Branch, str] = {}
    rests: dict[int, str] = {}
    spec = network.spec
    for branch in branches:
        for depth in range(1, len(branch) + 1):
            prefix = branch[:depth]
            start, stop = forest.start(prefix), forest.places[prefix]
            if prefix not in blocks and stop > start:
                blocks[prefix] = _write(forest.node(prefix), spec.places[start].shape, folder)
        end = forest.places[branch]
        if end < len(spec.segments) and end not in rests:
            rests[end] = _write(forest.cloud[end], spec.places[end].shape, folder)
    return blocks, rests


def content_hash(module: nn.Module) -> str:
    """sha256, in hex (20 digits), of a block's code and weights."""
    code = getattr(module, "code", "") + repr(module)
    return hashlib.sha256((code + fingerprint(module)).encode()).hexdigest()[:20]


def _write(module: nn.Module, shape: tuple[int, ...], folder: Path) -> str:
    name = content_hash(module)
    path = folder / f"{name}.pt2"
    if not path.exists():
        with torch.no_grad():
            write_bytes(path, exported_bytes(export(module, shape)))
    return name


def layers_of(network: Network) -> list[LayerSpec]:
    """Layers with weights of the base network, in order."""
    return [layer for item in network.spec.items for layer in item.layers if layer.op in ("conv", "fc")]
