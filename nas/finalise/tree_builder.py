"""From plans to a `ModelTree`, with every block exported and named by its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from modeltree.layers import LayerSpec
from modeltree.tree import Action, BandwidthFork, BitsFork, ExitFork, Fork, Handover, Leaf, ModelTree, Node, version_of
from nas.finalise.finetune import Forest, Rest
from nas.quality.measure import TOP1
from nas.training.base_network import Prepared
from nas.training.block_files import write_block
from nas.treesearch.evaluator import PathOutcome, PlanPath
from nas.treesearch.problem import ABSORBED, CONFIDENT, EXIT, HAND, Block, Ending, Plan, Problem
from nas.treesearch.search_spaces import SearchSpaces
from runtime.wire.codec import FLOAT_BITS
from transforms import Network

IMAGE_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Content hashes of what was exported.

    blocks, heads : per branch's first part, of its last node's block, and of the head by whose confidence samples leave
    there. rests : of what the cloud runs.
    """

    blocks: Mapping[PlanPath, str] = field(default_factory=dict)
    heads: Mapping[PlanPath, str] = field(default_factory=dict)
    rests: Mapping[Rest, str] = field(default_factory=dict)


class TreeBuilder:
    """Turns plans into trees for one spaces; `names` go into every tree's header."""

    def __init__(
        self, spaces: SearchSpaces, cuts: Sequence[int], prepared: Prepared, *, base: str, trace: str
    ) -> None:  # fmt: skip
        self.spaces, self.cuts = spaces, tuple(cuts)
        self.prepared, self.base, self.trace = prepared, base, trace

    def tree(
        self,
        plans: Sequence[Plan | None],
        outcomes: Mapping[PlanPath, PathOutcome],
        origin: str,
        exported: Exported | None = None,
    ) -> ModelTree:
        """The tree of some plans.

        seen : accuracy per branch, and how many leave where they may; `origin` is `predicted` or `measured`.
        """
        grown = _Growing(self, plans, outcomes, origin, exported or Exported())
        return self._headed(grown.nodes())

    def rung(self, path: PlanPath, outcome: PathOutcome, exported: Exported | None = None) -> Node:
        """A path of one node as a leaf at the root that a policy alone takes."""
        plans = [path[0] if level == 0 else None for level in self.spaces.tree.problem.shape.level]
        (node,) = _Growing(self, plans, {path: outcome}, "measured", exported or Exported()).nodes()
        assert node.leaf is not None
        leaf = msgspec.structs.replace(node.leaf, chance=0.0)
        return msgspec.structs.replace(node, fork=msgspec.structs.replace(node.fork, types=()), leaf=leaf)

    def _headed(self, nodes: list[Node]) -> ModelTree:
        spec, scenario = self.spaces.network.spec, self.spaces.scenario
        dataset, outputs, quality = self.prepared.dataset, self.prepared.outputs, self.prepared.measure.name
        return ModelTree(
            base=self.base, input_shape=spec.input_shape, mean=dataset.mean, std=dataset.std,
            classes=() if outputs else dataset.classes, places=self.cuts, picture=dataset.picture, outputs=outputs,
            quality="" if quality == TOP1.name else quality,
            types=scenario.types, rtt_ms=scenario.transfer.rtt_ms, device=scenario.device.name,
            cloud=scenario.cloud.name, trace=self.trace, nodes=tuple(nodes),
            exits=tuple(known.place for known in self.spaces.tree.endings.exits),
            extra_ms=scenario.extra_ms, message_bytes=scenario.message_bytes,
            max_latency_ms=scenario.reward.max_latency_ms,
            version=version_of(
                nodes, scenario.types, max(scenario.extra_ms, scenario.message_bytes, len(outputs)),
                scenario.reward.max_latency_ms,
            ),
        )  # fmt: skip


class _Growing:
    """Nodes of one tree, one group of equal siblings (see `merged`) a node, and one more where samples may leave."""

    def __init__(
        self, builder: TreeBuilder, plans: Sequence[Plan | None], outcomes: Mapping[PlanPath, PathOutcome], origin: str,
        exported: Exported,
    ) -> None:  # fmt: skip
        self.spaces, self.plans, self.outcomes, self.origin, self.exported = (
            builder.spaces,
            plans,
            outcomes,
            origin,
            exported,
        )
        self.problem = builder.spaces.tree.problem
        self.groups = {group[0]: group for group in merged(self.problem, plans)}
        self.branch: dict[int, PlanPath] = {-1: ()}
        self.chance: dict[int, float] = {-1: 1.0}
        self.order: list[tuple[int, bool]] = []  # (first node of a group, whether this is its exit by confidence)
        self._visit()
        self.number = {entry: i for i, entry in enumerate(self.order)}

    def _visit(self) -> None:
        """Walk the groups breadth first."""
        shape = self.problem.shape
        waiting = [(node, False) for node in range(shape.first[1]) if node in self.groups]
        while waiting:
            self.order += waiting
            following: list[tuple[int, bool]] = []
            for node, leaves in waiting:
                if leaves:
                    continue
                above, plan = shape.parent[node], self.plans[node]
                assert plan is not None
                self.branch[node] = (*self.branch[above], plan)
                siblings = list(range(shape.first[1]) if above < 0 else shape.children[above])
                chances = self.problem.chances(above)
                stay = 1.0 - self.outcomes[self.branch[above]].rate if above >= 0 and self._sure(above) else 1.0
                taken = sum(chances[siblings.index(twin)] for twin in self.groups[node])
                self.chance[node] = self.chance[above] * stay * taken
                if not self.problem.ends(shape.level[node], plan):
                    following += [(node, True)] * self._sure(node)
                    following += [(child, False) for child in shape.children[node] if child in self.groups]
            waiting = following

    def _sure(self, node: int) -> bool:
        """Whether samples may leave behind a node."""
        return self.problem.ending_of(self.branch[node]).kind == CONFIDENT

    def nodes(self) -> list[Node]:
        """In breadth-first order."""
        return [self._leaving(node) if leaves else self._node(node) for node, leaves in self.order]

    def _node(self, node: int) -> Node:
        problem, shape, branch = self.problem, self.problem.shape, self.branch[node]
        plan, level, above = branch[-1], shape.level[node], shape.parent[node]
        block, ending = problem.blocks[level], problem.ending_of(branch)
        types = tuple(sorted(k for twin in self.groups[node] for k in problem.types(twin)))
        sends = ending.kind == HAND
        ends = problem.ends(level, plan)
        children = [] if ends else [(node, True), *((child, False) for child in shape.children[node])]
        return Node(
            id=self.number[node, False],
            level=level,
            parent=None if above < 0 else self.number[above, False],
            fork=_fork(ending, types),
            partition=plan.partition,
            segments=block.places,
            actions=self._actions(block, plan),
            device_ms=block.device_ms(plan) - (0.0 if ends else ending.device_ms),
            transfer_ms=problem.transfer_ms(types, ending),
            cloud_ms=ending.cloud_ms,
            block=self.exported.blocks.get(branch, ""),
            handover=self._handover(block.start + plan.partition, ending) if sends else None,
            leaf=self._leaf(self.chance[node], branch, types) if ends else None,
            children=tuple(self.number[entry] for entry in children if entry in self.number),
            number_format=self.spaces.tree.formats[ending.form if plan.partition or ending.kind == EXIT else 0],
        )

    def _leaving(self, node: int) -> Node:
        """The exit by which samples leave behind a node when it is sure of them."""
        problem, branch = self.problem, self.branch[node]
        level, ending = self.problem.shape.level[node], problem.ending_of(branch)
        return Node(
            id=self.number[node, True],
            level=level + 1,
            parent=self.number[node, False],
            fork=ExitFork(exit=ending.exit, entropy=self.outcomes[branch].entropy),
            partition=0,
            segments=problem.blocks[level + 1].places,
            actions=(),
            device_ms=ending.device_ms,
            block=self.exported.heads.get(branch, ""),
            leaf=self._leaf(self.chance[node] * self.outcomes[branch].rate, branch, problem.types(node)),
        )

    def _actions(self, block: Block, plan: Plan) -> tuple[Action, ...]:
        actions = []
        for table, option in zip(block.units, plan.options):
            choice = self.spaces.tree.choices[table.unit][option]
            name = self.spaces.network.units[table.unit].name
            technique, rate = ("keep", 1.0) if choice is None else choice
            rate = 1.0 if technique == ABSORBED else rate
            actions.append(Action(layer=name, technique=technique, rate=rate))
        return tuple(actions)

    def _handover(self, place: int, ending: Ending) -> Handover:
        spec, device, endings = self.spaces.network.spec, self.spaces.scenario.device, self.spaces.tree.endings
        shape = spec.places[place].shape
        decoder: tuple[LayerSpec, ...] = ()
        if ending.kept:
            known = next(one for one in endings.codes_at(place) if (one.bits, one.kept) == ending.code)
            shape, decoder = known.shape, known.decoder
        return Handover(
            place=place, shape=shape, bytes=ending.bytes + self.spaces.scenario.message_bytes,
            bits=IMAGE_BITS if place == 0 else ending.bits,
            block=self.exported.rests.get(Rest(place, ending.kept), ""),
            device_ms=device.call_ms + device.compute_ms([*decoder, *spec.layers(place, len(spec.segments))]),
            code=ending.picture, encode_ms=ending.encode_ms,
        )  # fmt: skip

    def _leaf(self, chance: float, branch: PlanPath, types: tuple[int, ...]) -> Leaf:
        problem = self.problem
        ending = problem.ending_of(branch)
        latency_ms = sum(problem.blocks[n].device_ms(plan) for n, plan in enumerate(branch))
        latency_ms += problem.transfer_ms(types, ending) + ending.cloud_ms
        return Leaf(
            chance=chance, latency_ms=latency_ms, accuracy=self.outcomes[branch].accuracy, accuracy_origin=self.origin
        )


def _fork(ending: Ending, types: tuple[int, ...]) -> Fork:
    if ending.kind == EXIT:
        return ExitFork(exit=ending.exit, types=types)
    if ending.bits != FLOAT_BITS:
        return BitsFork(types=types, bits=ending.bits)
    return BandwidthFork(types=types)


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


def export_blocks(network: Network, forest: Forest, branches: Sequence[PlanPath], folder: Path) -> Exported:
    """Write every device block, head and cloud rest of some branches to `folder/<hash>.pt2`, each content once."""
    blocks: dict[PlanPath, str] = {}
    heads: dict[PlanPath, str] = {}
    rests: dict[Rest, str] = {}
    spec = network.spec
    for branch in branches:
        for depth in range(1, len(branch) + 1):
            prefix = branch[:depth]
            start, stop, ending = forest.start(prefix), forest.places[prefix], forest.endings[prefix]
            if prefix not in blocks and (stop > start or ending.kind == EXIT or ending.kept):
                shape, number_format = spec.places[start].shape, forest.number_format(prefix)
                blocks[prefix] = write_block(forest.node(prefix), shape, folder, number_format)
            if prefix not in heads and ending.kind == CONFIDENT:
                heads[prefix] = write_block(forest.head(prefix), spec.places[stop].shape, folder)
        rest = forest.rest(branch)
        if rest is not None and rest not in rests:
            rests[rest] = write_block(forest.cloud[rest], forest.shapes[rest], folder)
    return Exported(blocks=blocks, heads=heads, rests=rests)


def layers_of(network: Network) -> list[LayerSpec]:
    """Layers with weights of the base network, in order."""
    return [layer for item in network.spec.items for layer in item.layers if layer.op in ("conv", "fc")]
