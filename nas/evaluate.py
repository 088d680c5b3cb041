"""What a whole tree is worth, with a memory of every composed model [Wang 2020, alg. 3]."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nas.problem import Outcome, Plan, Problem, TreePlan

Branch = tuple[Plan, ...]


class Evaluated(NamedTuple):
    """The tree's outcome and, per node, the reward of its actions (NaN where the node does not exist)."""

    outcome: Outcome
    node_rewards: np.ndarray


class Evaluator:
    """Composes every complete branch of a tree, rewards it, and carries the rewards back to the root.

    A branch's reward is that of its composed model [eq. 7]; a parent's is the mean of its children's, weighted by the
    chances of its forks (all alike in the paper). `evaluations` counts composed models; with `pool` one that was met
    before is not composed again.

    accuracy : percent for a branch, given as the plans from the root on; the predictor by default.
    """

    def __init__(
        self, problem: Problem, *, pool: bool = True, accuracy: Callable[[Branch], float] | None = None
    ) -> None:  # fmt: skip
        self.problem = problem
        self.evaluations = 0
        self._pool: dict[tuple[tuple[int, ...], Branch], tuple[float, float]] | None = {} if pool else None
        self._accuracy = accuracy or self._predicted
        self._chances = [problem.chances(node) for node in range(-1, len(problem.shape.parent)) if self._forks(node)]
        self._types = [problem.types(node) for node in range(len(problem.shape.parent))]

    def _forks(self, node: int) -> bool:
        return node < 0 or bool(self.problem.shape.children[node])

    def _predicted(self, path: Branch) -> float:
        blocks = self.problem.blocks
        return self.problem.accuracy_of(sum(blocks[n].damage(plan) for n, plan in enumerate(path)))

    def branch(self, types: tuple[int, ...], path: Branch) -> tuple[float, float]:
        """(accuracy in percent, latency in ms) of a complete branch whose last node serves the bandwidth `types`."""
        if self._pool is not None:
            known = self._pool.get((types, path))
            if known is not None:
                return known
        self.evaluations += 1
        blocks, last = self.problem.blocks, len(path) - 1
        latency = sum(blocks[n].device_ms(plan) for n, plan in enumerate(path))
        if path[-1].partition < blocks[last].places:
            latency += self.problem.handover_ms(last, types, path[-1].partition)
        result = (self._accuracy(path), latency)
        if self._pool is not None:
            self._pool[(types, path)] = result
        return result

    def tree(self, plans: TreePlan) -> Evaluated:
        """Reward a tree, given as one plan a node."""
        shape, blocks = self.problem.shape, self.problem.blocks
        paths: list[Branch] = []
        accuracy, latency = np.full(len(plans), np.nan), np.full(len(plans), np.nan)
        for node, plan in enumerate(plans):
            above = shape.parent[node]
            paths.append((*(paths[above] if above >= 0 else ()), plan) if plan is not None else ())
            if plan is None:
                continue
            level = shape.level[node]
            if plan.partition < blocks[level].places or level == len(blocks) - 1:
                accuracy[node], latency[node] = self.branch(self._types[node], paths[node])
        chances = iter(reversed(self._chances))
        for node in range(len(plans) - 1, -1, -1):
            if not shape.children[node]:
                continue
            weights = next(chances)
            if plans[node] is not None and np.isnan(latency[node]):
                accuracy[node] = sum(w * accuracy[c] for w, c in zip(weights, shape.children[node]))
                latency[node] = sum(w * latency[c] for w, c in zip(weights, shape.children[node]))
        roots = range(shape.first[1])
        weights = self._chances[0]
        total_accuracy = float(sum(w * accuracy[c] for w, c in zip(weights, roots)))
        total_latency = float(sum(w * latency[c] for w, c in zip(weights, roots)))
        reward = self.problem.reward(total_accuracy, total_latency)
        rewards = self.problem.constant + self.problem.accuracy_worth * accuracy - self.problem.latency_worth * latency
        return Evaluated(Outcome(reward, total_latency, total_accuracy), rewards)
