"""The search problem in numbers: what every action costs in time and accuracy, without torch.

A *plan* of one node is (partition, options, ending): the place inside the block where the path ends (L for "not
here"), one option for every unit of the block in front of that place, and what happens at the place. Options are
positions in `UnitTable.labels`, 0 keeps the layer as it is; endings are positions in `Block.endings`, 0 is the plain
one: a hand-over of plain numbers, or going on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from modeltree.layers import LayerSpec

KEEP = 0
ABSORBED = "absorbed"
"""Label of a unit that a variant in front of it has made superfluous (F3)."""


class Plan(NamedTuple):
    """What one node of a tree does with its block."""

    partition: int
    options: tuple[int, ...]
    ending: int = 0


HAND, EXIT, ON, CONFIDENT = "hand", "exit", "on", "confident"
"""Kinds of endings: hand over; leave through an early exit; go on; go on unless the exit is sure of the sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ending:
    """What happens at a place.

    kind : see above. exit : number of the early exit, from 1; 0 for none.
    device_ms : on the device, beside the block's layers: an exit's head, an encoder, the coding of what crosses.
    encode_ms : of these, the coding and packing of what crosses.
    transfer_ms : (types,) of a hand-over, the round trip included; 0 elsewhere. cloud_ms : of what follows, there.
    damage : harm to accuracy in the predictor's unit, as a unit's.
    rate : share of the samples that leave by confidence. loss : points by which those are less often right than if they
        had gone on.
    bits, bytes : of what crosses, on the wire. kept : channels behind a learned bottleneck, 0 without one.
    picture : how the image itself crosses (`modeltree.image_codes`) where it does so as a file; empty elsewhere.
    form : number format of the block in front of the place, by its position in the space's `formats`; 0 is f32.
    """

    kind: str
    exit: int = 0
    device_ms: float = 0.0
    encode_ms: float = 0.0
    transfer_ms: np.ndarray
    cloud_ms: float = 0.0
    damage: int = 0
    rate: float = 0.0
    loss: float = 0.0
    bits: int = 32
    bytes: int = 0
    kept: int = 0
    picture: str = ""
    form: int = 0

    @property
    def code(self) -> tuple[int, int]:
        """(bits, kept): how what crosses is coded."""
        return self.bits, self.kept


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitTable:
    """A compressible layer's options.

    unit : index in the base network.
    layer : the base layer, the state a controller reads.
    labels : per option; `labels[0]` keeps the layer.
    damage : (options,) int, additive harm to accuracy in the predictor's unit.
    pair_ms : (options of the unit in front, options) time on the device; the row is the option of the unit in front
        (row 0 where there is none in the same block). Infinite where the two exclude each other.
    last_ms : (options,) added when the device half ends behind this unit; infinite where a variant is not complete.
    format_ms : `pair_ms` in the other number formats of the problem, infinite where that is.
    """

    unit: int
    layer: LayerSpec
    labels: tuple[str, ...]
    damage: np.ndarray
    pair_ms: np.ndarray
    last_ms: np.ndarray
    format_ms: tuple[np.ndarray, ...] = ()

    def times_ms(self, form: int) -> np.ndarray:
        """`pair_ms` in a number format, 0 being f32."""
        return self.format_ms[form - 1] if form else self.pair_ms


@dataclass(frozen=True, kw_only=True, eq=False)
class Element:
    """One step of a block as the controllers read it: a unit, or the glue of a segment that has none."""

    segment: int
    layer: LayerSpec
    is_unit: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A run of segments with `L` legal places to hand over, the block's own end not counted.

    start : place of the whole network where the block begins.
    unit_segment : segment (counted within the block) of every unit.
    glue_ms : (L + 1,) device time of everything without weights in front of each place.
    endings : (L + 1,) what may happen at each place, the plain ending first.
    """

    start: int
    elements: tuple[Element, ...]
    units: tuple[UnitTable, ...]
    unit_segment: tuple[int, ...]
    glue_ms: np.ndarray
    endings: tuple[tuple[Ending, ...], ...]

    @property
    def places(self) -> int:
        """L: how many places there are to hand over; partition L means none of them."""
        return len(self.glue_ms) - 1

    def ending(self, plan: Plan) -> Ending:
        """What happens at the place of a plan."""
        return self.endings[plan.partition][plan.ending]

    def device_units(self, partition: int) -> int:
        """How many units run on the device when the network is handed over at `partition`."""
        return sum(segment < partition for segment in self.unit_segment)

    def feasible(self, partition: int) -> list[np.ndarray]:
        """Per device unit, (options in front, options) bool: choices from which the device half can be completed."""
        count = self.device_units(partition)
        allowed: list[np.ndarray] = [np.empty(0)] * count
        reachable = np.isfinite(self.units[count - 1].last_ms) if count else np.empty(0)
        for i in range(count - 1, -1, -1):
            allowed[i] = np.isfinite(self.units[i].pair_ms) & reachable[None, :]
            reachable = allowed[i].any(axis=1)
        return allowed

    def device_ms(self, plan: Plan) -> float:
        """Device time of the block under a plan, with what its ending takes."""
        total, previous = float(self.glue_ms[plan.partition]) + self.ending(plan).device_ms, 0
        form = self.ending(plan).form
        for table, option in zip(self.units, plan.options):
            total += float(table.times_ms(form)[previous, option])
            previous = option
        return total + (float(self.units[len(plan.options) - 1].last_ms[previous]) if plan.options else 0.0)

    def damage(self, plan: Plan) -> int:
        """Harm to accuracy done by a plan."""
        units = sum(int(table.damage[option]) for table, option in zip(self.units, plan.options))
        return units + self.ending(plan).damage


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """The complete tree: level n holds nodes first[n] .. first[n + 1] - 1, in breadth-first order.

    fork_types : per level, the bandwidth types that each fork at that level serves.
    parent : per node, -1 at the first level. level, fork : per node.
    """

    fork_types: tuple[tuple[tuple[int, ...], ...], ...]
    parent: tuple[int, ...]
    level: tuple[int, ...]
    fork: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]
    first: tuple[int, ...]


def complete_tree(levels: int, types: int, *, single_root: bool = False) -> Shape:
    """A complete tree with one fork per bandwidth type at every level; with `single_root` the first level has one."""
    separate = tuple((k,) for k in range(types))
    fork_types = tuple((tuple(range(types)),) if single_root and n == 0 else separate for n in range(levels))
    parent: list[int] = []
    level: list[int] = []
    fork: list[int] = []
    first, previous = [0], [-1]
    for n in range(levels):
        here = []
        for above in previous:
            for f in range(len(fork_types[n])):
                here.append(len(parent))
                parent.append(above)
                level.append(n)
                fork.append(f)
        previous = here
        first.append(len(parent))
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if above >= 0:
            children[above].append(node)
    return Shape(
        fork_types=fork_types, parent=tuple(parent), level=tuple(level), fork=tuple(fork),
        children=tuple(map(tuple, children)), first=tuple(first),
    )  # fmt: skip


CHARGE = 10.0
"""How many times over a point of accuracy counts beyond the loss that is allowed."""


def guarded(accuracy: np.ndarray, base: float, max_loss: float) -> np.ndarray:
    """Accuracy, in percent, of any shape, as a search takes it: below `base - max_loss` points count `CHARGE` times."""
    return np.asarray(accuracy - (CHARGE - 1) * np.maximum(0.0, base - max_loss - accuracy))


Times = TypeVar("Times", float, np.ndarray)
TreePlan = Sequence[Plan | None]
"""A plan for every node of a `Shape`; None below a node that hands over."""


class Outcome(NamedTuple):
    """What a whole tree is worth. Latency, accuracy in percent and energy are expectations over forks and samples."""

    reward: float
    latency_ms: float
    accuracy: float
    energy_mj: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Blocks, the tree's shape, the chances of its forks, and what accuracy and latency are worth.

    accuracy : (cap + 1,) what the search takes the accuracy to be, in percent, for every total damage: predicted, and
        `guarded`; damage saturates at the cap.
    initial, transition : chances of the bandwidth types at the first fork, and from fork to fork.
    accuracy_worth, latency_worth : reward = constant + accuracy_worth * accuracy - latency_worth * latency.
    compute_w, transmit_w : what the device draws while it computes and while it sends (W, which is mJ a ms).
    energy_worth : reward that a millijoule costs the search, so that it keeps an energy budget; 0 without one.
    energy_limit_mj : what a tree may take on average; infinite without a budget.
    """

    blocks: tuple[Block, ...]
    shape: Shape
    bandwidth_mbps: tuple[float, ...]
    initial: np.ndarray
    transition: np.ndarray
    accuracy: np.ndarray
    accuracy_worth: float
    latency_worth: float
    constant: float
    compute_w: float = 0.0
    transmit_w: float = 0.0
    energy_worth: float = 0.0
    energy_limit_mj: float = math.inf

    @property
    def cap(self) -> int:
        """Damage at which accuracy is at its floor."""
        return len(self.accuracy) - 1

    def chances(self, node: int) -> list[float]:
        """Chance of each child of `node` (of each fork of the first level for -1)."""
        level = 0 if node < 0 else self.shape.level[node] + 1
        forks = self.shape.fork_types[level]
        if node < 0:
            return [float(sum(self.initial[k] for k in fork)) for fork in forks]
        types = self.shape.fork_types[self.shape.level[node]][self.shape.fork[node]]
        weight = np.array([self.initial[k] for k in types])
        row = weight @ self.transition[list(types)] / weight.sum()
        return [float(sum(row[k] for k in fork)) for fork in forks]

    def types(self, node: int) -> tuple[int, ...]:
        """Bandwidth types that a node serves."""
        return self.shape.fork_types[self.shape.level[node]][self.shape.fork[node]]

    def transfer_ms(self, types: Sequence[int], ending: Ending) -> float:
        """Time to hand over, averaged over the bandwidth types served."""
        weight = np.array([self.initial[k] for k in types])
        return float(weight @ ending.transfer_ms[list(types)] / weight.sum())

    def ending_of(self, path: Sequence[Plan]) -> Ending:
        """What happens at the end of a branch, or of its first part."""
        return self.blocks[len(path) - 1].ending(path[-1])

    def ends(self, level: int, plan: Plan) -> bool:
        """Whether a path ends with this plan, for all samples."""
        return plan.partition < self.blocks[level].places or level == len(self.blocks) - 1

    @property
    def unpriced(self) -> "Problem":
        """The same problem, energy costing nothing."""
        return replace(self, energy_worth=0.0)

    def device_cost(self, device_ms: Times) -> Times:
        """Reward that computing so long on the device costs."""
        return (self.latency_worth + self.energy_worth * self.compute_w) * device_ms

    def handover_cost(self, types: Sequence[int], ending: Ending) -> float:
        """Reward that handing over costs."""
        transfer_ms = self.transfer_ms(types, ending)
        return self.latency_worth * (transfer_ms + ending.cloud_ms) + self.energy_worth * self.transmit_w * transfer_ms

    def energy_mj(self, device_ms: float, transfer_ms: float) -> float:
        """[Niu 2022, eq. 3]."""
        return self.compute_w * device_ms + self.transmit_w * transfer_ms

    def reward(self, accuracy: float, latency_ms: float, energy_mj: float = 0.0) -> float:
        """Eq. 7, less what the energy costs."""
        gain = self.accuracy_worth * accuracy - self.latency_worth * latency_ms
        return self.constant + gain - self.energy_worth * energy_mj

    def rank(self, outcome: Outcome) -> tuple[bool, float]:
        """Orders trees: those that keep the energy limit first, then by reward."""
        return outcome.energy_mj <= self.energy_limit_mj, outcome.reward

    def accuracy_of(self, damage: int) -> float:
        """Accuracy, in percent, as the search takes it."""
        return float(self.accuracy[min(damage, self.cap)])
