"""A search with a limit on energy: the price at which the best tree keeps it."""

import dataclasses

import msgspec
import pytest
from networks import made_library, made_predictor, scenario, tiny

from modeltree.errors import ConfigError
from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import solve
from nas.treesearch.search_spaces import build_search_spaces, within_energy


@pytest.fixture(scope="module")
def spaces():
    library = made_library(("svd", "prune"))
    return build_search_spaces(
        tiny(), library, made_predictor(library), scenario(), (0, 2, 5), single_root=False, max_loss=100.0
    )


def taken(spaces):
    return solve(spaces.tree.problem).outcome.energy_mj


def test_a_limit_that_is_kept_anyway_changes_nothing(spaces):
    assert within_energy(spaces, 1.01 * taken(spaces)) is spaces


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6])
def test_the_best_tree_keeps_the_limit_and_gives_reward_for_it(spaces, share):
    free = solve(spaces.tree.problem)
    limit = share * free.outcome.energy_mj
    priced = within_energy(spaces, limit)
    best = solve(priced.tree.problem)
    assert best.outcome.energy_mj <= limit
    plain = dataclasses.replace(priced.tree.problem, energy_worth=0.0)
    assert Evaluator(plain).tree(best.plans).outcome.reward < free.outcome.reward
    cheaper = dataclasses.replace(priced.tree.problem, energy_worth=0.98 * priced.tree.problem.energy_worth)
    assert solve(cheaper).outcome.energy_mj >= best.outcome.energy_mj
    assert {space.problem.energy_worth for space in priced.branches} == {priced.tree.problem.energy_worth}


def test_a_limit_that_no_tree_keeps_is_refused_with_the_least_there_is(spaces):
    with pytest.raises(ConfigError, match="no tree takes less than"):
        within_energy(spaces, 1e-9)


def test_a_device_that_says_nothing_of_energy_cannot_be_limited(spaces):
    silent = msgspec.structs.replace(spaces.scenario.device, energy=None)
    library = made_library(("svd",))
    where = dataclasses.replace(scenario(), device=silent)
    mute = build_search_spaces(
        tiny(), library, made_predictor(library), where, (0, 2, 5), single_root=False, max_loss=100.0
    )
    with pytest.raises(ConfigError, match="no energy parameters"):
        within_energy(mute, 1.0)
