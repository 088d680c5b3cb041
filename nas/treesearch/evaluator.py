"""What a whole tree is worth, with a memory of every composed model [Wang 2020, alg. 3]."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nas.treesearch.problem import CONFIDENT, Outcome, Plan, Problem, TreePlan

PlanPath = tuple[Plan, ...]


class PathOutcome(NamedTuple):
    """Of the samples that come to the end of a path: the percent right of those that leave, and the share that do.

    rate : 1 but for exits by confidence; they have the threshold on the entropy, too.
    """

    accuracy: float
    rate: float
    entropy: float = 0.0


class Evaluated(NamedTuple):
    """The tree's outcome and, per node, the reward of its actions (NaN where the node does not exist)."""

    outcome: Outcome
    node_rewards: np.ndarray


class Worth(NamedTuple):
    """What a branch gives and takes: percent, ms, mJ."""

    accuracy: float
    latency_ms: float
    energy_mj: float


class Evaluator:
    """Composes every complete branch of a tree, rewards it, and carries the rewards back to the root.

    A branch's reward is that of its composed model [eq. 7]; a parent's is the mean of its children's, weighted by the
    chances of its forks (all alike in the paper). `evaluations` counts composed models; with `pool` one that was met
    before is not composed again.

    Where samples may leave by confidence, the first part of a branch up to there is a branch too: theirs.

    accuracy : percent for a branch, given as the plans from the root on; the predictor by default.
    rate : share of the samples that leave at the end of such a first part, of those that come there; as the problem has
        it by default.
    """

    def __init__(
        self, problem: Problem, *, pool: bool = True, accuracy: Callable[[PlanPath], float] | None = None,
        rate: Callable[[PlanPath], float] | None = None,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.evaluations = 0
        self._pool: dict[tuple[tuple[int, ...], PlanPath], Worth] | None = {} if pool else None
        self._accuracy = accuracy or self._predicted
        self._rate = rate or (lambda path: problem.ending_of(path).rate)
        nodes = range(-1, len(problem.shape.parent))
        self._chances = [np.array(problem.chances(node)) for node in nodes if self._forks(node)]
        self._types = [problem.types(node) for node in range(len(problem.shape.parent))]

    def _forks(self, node: int) -> bool:
        return node < 0 or bool(self.problem.shape.children[node])

    def _predicted(self, path: PlanPath) -> float:
        blocks = self.problem.blocks
        damage = sum(blocks[n].damage(plan) for n, plan in enumerate(path))
        return self.problem.accuracy_of(damage) - self.problem.ending_of(path).loss

    def branch(self, types: tuple[int, ...], path: PlanPath) -> Worth:
        """What a branch, whose last node serves the bandwidth `types`, is worth to the samples that end there."""
        if self._pool is not None:
            known = self._pool.get((types, path))
            if known is not None:
                return known
        self.evaluations += 1
        problem, ending = self.problem, self.problem.ending_of(path)
        device_ms = sum(problem.blocks[n].device_ms(plan) for n, plan in enumerate(path))
        transfer_ms = problem.transfer_ms(types, ending)
        result = Worth(
            self._accuracy(path), device_ms + transfer_ms + ending.cloud_ms, problem.energy_mj(device_ms, transfer_ms)
        )
        if self._pool is not None:
            self._pool[(types, path)] = result
        return result

    def tree(self, plans: TreePlan) -> Evaluated:
        """Reward a tree, given as one plan a node."""
        problem, shape = self.problem, self.problem.shape
        paths: list[PlanPath] = []
        worth = np.full((len(plans), 3), np.nan)
        for node, plan in enumerate(plans):
            above = shape.parent[node]
            paths.append((*(paths[above] if above >= 0 else ()), plan) if plan is not None else ())
            if plan is not None and problem.ends(shape.level[node], plan):
                worth[node] = self.branch(self._types[node], paths[node])
        chances = iter(reversed(self._chances))
        for node in range(len(plans) - 1, -1, -1):
            if not shape.children[node]:
                continue
            weights, plan = next(chances), plans[node]
            if plan is None or problem.ends(shape.level[node], plan):
                continue
            worth[node] = weights @ worth[list(shape.children[node])]
            if problem.blocks[shape.level[node]].ending(plan).kind == CONFIDENT:
                leave = self._rate(paths[node])
                worth[node] *= 1.0 - leave
                if leave > 0:
                    worth[node] += leave * np.array(self.branch(self._types[node], paths[node]))
        total = self._chances[0] @ worth[: shape.first[1]]
        accuracy, latency_ms, energy_mj = map(float, total)
        rewards = problem.constant + worth @ (
            np.array([problem.accuracy_worth, -problem.latency_worth, -problem.energy_worth])
        )
        reward = problem.reward(accuracy, latency_ms, energy_mj)
        return Evaluated(Outcome(reward, latency_ms, accuracy, energy_mj), rewards)
