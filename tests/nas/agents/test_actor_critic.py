"""Losses of the agents with several choices against numpy written from the equations."""

import numpy as np
import pytest
import torch

from nas.agents.a3c import A3cConfig
from nas.agents.actor_critic import ActorCritic, Weights, loss_of, returns
from nas.agents.distributed_dqn import Batch, Values
from nas.agents.distributed_dqn import loss_of as dqn_loss
from nas.agents.joint_a3c import OneHeadForAll
from nas.agents.shared_rmsprop import SharedRmsProp


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _random_network(rng, inputs=5, heads=3, options=4):
    network = ActorCritic(inputs, heads, options, 8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape).astype(np.float32) * 0.5))
    return network


def _forward(stack, x):
    for layer in stack:
        x = np.tanh(x) if isinstance(layer, torch.nn.Tanh) else (
            x @ layer.weight.detach().numpy().T.astype(float) + layer.bias.detach().numpy()
        )  # fmt: skip
    return x


def test_starts_and_what_follows_use_up_the_episodes():
    config = A3cConfig(episodes=40, slots=600, copies=8, steps=4, starts=7, start_share=0.6)
    start, rest = config.phases
    assert start.updates == int(750 * 0.6 / 7)
    assert 7 * start.updates + rest.updates == 750
    alone = A3cConfig(episodes=40, slots=600, copies=8, steps=4, starts=1).phases
    assert [phase.updates for phase in alone] == [0, 750]


def test_observations_are_measured_from_the_middle_in_the_spread(rng):
    network = _random_network(rng)
    x, middle, spread = rng.normal(size=(3, 6, 5)).astype(np.float32)
    middle, spread = middle[0], abs(spread[0]) + 0.5
    plain = network(torch.from_numpy((x - middle) / spread))
    network.centre_(middle, spread)
    for one, other in zip(network(torch.from_numpy(x)), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_k_step_returns_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [2.0, 4.0]])
    found = returns(rewards, torch.tensor([8.0, 2.0]), 0.5)
    assert found.tolist() == [[1 + 0.5 * 2 + 0.25 * 8, 0.5 * 4 + 0.25 * 2], [2 + 0.5 * 8, 4 + 0.5 * 2]]


def test_the_loss_is_eq_20_in_numpy(rng):
    network = _random_network(rng)
    x = rng.normal(size=(6, 5)).astype(np.float32)
    actions, aim = rng.integers(0, 4, (6, 3)), rng.normal(size=6).astype(np.float32)
    weights = Weights(entropy=0.3, value=0.7, tie=0.01)
    found = loss_of(network, torch.from_numpy(x), torch.from_numpy(actions), torch.from_numpy(aim), weights)

    logits = _forward([*network.actor, network.policy], x).reshape(6, 3, 4)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    value = _forward([*network.critic, network.value], x)[:, 0]
    actor = 0.0
    for head in range(3):
        taken = np.log(chances[np.arange(6), head, actions[:, head]])
        entropy = -(chances[:, head] * np.log(chances[:, head])).sum(-1)
        actor += (taken * (aim - value) + 0.3 * entropy).mean() / 3
    pairs = zip(network.actor.parameters(), network.critic.parameters(), strict=True)
    distance = sum(float(((a - b) ** 2).sum().detach()) for a, b in pairs)
    assert found.item() == pytest.approx(-actor + 0.7 * ((aim - value) ** 2).mean() + 0.01 * distance, rel=1e-5)


def test_the_advantage_moves_the_actor_and_not_the_critic(rng):
    network = _random_network(rng)
    x, actions = torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32)), torch.zeros(6, 3, dtype=torch.long)
    loss_of(network, x, actions, torch.ones(6), Weights(entropy=0.1, value=0.0, tie=0.0)).backward()
    assert all(one.grad is None or not one.grad.any() for one in network.critic.parameters())
    assert all(one.grad.any() for one in network.actor.parameters())


def test_the_plain_actor_has_the_chances_of_the_network(rng):
    network = _random_network(rng)
    network.centre_(rng.normal(size=5).astype(np.float32), rng.uniform(0.5, 2, 5).astype(np.float32))
    x = rng.normal(size=(4, 5)).astype(np.float32)
    logits = network.export().logits(x)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(log, network(torch.from_numpy(x))[0].detach().numpy(), atol=1e-5)
    drawn = np.stack([network.export().drawn(x[:1], rng)[0, 0] for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, np.exp(log[0, 0]), atol=0.03)


def test_rmsprop_is_eqs_23_and_24(rng):
    parameter = torch.tensor([1.0, -2.0])
    optimiser = SharedRmsProp([parameter], alpha=0.9, epsilon=1e-3)
    theta, g = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(3):
        d = rng.normal(size=2)
        optimiser.step_([torch.from_numpy(d.astype(np.float32))], 0.1)
        g = 0.9 * g + 0.1 * d**2
        theta = theta - 0.1 * d / np.sqrt(g + 1e-3)
    np.testing.assert_allclose(parameter.numpy(), theta, rtol=1e-5)
    assert optimiser.averages[0].is_shared()


def test_a_joint_head_names_every_combination_once():
    joint = OneHeadForAll((3, 3, 2))
    actions = joint.actions(np.arange(18)[:, None])
    assert len({tuple(row) for row in actions.tolist()}) == 18
    assert actions.max(0).tolist() == [2, 2, 1]


def test_the_dqn_loss_in_numpy(rng):
    network, target = Values(5, 3, 4, 8), Values(5, 3, 4, 8)
    x, following = rng.normal(size=(2, 6, 5)).astype(np.float32)
    actions, reward = rng.integers(0, 4, (6, 3)), rng.normal(size=6).astype(np.float32)
    batch = Batch(observation=torch.from_numpy(x), actions=torch.from_numpy(actions), reward=torch.from_numpy(reward),
                  following=torch.from_numpy(following))  # fmt: skip
    q = network(batch.observation).detach().numpy()
    aim = reward + 0.9 * target(batch.following).detach().numpy().max(-1).mean(-1)
    error = np.take_along_axis(q, actions[:, :, None], 2)[:, :, 0] - aim[:, None]
    huber = np.where(abs(error) < 1, error**2 / 2, abs(error) - 0.5).mean()
    assert dqn_loss(network, target, batch, 0.9).item() == pytest.approx(huber, rel=1e-5)
