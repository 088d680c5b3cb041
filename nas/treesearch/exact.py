"""The true optimum of a search problem under the predictor's additive form, by dynamic programming.

Within a block, the device half is a shortest path over (unit, option, damage so far); only options that no other beats
in both time and damage are kept. Over the tree, V_n(s) is the best expected reward from level n on when the blocks
above have done damage s; damage is a small integer, so V is a table. What happens at a place (its endings) is chosen
with the table in hand, since an ending does damage of its own.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.treesearch.evaluator import Evaluator
from nas.treesearch.problem import CONFIDENT, Block, Outcome, Plan, Problem


@dataclass(frozen=True, eq=False)
class _Frontier:
    """Ways to run a device half that none beats: damage rising, time falling, and the options of each."""

    damage: np.ndarray
    time_ms: np.ndarray
    options: list[tuple[int, ...]]


class Optimum(NamedTuple):
    """The best tree, one plan a node, and what it is worth."""

    outcome: Outcome
    plans: list[Plan | None]


class ExactSearch:
    """Solves a problem once; `solve` gives the best tree."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.frontiers = [
            [
                (partition, form, _frontier(block, partition, problem.cap, form))
                for partition in range(block.places + 1)
                for form in sorted({ending.form for ending in block.endings[partition]})
            ]
            for block in problem.blocks
        ]
        self.worth = problem.accuracy_worth * problem.accuracy
        self._known: dict[tuple[int, int, int, int], tuple[np.ndarray, np.ndarray]] = {}
        self.values: dict[tuple[int, int], np.ndarray] = {}
        for level in range(len(problem.blocks) - 1, -1, -1):
            for fork in range(len(problem.shape.fork_types[level])):
                self.values[level, fork] = self._value(level, fork)

    def solve(self) -> Optimum:
        """The best tree."""
        problem, shape = self.problem, self.problem.shape
        plans: list[Plan | None] = []
        damage = [0] * len(shape.parent)
        for node, above in enumerate(shape.parent):
            level, fork = shape.level[node], shape.fork[node]
            before = plans[above] if above >= 0 else None
            if above >= 0 and (before is None or problem.ends(level - 1, before)):
                plans.append(None)
                continue
            start = damage[above] if above >= 0 else 0
            best, plan, done = -np.inf, Plan(0, ()), 0
            for partition, form, frontier in self.frontiers[level]:
                totals = np.minimum(start + frontier.damage, problem.cap)
                after, endings = self._after(level, fork, partition, form)
                gains = after[totals] - problem.device_cost(frontier.time_ms)
                i = int(np.argmax(gains))
                if gains[i] > best:
                    ending = int(endings[totals[i]])
                    best, plan = float(gains[i]), Plan(partition, frontier.options[i], ending)
                    done = int(totals[i]) + problem.blocks[level].endings[partition][ending].damage
            plans.append(plan)
            damage[node] = min(done, problem.cap)
        return Optimum(Evaluator(problem).tree(plans).outcome, plans)

    def _value(self, level: int, fork: int) -> np.ndarray:
        cap = self.problem.cap
        best = np.full(cap + 1, -np.inf)
        start = np.arange(cap + 1)
        for partition, form, frontier in self.frontiers[level]:
            after, _ = self._after(level, fork, partition, form)
            for damage, cost in zip(frontier.damage, self.problem.device_cost(frontier.time_ms)):
                gain = after[np.minimum(start + damage, cap)] - cost
                np.maximum(best, gain, out=best)
        return best

    def _after(self, level: int, fork: int, partition: int, form: int) -> tuple[np.ndarray, np.ndarray]:
        """Best expected worth of what follows the device half of this block in a number format, for every total damage,
        and the ending that has it."""
        if (level, fork, partition, form) not in self._known:
            problem = self.problem
            types, goes_on = problem.shape.fork_types[level][fork], partition == problem.blocks[level].places
            on = self._on(level, fork) if goes_on else np.empty(0)
            reached = np.arange(problem.cap + 1)
            gains, numbers = [], []
            for number, ending in enumerate(problem.blocks[level].endings[partition]):
                if ending.form != form:
                    continue
                numbers.append(number)
                ends = self.worth - problem.accuracy_worth * ending.loss
                gain = ends if not goes_on else on
                if ending.kind == CONFIDENT:
                    gain = ending.rate * ends + (1.0 - ending.rate) * on
                cost = problem.device_cost(ending.device_ms) + problem.handover_cost(types, ending)
                gains.append(gain[np.minimum(reached + ending.damage, problem.cap)] - cost)
            best = np.argmax(gains, axis=0)
            self._known[level, fork, partition, form] = np.array(gains)[best, reached], np.array(numbers)[best]
        return self._known[level, fork, partition, form]

    def _on(self, level: int, fork: int) -> np.ndarray:
        """Expected worth of going on behind a block, for every total damage."""
        problem = self.problem
        if level == len(problem.blocks) - 1:
            return self.worth
        node = next(n for n, at in enumerate(problem.shape.level) if at == level and problem.shape.fork[n] == fork)
        chances = problem.chances(node)
        return np.asarray(sum(chance * self.values[level + 1, f] for f, chance in enumerate(chances)))


def solve(problem: Problem) -> Optimum:
    """The best tree of a problem."""
    return ExactSearch(problem).solve()


def enumerate_plans(block: Block) -> list[Plan]:
    """Every plan of a block; for problems small enough to check the dynamic programme against."""
    plans = []
    for partition in range(block.places + 1):
        tables = block.units[: block.device_units(partition)]
        for options in itertools.product(*(range(len(table.labels)) for table in tables)):
            for ending in range(len(block.endings[partition])):
                plan = Plan(partition, options, ending)
                if np.isfinite(block.device_ms(plan)):
                    plans.append(plan)
    return plans


def _frontier(block: Block, partition: int, cap: int, form: int) -> _Frontier:
    count = block.device_units(partition)
    states: dict[int, _Frontier] = {0: _Frontier(np.array([0]), np.array([float(block.glue_ms[partition])]), [()])}
    for i, table in enumerate(block.units[:count]):
        last = table.last_ms if i == count - 1 else np.zeros(len(table.labels))
        following = {}
        for option in range(len(table.labels)):
            reached = [
                (np.minimum(f.damage + table.damage[option], cap), f.time_ms + cost, f.options)
                for before, f in states.items()
                if np.isfinite(cost := table.times_ms(form)[before if i else 0, option] + last[option])
            ]
            if reached:
                following[option] = _pruned(reached, option)
        states = following
    ends = [(f.damage, f.time_ms, f.options) for f in states.values()]
    return _pruned(ends, None) if ends else _Frontier(np.array([], dtype=int), np.array([]), [])


def _pruned(parts: list[tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]], option: int | None) -> _Frontier:
    damage = np.concatenate([p[0] for p in parts])
    time_ms = np.concatenate([p[1] for p in parts])
    options = [o for p in parts for o in p[2]]
    order = np.lexsort((time_ms, damage))
    lowest = np.minimum.accumulate(time_ms[order])
    better = np.concatenate([[True], time_ms[order][1:] < lowest[:-1]])
    kept = order[better]
    suffix = () if option is None else (option,)
    return _Frontier(damage[kept], time_ms[kept], [options[i] + suffix for i in kept])
