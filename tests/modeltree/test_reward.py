"""The reward reproduces the paper's tables and commutes with the mean."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import ConfigError
from modeltree.reward import Reward


@pytest.mark.parametrize(
    ("accuracy", "latency_ms", "reward"),
    [(92.01, 78.28, 337.05), (90.77, 56.11, 347.87), (84.08, 39.72, 344.33), (83.83, 29.57, 349.92),
     (83.84, 28.37, 350.65)],
)  # fmt: skip
def test_the_papers_emulation_rows_are_reproduced(accuracy, latency_ms, reward):
    assert Reward().of(accuracy, latency_ms) == pytest.approx(reward, abs=0.02)  # [Wang 2020, table IV]


def test_best_and_worst_are_400_and_0_and_beyond_is_not_clipped():
    reward = Reward()
    assert [reward.of(100, 0), reward.of(50, 500), reward.of(50, 1000), reward.of(40, 500)] == [400, 0, -300, -20]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5000)), min_size=1, max_size=10))
def test_the_mean_reward_is_the_reward_of_the_means(paths):
    accuracy, latency_ms = np.array(paths).T
    rewards = Reward().of(accuracy, latency_ms)
    assert rewards.mean() == pytest.approx(Reward().of(accuracy.mean(), latency_ms.mean()), abs=1e-6)


def test_limits_and_weights_are_settable_and_survive_json():
    reward = Reward(accuracy_weight=1, latency_weight=2, min_accuracy=0, max_latency_ms=100)
    assert reward.of(50, 50) == 1.5
    assert msgspec.json.decode(msgspec.json.encode(reward), type=Reward) == reward


@pytest.mark.parametrize(
    "wrong",
    [{"accuracy_weight": -1}, {"latency_weight": math.nan}, {"min_accuracy": 100}, {"max_latency_ms": 0},
     {"max_latency_ms": math.inf}, {"min_latency_ms": math.nan}],
)  # fmt: skip
def test_an_impossible_reward_is_refused(wrong):
    with pytest.raises(ConfigError):
        Reward(**wrong)
