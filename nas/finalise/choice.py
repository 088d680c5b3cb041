"""Which method's tree is handed over."""

import math
from collections.abc import Mapping

from modeltree.tree import ModelTree
from nas.treesearch.problem import Outcome, Problem

TIE = 0.5
"""Points of reward (of 400) that count as equal: less than measuring accuracy on the search images can tell."""


def choose(judged: Mapping[str, Outcome], limit_mj: float | None) -> str:
    """The simplest of the best methods among those that keep the energy limit; if none does, what takes the least.

    Parameters
    ----------
    judged : what each method's tree is worth on the search images, the simplest method first.
    limit_mj : what an inference may take on average; None for no limit.
    """
    least = min(outcome.energy_mj for outcome in judged.values())
    limit = math.inf if limit_mj is None else max(limit_mj, least)
    worth = {name: outcome.reward for name, outcome in judged.items() if outcome.energy_mj <= limit}
    return next(name for name, value in worth.items() if value >= max(worth.values()) - TIE)


def outcome_of_leaves(problem: Problem, tree: ModelTree) -> Outcome:
    """What a tree is worth by its own leaves: means over them, weighted by their chances."""
    leaves = [(node, node.leaf) for node in tree.leaves() if node.leaf is not None]
    latency_ms = sum(leaf.chance * leaf.latency_ms for _, leaf in leaves)
    accuracy = sum(leaf.chance * leaf.accuracy for _, leaf in leaves)
    energy_mj = sum(
        leaf.chance * problem.energy_mj(sum(one.device_ms for one in tree.path(node.id)), node.transfer_ms)
        for node, leaf in leaves
    )
    return Outcome(problem.reward(accuracy, latency_ms), latency_ms, accuracy, energy_mj)
