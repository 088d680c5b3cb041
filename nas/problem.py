"""The search problem in numbers: what every action costs in time and accuracy, without torch.

A *plan* of one node is (partition, options): the place inside the block where the network is handed over (L for "not
here"), and one option for every unit of the block in front of that place. Options are positions in `UnitTable.labels`;
0 keeps the layer as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from modeltree.layers import LayerSpec

KEEP = 0
ABSORBED = "absorbed"
"""Label of a unit that a variant in front of it has made superfluous (F3)."""


class Plan(NamedTuple):
    """What one node of a tree does with its block."""

    partition: int
    options: tuple[int, ...]


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
    """

    unit: int
    layer: LayerSpec
    labels: tuple[str, ...]
    damage: np.ndarray
    pair_ms: np.ndarray
    last_ms: np.ndarray


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
    cloud_ms : (L,) cloud time of all that follows each place.
    transfer_ms : (types, L) time to hand over at each place under each bandwidth type.
    """

    start: int
    elements: tuple[Element, ...]
    units: tuple[UnitTable, ...]
    unit_segment: tuple[int, ...]
    glue_ms: np.ndarray
    cloud_ms: np.ndarray
    transfer_ms: np.ndarray

    @property
    def places(self) -> int:
        """L: how many places there are to hand over; partition L means none of them."""
        return len(self.cloud_ms)

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
        """Device time of the block under a plan."""
        total, previous = float(self.glue_ms[plan.partition]), 0
        for table, option in zip(self.units, plan.options):
            total += float(table.pair_ms[previous, option])
            previous = option
        return total + (float(self.units[len(plan.options) - 1].last_ms[previous]) if plan.options else 0.0)

    def damage(self, plan: Plan) -> int:
        """Harm to accuracy done by a plan."""
        return sum(int(table.damage[option]) for table, option in zip(self.units, plan.options))


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
    """Accuracy, in percent, as a search takes it: below `base - max_loss`, each point counts `CHARGE` times."""
    return np.asarray(accuracy - (CHARGE - 1) * np.maximum(0.0, base - max_loss - accuracy))


TreePlan = Sequence[Plan | None]
"""A plan for every node of a `Shape`; None below a node that hands over."""


class Outcome(NamedTuple):
    """What a whole tree is worth. Latency in ms and accuracy in percent are expectations over the forks."""

    reward: float
    latency_ms: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Blocks, the tree's shape, the chances of its forks, and what accuracy and latency are worth.

    accuracy : (cap + 1,) what the search takes the accuracy to be, in percent, for every total damage: predicted, and
        `guarded`; damage saturates at the cap.
    initial, transition : chances of the bandwidth types at the first fork, and from fork to fork.
    accuracy_worth, latency_worth : reward = constant + accuracy_worth * accuracy - latency_worth * latency.
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

    def handover_ms(self, level: int, types: Sequence[int], partition: int) -> float:
        """Transfer and cloud time of handing over at a place, averaged over the bandwidth types served."""
        block = self.blocks[level]
        weight = np.array([self.initial[k] for k in types])
        return float(weight @ block.transfer_ms[list(types), partition] / weight.sum() + block.cloud_ms[partition])

    def reward(self, accuracy: float, latency_ms: float) -> float:
        """Eq. 7."""
        return self.constant + self.accuracy_worth * accuracy - self.latency_worth * latency_ms

    def accuracy_of(self, damage: int) -> float:
        """Accuracy, in percent, as the search takes it."""
        return float(self.accuracy[min(damage, self.cap)])
