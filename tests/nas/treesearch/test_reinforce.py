"""The controllers: what is forced, what is masked, and the way the gradient points."""

import dataclasses

import numpy as np
import pytest
import torch
from problems import Size, random_problem, slower_link

from nas.treesearch.controllers import (
    BlockTensors,
    CompressionController,
    PartitionController,
    draw,
    draw_options,
    scaled_bandwidth,
    vocabulary_of,
)
from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import solve
from nas.treesearch.problem import Plan, Problem
from nas.treesearch.reinforce import Reinforce, ReinforceConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def searched(problem, *, seed=0, boosted=None, **config):
    return Reinforce(problem, Evaluator(problem), ReinforceConfig(**config), seed=seed, boosted=boosted)


def test_an_action_that_is_given_is_taken_and_its_probability_is_the_softmax():
    logits = torch.tensor([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    drawn = draw(logits, torch.Generator().manual_seed(0), torch.tensor([2, -1]))
    assert drawn.actions.tolist()[0] == 2
    expected = torch.log_softmax(logits, dim=1)[torch.arange(2), drawn.actions]
    assert torch.equal(drawn.log_probability, expected)


def test_actions_are_drawn_as_often_as_the_softmax_says():
    logits = torch.tensor([[0.0, 1.0, -1.0]]).expand(20_000, -1)
    actions = draw(logits, torch.Generator().manual_seed(0)).actions
    shares = torch.bincount(actions, minlength=3) / len(actions)
    assert torch.allclose(shares, torch.softmax(logits[0], 0), atol=0.015)


def test_the_entropy_of_an_even_choice_is_the_logarithm_of_the_choices():
    drawn = draw(torch.zeros(1, 4), torch.Generator().manual_seed(0))
    assert drawn.entropy.item() == pytest.approx(np.log(4))


def test_fair_chances_force_the_first_blocks_to_stay():
    """alpha (N - n) / N with alpha 2 and N 2: always at level 1, never at level 2."""
    problem = random_problem(0, Size(levels=2, types=2, units=2))
    search = searched(problem, fair_chances=2.0, episodes=1000)
    trees, _ = search._sample(200)
    places = problem.blocks[0].places
    assert all(tree[node].partition == places for tree in trees for node in (0, 1))
    assert {tree[2].partition for tree in trees} == set(range(problem.blocks[1].places + 1))


def test_without_fair_chances_the_first_blocks_may_hand_over():
    problem = random_problem(0, Size(levels=2, types=2, units=2))
    trees, _ = searched(problem, fair_chances=0.0, episodes=1000)._sample(200)
    assert {tree[0].partition for tree in trees} == set(range(problem.blocks[0].places + 1))


def test_boosting_brings_the_given_tree_back():
    problem = random_problem(0, Size(levels=2, types=2, units=3, options=2))
    given = solve(problem).plans
    trees, _ = searched(problem, boosted=given, boost=1.0, episodes=1000)._sample(20)
    assert all(tree == given for tree in trees)


def test_masked_options_are_never_drawn_and_what_is_drawn_can_be_completed():
    problem = random_problem(3, Size(levels=1, types=1, units=4, options=2))
    block = problem.blocks[0]
    tensors = BlockTensors(block, vocabulary_of(problem))
    logits = torch.zeros(4000, len(block.units), tensors.columns.shape[1])
    logits[:, 2, 1] = 1.0  # draws towards the F3-like option, which needs the unit behind it
    partition = torch.arange(4000) % (block.places + 1)
    drawn = draw_options(logits, tensors, partition, torch.Generator().manual_seed(0))
    seen = set()
    for place, row in zip(partition.tolist(), drawn.actions.tolist()):
        options = tuple(row[: block.device_units(place)])
        assert np.isfinite(block.device_ms(Plan(place, options)))
        seen.add((place, options[2:]))
        assert row[block.device_units(place) :] == [0] * (len(block.units) - len(options))
    assert {rest for place, rest in seen if place >= 4} == {(0, 0), (0, 1), (1, 2)}
    assert {rest for place, rest in seen if place == 3} == {(0,)}
    assert torch.isfinite(drawn.log_probability).all()


def rewarding(problem: Problem, label: int) -> Problem:
    """The same problem, one option of the first unit being much faster than all else."""
    block = problem.blocks[0]
    first = block.units[0]
    pair = np.full_like(first.pair_ms, 100.0)
    pair[:, label] = 1.0
    units = (dataclasses.replace(first, pair_ms=pair, damage=np.zeros_like(first.damage)), *block.units[1:])
    fast = dataclasses.replace(block, units=units)
    return slower_link(dataclasses.replace(problem, blocks=(fast,)), 200.0)


@pytest.mark.parametrize("best", [1, 2])
def test_the_best_action_becomes_likely(best):
    problem = rewarding(random_problem(0, Size(levels=1, types=1, units=1, options=3)), best)
    search = searched(problem, episodes=400, entropy=0.0)
    block, bandwidth = search.blocks[0], torch.tensor([0.0])
    whole = torch.tensor([problem.blocks[0].places])

    def chances():
        with torch.no_grad():
            stay = torch.softmax(search.partition(block, bandwidth), 1)[0, -1]
            option = torch.softmax(search.compression(block, bandwidth, whole), 2)[0, 0, best]
        return float(stay), float(option)

    before = chances()
    for _ in search.run():
        pass
    after = chances()
    assert before[0] < 0.6
    assert before[1] < 0.6
    assert after[0] > 0.9
    assert after[1] > 0.9


def test_the_bandwidth_and_the_partition_are_read():
    problem = random_problem(0, Size(levels=1, types=1, units=3))
    torch.manual_seed(0)
    tensors = BlockTensors(problem.blocks[0], vocabulary_of(problem))
    places, options = PartitionController(8), CompressionController(8, len(vocabulary_of(problem)))
    bandwidth = torch.tensor([scaled_bandwidth(1.0), scaled_bandwidth(100.0)])
    logits = places(tensors, bandwidth)
    assert logits.shape == (2, problem.blocks[0].places + 1)
    assert not torch.allclose(logits[0], logits[1])
    rest = options(tensors, bandwidth[:1].expand(2), torch.tensor([1, 4]))
    assert not torch.allclose(rest[0, 0], rest[1, 0])


def test_the_baseline_follows_the_rewards_and_advantages_are_bounded():
    problem = random_problem(0, Size(levels=1, types=1, units=1))
    search = searched(problem, baseline_decay=0.5)
    assert search._advantages(np.array([[10.0], [20.0]])).tolist() == [[-1.0], [1.0]]
    assert search.baseline.tolist() == [15.0]
    far = search._advantages(np.array([[1000.0], [15.0]]))
    assert far[0, 0] <= 3.0
    assert search.baseline[0] == pytest.approx(0.5 * 15 + 0.5 * 507.5)
