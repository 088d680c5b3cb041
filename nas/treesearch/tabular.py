"""Random and epsilon-greedy search, to compare the controllers with, given the same number of evaluations."""

from collections.abc import Callable

import numpy as np

from nas.treesearch.evaluator import Evaluator
from nas.treesearch.problem import Plan, Problem
from nas.treesearch.reinforce import BestTree, Step

Choose = Callable[[tuple[int, ...], np.ndarray], int]
"""Picks an action for a decision (node, or node and unit) among the allowed ones (indices)."""


def random_search(problem: Problem, evaluator: Evaluator, *, evaluations: int, rng: np.random.Generator) -> BestTree:
    """Draw every action evenly among those allowed until so many composed models have been evaluated."""
    return _play(problem, evaluator, lambda _, allowed: int(rng.choice(allowed)), lambda *_: None, evaluations)


def egreedy_search(
    problem: Problem, evaluator: Evaluator, *, evaluations: int, rng: np.random.Generator, epsilon: float = 0.1
) -> BestTree:
    """Per decision, take the action with the best mean reward so far, or with probability epsilon any.

    Actions that have never been tried count as the best reward seen at that decision, so each is tried.
    """
    sums: dict[tuple[tuple[int, ...], int], list[float]] = {}

    def choose(decision: tuple[int, ...], allowed: np.ndarray) -> int:
        if rng.random() < epsilon:
            return int(rng.choice(allowed))
        means = [(v[0] / v[1] if (v := sums.get((decision, int(a)))) else np.inf) for a in allowed]
        best = np.flatnonzero(np.array(means) == max(means))
        return int(allowed[rng.choice(best)])

    def learn(decision: tuple[int, ...], action: int, reward: float) -> None:
        entry = sums.setdefault((decision, action), [0.0, 0.0])
        entry[0] += reward
        entry[1] += 1.0

    return _play(problem, evaluator, choose, learn, evaluations)


def _play(
    problem: Problem, evaluator: Evaluator, choose: Choose, learn: Callable[[tuple[int, ...], int, float], None],
    evaluations: int,
) -> BestTree:  # fmt: skip
    shape = problem.shape
    feasible = [[block.feasible(p) for p in range(block.places + 1)] for block in problem.blocks]
    best: BestTree | None = None
    curve: list[Step] = []
    episodes = 0
    limit = 20 * evaluations + 1000  # a small space runs out of new models
    while evaluator.evaluations < evaluations and episodes < limit:
        plans: list[Plan | None] = []
        for node, above in enumerate(shape.parent):
            level = shape.level[node]
            before = plans[above] if above >= 0 else None
            if above >= 0 and (before is None or problem.ends(level - 1, before)):
                plans.append(None)
                continue
            ways = [(place, how) for place, at in enumerate(problem.blocks[level].endings) for how in range(len(at))]
            place, how = ways[choose((node,), np.arange(len(ways)))]
            options: list[int] = []
            for i, mask in enumerate(feasible[level][place]):
                allowed = np.flatnonzero(mask[options[-1] if options else 0])
                options.append(choose((node, place, i), allowed))
            plans.append(Plan(place, tuple(options), how))
        evaluated = evaluator.tree(plans)
        for node, plan in enumerate(plans):
            if plan is not None:
                reward = float(evaluated.node_rewards[node])
                at = problem.blocks[shape.level[node]].endings[: plan.partition]
                learn((node,), sum(map(len, at)) + plan.ending, reward)
                for i, option in enumerate(plan.options):
                    learn((node, plan.partition, i), option, reward)
        episodes += 1
        if best is None or problem.rank(evaluated.outcome) > problem.rank(best.outcome):
            best = BestTree(plans=plans, outcome=evaluated.outcome)
        if episodes % 10 == 0 or evaluator.evaluations >= evaluations:
            step = Step(episodes, evaluator.evaluations, best.outcome.reward, evaluated.outcome.reward, 0.0, 0.0)
            curve.append(step)
    assert best is not None
    best.curve = curve
    return best
