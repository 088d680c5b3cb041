"""From a sliced network, its variant library, profiles and a link to a search problem."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.compression.library import Choice, Library
from nas.compression.predictor import Predictor
from nas.exits.catalogue import KnownEndings
from nas.treesearch.options.blocks import block_of
from nas.treesearch.options.endings import EndingOptions
from nas.treesearch.options.number_formats import KnownFormats, in_formats
from nas.treesearch.options.prices import UnitPrices
from nas.treesearch.options.scenario import Scenario
from nas.treesearch.options.units import UnitOptions
from nas.treesearch.problem import ABSORBED, Plan, Problem, complete_tree, guarded
from transforms import Network

__all__ = ["Scenario", "Space", "branch_as_tree", "build_space"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """A problem and what its option numbers mean.

    predicted : (cap + 1,) predicted accuracy, in percent, for every total damage, without the guard that is in
        `problem.accuracy`. max_loss : points a path may lose before the guard bites.
    formats : names of the number formats that endings count.
    """

    problem: Problem
    predicted: np.ndarray
    max_loss: float
    choices: Mapping[int, tuple[Choice | None, ...]]
    dropped: Mapping[tuple[int, Choice], str]
    endings: KnownEndings = field(default_factory=KnownEndings)
    formats: tuple[str, ...] = ("f32",)

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
    endings: KnownEndings | None = None, formats: KnownFormats | None = None,
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
    known, offered = endings or KnownEndings(), formats or KnownFormats()
    barriers = frozenset(cuts)
    f32, *others = (UnitPrices(network, library, scenario.device, name) for name in ("f32", *offered.names))
    units = UnitOptions(network, library, predictor, f32, others)
    ways = EndingOptions(network, predictor, scenario, barriers, known)
    blocks = tuple(
        in_formats(
            block_of(network, scenario.device, barriers, units, ways, start, stop),
            [predictor.damage_of(drop) for drop in offered.drops.get((start, stop), ())],
        )
        for start, stop in itertools.pairwise(levels)
    )
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
        problem=problem, endings=known, predicted=predictor.table, max_loss=max_loss, choices=units.choices,
        dropped=units.dropped, formats=("f32", *offered.names),
    )  # fmt: skip


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
        ending = plan.ending if partition < block.places else whole.blocks[0].ending(plan).form
        result.append(Plan(partition, plan.options[offset : offset + count], ending))
    return result
