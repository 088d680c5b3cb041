"""Dynamic programming against trying everything."""

import dataclasses
import itertools

import numpy as np
import pytest
from problems import Size, every_tree, is_feasible, random_problem

from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import ExactSearch, enumerate_plans, solve
from nas.treesearch.problem import Plan

TINY = Size(units=1, options=2)


def all_plans(block):
    """Every plan of a block that takes a finite time, written down without the module's own enumeration."""
    plans = [
        Plan(place, options, ending)
        for place in range(block.places + 1)
        for options in itertools.product(
            *(range(len(unit.labels)) for unit in block.units[: units_before(block, place)])
        )
        for ending in range(len(block.endings[place]))
    ]
    return [plan for plan in plans if np.isfinite(block.device_ms(plan))]


def units_before(block, place):
    return len([segment for segment in block.unit_segment if segment < place])


@pytest.mark.parametrize("seed", range(4))
def test_the_enumeration_holds_every_plan_that_takes_a_finite_time_and_no_other(seed):
    for block in random_problem(seed, Size(levels=2, types=1, units=3, options=3, ends=seed > 1)).blocks:
        assert sorted(enumerate_plans(block)) == sorted(all_plans(block))


def brute_force(problem):
    plans = [all_plans(block) for block in problem.blocks]
    evaluator = Evaluator(problem)
    return max(evaluator.tree(tree).outcome.reward for tree in every_tree(problem, plans))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("types", [1, 2])
def test_one_block_is_solved_as_well_as_by_trying_all(seed, types):
    problem = random_problem(seed, Size(levels=1, types=types, units=3, options=2))
    if types == 2:  # two roots never meet: every pair of plans is too many, the best of each is enough
        single = Evaluator(problem)
        best = [max(single.branch((k,), (plan,)).latency_ms * -0.6 + 2.0 * single.branch((k,), (plan,)).accuracy
                    for plan in all_plans(problem.blocks[0])) for k in range(2)]  # fmt: skip
        assert solve(problem).outcome.reward == pytest.approx(200.0 + float(np.mean(best)), abs=1e-9)
    else:
        assert solve(problem).outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_two_blocks_are_solved_as_well_as_by_trying_all(seed):
    problem = random_problem(seed, Size(levels=2, types=1, units=2, options=2))
    assert solve(problem).outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)


@pytest.mark.parametrize("markov", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_forked_tree_is_solved_as_well_as_by_trying_all(seed, markov):
    problem = random_problem(seed, TINY, markov=markov, single_root=True)
    assert solve(problem).outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)


@pytest.mark.parametrize("energy_worth", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_exits_and_codes_are_chosen_as_well_as_by_trying_all(seed, energy_worth):
    problem = random_problem(seed, Size(units=1, options=1, ends=True), single_root=True, markov=seed > 2)
    problem = dataclasses.replace(problem, compute_w=2.0, transmit_w=0.8, energy_worth=energy_worth)
    optimum = solve(problem)
    assert optimum.outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)
    search = ExactSearch(problem)
    table = problem.constant + sum(c * search.values[0, fork][0] for fork, c in enumerate(problem.chances(-1)))
    assert optimum.outcome.reward == pytest.approx(table, abs=1e-9)


def test_all_kinds_of_endings_are_chosen_somewhere():
    kinds = set()
    for seed, worth in itertools.product(range(20), (0.1, 1.0, 10.0)):
        problem = random_problem(seed, Size(levels=3, types=2, units=3, options=2, ends=True))
        problem = dataclasses.replace(problem, accuracy_worth=worth)
        for node, plan in enumerate(solve(problem).plans):
            if plan is not None:
                ending = problem.blocks[problem.shape.level[node]].ending(plan)
                kinds.add((ending.kind, ending.bits))
    assert kinds >= {("hand", 4), ("exit", 32), ("on", 32), ("confident", 32)}, kinds


@pytest.mark.parametrize("seed", [0, 1])
def test_a_tree_that_forks_twice_is_solved_as_well_as_by_trying_all(seed):
    problem = random_problem(seed, Size(units=1, options=1), markov=True)
    assert solve(problem).outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)


@pytest.mark.parametrize("single_root", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_plans_are_worth_what_is_reported_and_what_the_table_says(seed, single_root):
    problem = random_problem(seed, Size(levels=3, types=3, units=4, options=3), markov=True, single_root=single_root)
    search = ExactSearch(problem)
    outcome, plans = search.solve()
    assert is_feasible(problem, plans)
    assert Evaluator(problem).tree(plans).outcome == outcome
    table = problem.constant + sum(
        chance * search.values[0, fork][0] for fork, chance in enumerate(problem.chances(-1))
    )
    assert outcome.reward == pytest.approx(table, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_damage_beyond_the_cap_costs_no_more(seed):
    problem = random_problem(seed, Size(types=1, units=3, options=2, cap=9))
    greedy = dataclasses.replace(problem, accuracy_worth=0.01)
    optimum = solve(greedy)
    assert sum(greedy.blocks[n].damage(p) for n, p in enumerate(optimum.plans) if p is not None) > greedy.cap
    assert optimum.outcome.accuracy == greedy.accuracy[-1]
    assert optimum.outcome.reward == pytest.approx(brute_force(greedy), abs=1e-9)


def test_enumeration_leaves_out_what_cannot_be_completed():
    problem = random_problem(0, Size(levels=1, types=1, units=2))
    # (keep | gap) x (keep, svd, absorbed): behind both units 2 + 1 plans, behind the first alone 1, in front 1
    block = problem.blocks[0]
    assert [sum(p.partition == place for p in enumerate_plans(block)) for place in range(4)] == [1, 1, 3, 3]
