"""What a tree is worth, by hand."""

import numpy as np
import pytest
from problems import Size, kept_tree, random_problem

from nas.finalise.finetune import complete_paths
from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import solve
from nas.treesearch.problem import Plan
from nas.treesearch.space import Space

THREE = Size(levels=3, types=2, units=2, options=2)


def drawn(problem, rng):
    """A random tree."""
    shape, plans = problem.shape, []
    for node, above in enumerate(shape.parent):
        block = problem.blocks[shape.level[node]]
        before = plans[above] if above >= 0 else None
        if above >= 0 and (before is None or before.partition < problem.blocks[shape.level[above]].places):
            plans.append(None)
            continue
        place, options = int(rng.choice([0, 1, block.places, block.places])), []
        for mask in block.feasible(place):
            options.append(int(rng.choice(np.flatnonzero(mask[options[-1] if options else 0]))))
        plans.append(Plan(place, tuple(options)))
    return plans


def test_a_parent_is_worth_the_mean_of_its_children():
    problem = random_problem(0, THREE)
    for plans in (drawn(problem, np.random.default_rng(seed)) for seed in range(10)):
        outcome, rewards = Evaluator(problem).tree(plans)
        for node, plan in enumerate(plans):
            children = problem.shape.children[node]
            if plan is not None and children and plans[children[0]] is not None:
                assert rewards[node] == pytest.approx(np.mean(rewards[list(children)]))
        assert outcome.reward == pytest.approx(np.mean(rewards[: problem.shape.first[1]]))


def test_with_uneven_chances_the_mean_is_weighted():
    problem = random_problem(1, Size(types=2, units=1), markov=True)
    plans = kept_tree(problem)
    block = problem.blocks[1]
    plans[3], plans[5] = Plan(0, ()), Plan(0, ())  # the faster child of each root hands over at once
    first = problem.blocks[0].device_ms(plans[0])
    stays = first + block.device_ms(plans[2])
    leaves = first + float(block.endings[0][0].transfer_ms[1] + block.endings[0][0].cloud_ms)
    expected = sum(
        problem.initial[root] * (problem.transition[root, 0] * stays + problem.transition[root, 1] * leaves)
        for root in range(2)
    )
    assert Evaluator(problem).tree(plans).outcome.latency_ms == pytest.approx(expected)
    assert problem.initial[0] != pytest.approx(0.5, abs=0.01)


def test_a_hand_over_ends_the_path():
    problem = random_problem(2, Size(types=1, units=2))
    plans = [Plan(1, (1,)), None]
    block = problem.blocks[0]
    outcome, rewards = Evaluator(problem).tree(plans)
    by_hand = (
        block.glue_ms[1] + block.units[0].pair_ms[0, 1] + block.units[0].last_ms[1]
        + block.endings[1][0].transfer_ms[0] + block.endings[1][0].cloud_ms
    )  # fmt: skip
    assert outcome.latency_ms == pytest.approx(by_hand)
    assert outcome.accuracy == problem.accuracy[block.units[0].damage[1]]
    assert rewards[0] == pytest.approx(200 + 2 * outcome.accuracy - 0.6 * by_hand)
    assert np.isnan(rewards[1])


@pytest.mark.parametrize(("pool", "evaluations"), [(True, 2), (False, 16)])
def test_the_pool_composes_each_model_once(pool, evaluations):
    problem = random_problem(0, THREE)
    composed = []
    evaluator = Evaluator(problem, pool=pool, accuracy=lambda path: composed.append(path) or 90.0)
    once = evaluator.tree(kept_tree(problem))
    again = evaluator.tree(kept_tree(problem))
    assert once.outcome == again.outcome
    # all eight leaves have the same plans, but serve two types: the paths of one type are one composed model
    assert evaluator.evaluations == len(composed) == evaluations


@pytest.mark.parametrize("markov", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_expectation_is_the_sum_over_complete_paths(seed, markov):
    problem = random_problem(seed, THREE, markov=markov)
    space = Space(problem=problem, predicted=problem.accuracy, max_loss=100.0, choices={}, dropped={})
    for plans in (drawn(problem, np.random.default_rng(seed)), solve(problem).plans):
        outcome = Evaluator(problem).tree(plans).outcome
        paths = complete_paths(space, plans)
        assert sum(paths.values()) == pytest.approx(1.0)
        accuracy = {
            path: problem.accuracy_of(sum(problem.blocks[n].damage(p) for n, p in enumerate(path))) for path in paths
        }
        assert outcome.accuracy == pytest.approx(sum(paths[p] * accuracy[p] for p in paths))
