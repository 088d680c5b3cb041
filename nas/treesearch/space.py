"""From a sliced network, its variant library, profiles and a link to a search problem."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from modeltree.layers import LayerSpec
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.latency import TransferModel
from modeltree.profiles import DeviceProfile
from modeltree.reward import Reward
from nas.compression.library import Choice, Library, Record
from nas.compression.predictor import Predictor
from nas.exits.catalogue import KnownCode, KnownEndings
from nas.treesearch.problem import (
    ABSORBED,
    CONFIDENT,
    EXIT,
    HAND,
    ON,
    Block,
    Element,
    Ending,
    Plan,
    Problem,
    UnitTable,
    complete_tree,
    guarded,
)
from transforms import Network, Variant
from transforms.compose import entry, folded_layers


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Where a tree shall run: a device, a cloud, and the link between them."""

    device: DeviceProfile
    cloud: DeviceProfile
    types: BandwidthTypes
    transfer: TransferModel
    reward: Reward


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """A problem and what its option numbers mean.

    predicted : (cap + 1,) predicted accuracy, in percent, for every total damage, without the guard that is in
        `problem.accuracy`. max_loss : points a path may lose before the guard bites.
    """

    problem: Problem
    predicted: np.ndarray
    max_loss: float
    choices: Mapping[int, tuple[Choice | None, ...]]
    dropped: Mapping[tuple[int, Choice], str]
    endings: KnownEndings = field(default_factory=KnownEndings)

    def predict(self, path: Sequence[Plan]) -> float:
        """Predicted accuracy of a branch, in percent."""
        damage = sum(block.damage(plan) for block, plan in zip(self.problem.blocks, path))
        return float(self.predicted[min(damage, self.problem.cap)]) - self.problem.ending_of(path).loss

    def guard(self, accuracy: float) -> float:
        """A measured accuracy as the search takes it."""
        return float(guarded(np.array(accuracy), float(self.predicted[0]), self.max_loss))

    def variants(self, path: Sequence[Plan]) -> dict[int, Choice]:
        """Unit -> choice for the plans of a branch from the root on; only for units that a variant replaces."""
        chosen = {}
        for block, plan in zip(self.problem.blocks, path):
            for table, option in zip(block.units, plan.options):
                choice = self.choices[table.unit][option]
                if choice is not None and choice.technique != ABSORBED:
                    chosen[table.unit] = choice
        return chosen


def build_space(
    network: Network, library: Library, predictor: Predictor, scenario: Scenario, cuts: Sequence[int],
    *, levels: Sequence[int] | None = None, single_root: bool = False, max_loss: float = 100.0,
    endings: KnownEndings | None = None,
) -> Space:  # fmt: skip
    """The problem of choosing, for every node, where to hand over and how to compress what stays.

    Parameters
    ----------
    cuts : places at which the network is sliced (`slice_blocks`); no variant reaches over one.
    max_loss : predicted points of accuracy that a path may lose before each counts `CHARGE` times.
    levels : places at which the tree forks, `cuts` by default; `(0, last)` searches a whole branch at once, over the
        same blocks, so that every branch found that way is also a branch of the tree.
    """
    levels = tuple(cuts if levels is None else levels)
    known = endings or KnownEndings()
    builder = _Builder(network, library, predictor, scenario, frozenset(cuts), known)
    blocks = tuple(builder.block(start, stop) for start, stop in itertools.pairwise(levels))
    reward, energy = scenario.reward, scenario.device.energy
    problem = Problem(
        blocks=blocks,
        shape=complete_tree(len(blocks), scenario.types.count, single_root=single_root),
        bandwidth_mbps=scenario.types.representative_mbps,
        initial=np.array(scenario.types.initial),
        transition=np.array(scenario.types.transition),
        accuracy=guarded(predictor.table, float(predictor.table[0]), max_loss),
        constant=float(reward.of(0.0, 0.0)),
        accuracy_worth=float(reward.of(1.0, 0.0) - reward.of(0.0, 0.0)),
        latency_worth=float(reward.of(0.0, 0.0) - reward.of(0.0, 1.0)),
        compute_w=energy.compute_w if energy else 0.0,
        transmit_w=energy.transmit_w if energy else 0.0,
    )
    return Space(
        problem=problem, endings=known, predicted=predictor.table, max_loss=max_loss, choices=builder.choices,
        dropped=builder.dropped,
    )  # fmt: skip


class _Builder:
    def __init__(
        self, network: Network, library: Library, predictor: Predictor, scenario: Scenario, cuts: frozenset[int],
        endings: KnownEndings,
    ) -> None:  # fmt: skip
        self.network, self.library, self.predictor, self.scenario = network, library, predictor, scenario
        self.cuts, self.endings = cuts, endings
        self.choices: dict[int, tuple[Choice | None, ...]] = {}
        self.dropped: dict[tuple[int, Choice], str] = {}
        self.base_layers = {item.unit: list(item.layers) for item in network.spec.items if item.unit is not None}

    def block(self, start: int, stop: int) -> Block:
        spec, scenario = self.network.spec, self.scenario
        elements: list[Element] = []
        units: list[UnitTable] = []
        unit_segment: list[int] = []
        glue = [0.0]
        previous: tuple[int, UnitTable] | None = None  # None behind a cut: nothing reaches over one
        for segment in range(start, stop):
            if segment in self.cuts:
                previous = None
            items = [spec.items[i] for i in spec.segments[segment]]
            glue.append(glue[-1] + sum(scenario.device.compute_ms(i.layers) for i in items if i.unit is None))
            if all(item.unit is None for item in items):
                elements.append(Element(segment=segment - start, layer=items[-1].layers[-1], is_unit=False))
            for item in items:
                if item.unit is None:
                    continue
                barrier = min((cut for cut in self.cuts if cut > segment), default=len(spec.segments))
                table = self._unit(item.unit, previous, barrier)
                if units and previous is None:
                    rows = np.repeat(table.pair_ms, len(units[-1].labels), axis=0)
                    table = dataclasses.replace(table, pair_ms=rows)
                previous = (item.unit, table)
                units.append(table)
                unit_segment.append(segment - start)
                elements.append(Element(segment=segment - start, layer=table.layer, is_unit=True))
        return Block(
            start=start, elements=tuple(elements), units=tuple(units), unit_segment=tuple(unit_segment),
            glue_ms=np.array(glue), endings=(*(self._ends(place) for place in range(start, stop)), self._on(stop)),
        )  # fmt: skip

    def _ends(self, place: int) -> tuple[Ending, ...]:
        """Ways in which a path may end at a place: a plain hand-over, coded ones, an exit."""
        spec = self.network.spec
        cloud_ms = self.scenario.cloud.compute_ms(spec.layers(place, len(spec.segments)))
        plain = spec.places[place].bytes
        found = [Ending(kind=HAND, transfer_ms=self._transfer(plain), cloud_ms=cloud_ms, bytes=plain)]
        found += [self._coded(known, cloud_ms) for known in self.endings.codes_at(place)]
        if (leaves := self.endings.exit_at(place)) is not None:
            damage = self.predictor.damage_of(leaves.drop)
            found.append(
                Ending(
                    kind=EXIT,
                    exit=leaves.exit,
                    device_ms=self.scenario.device.compute_ms(leaves.layers),
                    transfer_ms=self._nothing,
                    damage=damage,
                )
            )
        return tuple(found)

    def _coded(self, known: KnownCode, cloud_ms: float) -> Ending:
        device, cloud = self.scenario.device, self.scenario.cloud
        numbers = math.prod(known.shape)
        return Ending(
            kind=HAND,
            device_ms=device.compute_ms(known.encoder) + device.codec_ms(numbers),
            transfer_ms=self._transfer(round(known.bytes)),
            cloud_ms=cloud_ms + cloud.compute_ms(known.decoder) + cloud.codec_ms(numbers),
            damage=self.predictor.damage_of(known.drop),
            bits=known.bits,
            bytes=round(known.bytes),
            kept=known.kept,
        )

    def _on(self, place: int) -> tuple[Ending, ...]:
        """Ways to go on behind a block: all samples, or those alone of which the exit there is not sure."""
        found = [Ending(kind=ON, transfer_ms=self._nothing)]
        leaves = self.endings.exit_at(place)
        if leaves is not None and leaves.rate > 0 and place in self.cuts:
            found.append(
                Ending(
                    kind=CONFIDENT,
                    exit=leaves.exit,
                    device_ms=self.scenario.device.compute_ms(leaves.layers),
                    transfer_ms=self._nothing,
                    rate=leaves.rate,
                    loss=leaves.loss,
                )
            )
        return tuple(found)

    def _transfer(self, size_bytes: int) -> np.ndarray:
        types = self.scenario.types.representative_mbps
        return np.array([self.scenario.transfer.ms(size_bytes, mbps) for mbps in types])

    @property
    def _nothing(self) -> np.ndarray:
        return np.zeros(self.scenario.types.count)

    def _unit(self, index: int, previous: tuple[int, UnitTable] | None, barrier: int) -> UnitTable:
        """Options of a unit, given the table of the unit in front in the same block, if any."""
        unit = self.network.units[index]
        inside = {u.index for u in self.network.units_between(0, barrier)}
        records = [
            record
            for (owner, _), record in self.library.records.items()
            if owner == index and self._usable(record, inside)
        ]
        spanning = previous is not None and any(
            choice is not None and (choice.technique == "gap" or choice.technique == ABSORBED)
            for choice in self.choices[previous[0]]
        )
        options: list[Record | None] = [None, *records]
        choices: list[Choice | None] = [None, *(record.choice for record in records)]
        chained = previous is not None and self.network.units[previous[0]].following == index
        fronts = self.choices[previous[0]] if previous is not None else (None,)
        pair = np.array(
            [[self._cost(index, option, front, previous, chained) for option in options] for front in fronts]
        )
        last = np.zeros(len(options))
        for position, choice in enumerate(choices):
            if choice is not None and choice.technique == "gap" and unit.fc_span > 1:
                last[position] = math.inf
        if spanning:
            pair, last = self._with_absorbed(index, pair, last, fronts)
            choices.append(Choice(ABSORBED, 1.0))
        damage = [0 if c is None or c.technique == ABSORBED else self.predictor.damage[(index, c)] for c in choices]
        kept = self._worth_having(index, choices, np.array(damage), pair)
        self.choices[index] = tuple(choices[i] for i in kept)
        return UnitTable(
            unit=index,
            layer=next(layer for layer in self.base_layers[index] if layer.op in ("conv", "fc")),
            labels=tuple("keep" if choices[i] is None else str(choices[i]) for i in kept),
            damage=np.array([damage[i] for i in kept]),
            pair_ms=pair[:, kept],
            last_ms=last[kept],
        )

    def _usable(self, record: Record, inside: set[int]) -> bool:
        if record.technique != "gap":
            return True
        span = self.network.units[record.unit].fc_span
        return all(u in inside for u in range(record.unit, record.unit + span))

    def _cost(
        self,
        index: int,
        option: Record | None,
        front: Choice | None,
        previous: tuple[int, UnitTable] | None,
        chained: bool,
    ) -> float:
        unit, device = self.network.units[index], self.scenario.device
        if front is not None and front.technique in ("gap", ABSORBED):
            return math.inf
        layers = self.base_layers[index] if option is None else list(option.layers)
        foldable = entry(Variant(unit, unit.op)) is not None if option is None else option.foldable
        if chained and foldable and front is not None and previous is not None:
            record = self.library.records[(previous[0], front)]
            if record.kept:
                channels = self.network.units[previous[0]].out_shape[0]
                saved = device.layer_ms(_restoring(record))
                return device.compute_ms(folded_layers(layers, channels, record.kept)) - saved
        return device.compute_ms(layers)

    def _with_absorbed(
        self, index: int, pair: np.ndarray, last: np.ndarray, fronts: Sequence[Choice | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the option of a unit that a variant in front has made superfluous: free, and only then."""
        column = [0.0 if front is not None and front.technique in ("gap", ABSORBED) else math.inf for front in fronts]
        ends = 0.0 if self.network.units[index].fc_span == 1 else math.inf
        return np.column_stack([pair, column]), np.append(last, ends)

    def _worth_having(
        self, index: int, choices: Sequence[Choice | None], damage: np.ndarray, pair: np.ndarray
    ) -> list[int]:
        """Drop options that save no time on this device, or that another one beats in both time and accuracy.

        A pruned unit also speeds up the one behind it, and one that ends the network all behind it: those stay.
        """
        kept = []
        for i, choice in enumerate(choices):
            if choice is None or choice.technique in ("gap", ABSORBED) or self._prunes(index, choice):
                kept.append(i)
                continue
            rivals = [
                j
                for j, other in enumerate(choices)
                if j != i
                and (other is None or not (other.technique in ("gap", ABSORBED) or self._prunes(index, other)))
                if damage[j] <= damage[i] and np.all(pair[:, j] <= pair[:, i])
                if damage[j] < damage[i] or np.any(pair[:, j] < pair[:, i]) or j < i
            ]
            if rivals:
                beaten_by = choices[rivals[0]]
                self.dropped[(index, choice)] = (
                    "saves no time on this device" if beaten_by is None else f"{beaten_by} is as fast and as accurate"
                )
            else:
                kept.append(i)
        return kept

    def _prunes(self, index: int, choice: Choice) -> bool:
        record = self.library.records.get((index, choice))
        return record is not None and record.kept > 0


def _restoring(record: Record) -> LayerSpec:
    layer = record.layers[-1]
    assert layer.op == "conv"
    return msgspec.structs.replace(layer)


def branch_as_tree(problem: Problem, whole: Problem, plans: Sequence[Plan]) -> list[Plan | None]:
    """One branch per bandwidth type, found over the whole network at once, as a tree that never changes its mind.

    plans : per type, the plan of the only node of `whole`.
    """
    shape = problem.shape
    result: list[Plan | None] = []
    for node, level in enumerate(shape.level):
        above = shape.parent[node]
        before = result[above] if above >= 0 else None
        if above >= 0 and (before is None or problem.ends(shape.level[above], before)):
            result.append(None)
            continue
        root = node
        while shape.parent[root] >= 0:
            root = shape.parent[root]
        types = problem.types(root)
        plan = plans[types[len(types) // 2]]
        block = problem.blocks[level]
        partition = min(max(plan.partition - (block.start - whole.blocks[0].start), 0), block.places)
        offset = sum(len(earlier.units) for earlier in problem.blocks[:level])
        count = block.device_units(partition)
        ending = plan.ending if partition < block.places else 0
        result.append(Plan(partition, plan.options[offset : offset + count], ending))
    return result
