"""A training that stopped, taken up again: the weights of one that did not."""

import numpy as np
import pytest
import torch
from stream_systems import small_costs

from modeltree.errors import ConfigError
from nas.agents import dqn
from nas.agents.networks import Stack
from nas.agents.replay_buffer import Batch
from nas.decisions.streams.environment import TaskStreamEnv

pytestmark = pytest.mark.usefixtures("one_thread")


class Stopped(Exception):
    """The power is gone."""


def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(dqn, "_KEEP_EVERY", 300)
    config = dqn.DdqnConfig(steps=1200, warmup=200, batch=32, renew=100, seed=4)
    made = lambda: TaskStreamEnv(costs=small_costs(), tasks=50, k=1.5, slot_ms=6.0)  # noqa: E731
    whole = dqn.train(made(), config)

    def stop(done, total, text):
        if done >= 800:
            raise Stopped

    path = tmp_path / "state"
    with pytest.raises(Stopped):
        dqn.train(made(), config, stop, checkpoint=path)
    again = dqn.train(made(), config, checkpoint=path)
    for one, two in zip(whole.export().arrays().values(), again.export().arrays().values(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert whole.returns == again.returns
    with pytest.raises(ConfigError, match="of another training"):
        dqn.train(made(), dqn.DdqnConfig(steps=1200, warmup=200, batch=32, renew=100, seed=5), checkpoint=path)


def test_double_takes_the_targets_value_of_the_networks_choice():
    network, target = (Stack([1, 2], generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with torch.no_grad():
        for stack, values in ((network, [3.0, 1.0]), (target, [10.0, 20.0])):
            stack.weights[0].zero_()
            stack.biases[0].copy_(torch.tensor([[values]]))
    zero = torch.zeros(1, 1)
    batch = Batch(zero, torch.tensor([1]), torch.tensor([1.0]), zero, torch.tensor([0.0]))
    plain = dqn.loss_of(network, target, batch, 0.5)  # 1 + 0.5 * 20 against 1
    double = dqn.loss_of(network, target, batch, 0.5, double=True)  # 1 + 0.5 * 10 against 1
    assert (plain.item(), double.item()) == pytest.approx((10.0 - 0.5, 5.0 - 0.5))
