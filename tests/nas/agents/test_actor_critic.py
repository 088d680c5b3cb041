"""Losses of the agents with several choices against numpy written from the equations."""

import functools

import numpy as np
import pytest
import torch

from modeltree.errors import ConfigError
from nas.agents.a3c import A3cConfig
from nas.agents.a3c.actor_critic import ActorCritic, Weights, loss_of, returns
from nas.agents.a3c.flat_actor_critic import FlatActorCritic, flattened, restore_
from nas.agents.a3c.joint import OneHeadForAll
from nas.agents.a3c.multitask import train_multitask
from nas.agents.a3c.shared_rmsprop import rmsprop_
from nas.agents.distributed_dqn import Batch, Values
from nas.agents.distributed_dqn import loss_of as dqn_loss
from nas.decisions.placement.environment import PlacementVectorEnv


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


def test_rounds_of_starts_and_what_follows_use_up_the_episodes():
    config = A3cConfig(episodes=40, slots=600, copies=8, steps=4, starts=8, start_share=0.6)
    phases = config.phases
    assert [phase.networks for phase in phases] == [8, 4, 2, 1]
    assert [phase.updates for phase in phases[:3]] == [int(750 * 0.6 / 3 / n) for n in (8, 4, 2)]
    assert sum(phase.networks * phase.updates for phase in phases) == 750
    np.testing.assert_allclose([phase.first for phase in phases], [0, 1 / 3, 2 / 3, 0])
    np.testing.assert_allclose([phase.last for phase in phases], [1 / 3, 2 / 3, 1, 1])
    alone = A3cConfig(episodes=40, slots=600, copies=8, steps=4, starts=1).phases
    assert [(phase.networks, phase.updates, phase.lr) for phase in alone] == [(1, 750, config.lr)]
    with pytest.raises(ConfigError, match="power of two"):
        A3cConfig(starts=7)


def test_the_flat_network_is_torchs_and_so_is_its_gradient(rng):
    network = _random_network(rng).double()
    shape, vector = flattened(network)
    flat = FlatActorCritic(shape, vector)
    x, actions, aim = rng.normal(size=(6, 5)), rng.integers(0, 4, (6, 3)), rng.normal(size=6)
    weights = Weights(entropy=0.3, value=0.7, tie=0.01)
    log, value = network(torch.from_numpy(x))
    ours = flat.logits(x)
    np.testing.assert_allclose(ours - np.log(np.exp(ours).sum(-1, keepdims=True)), log.detach(), atol=1e-12)
    np.testing.assert_allclose(flat.value(x), value.detach(), atol=1e-12)
    loss_of(network, torch.from_numpy(x), torch.from_numpy(actions), torch.from_numpy(aim), weights).backward()
    slopes = [one.grad.numpy().T.ravel() for stack in (network.actor, network.critic, network.policy, network.value)
              for one in stack.parameters()]  # fmt: skip
    np.testing.assert_allclose(flat.differentiate(x, actions, aim, weights), np.concatenate(slopes), atol=1e-12)
    other = _random_network(rng).double()
    restore_(other, vector)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_observations_are_measured_from_the_middle_in_the_spread(rng):
    network = _random_network(rng)
    x, middle, spread = rng.normal(size=(3, 6, 5)).astype(np.float32)
    middle, spread = middle[0], abs(spread[0]) + 0.5
    plain = network(torch.from_numpy((x - middle) / spread))
    network.centre_(middle, spread)
    for one, other in zip(network(torch.from_numpy(x)), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_k_step_returns_by_hand():
    rewards = np.array([[1.0, 0.0], [2.0, 4.0]])
    found = returns(rewards, np.array([8.0, 2.0]), 0.5)
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


def test_rmsprop_is_eqs_23_and_24_by_hand(rng):
    parameters, averages = np.array([1.0, -2.0], np.float32), np.zeros(2, np.float32)
    theta, g = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(3):
        d = rng.normal(size=2)
        rmsprop_(parameters, averages, d.astype(np.float32), 0.1, alpha=0.9, epsilon=1e-3)
        g = 0.9 * g + 0.1 * d**2
        theta = theta - 0.1 * d / np.sqrt(g + 1e-3)
    np.testing.assert_allclose(parameters, theta, rtol=1e-5)
    np.testing.assert_allclose(averages, g, rtol=1e-5)


def test_asynchronous_workers_learn_on_the_same_parameters():
    make = functools.partial(PlacementVectorEnv, network="vgg16", blocks=3, servers=2, slots=64)
    found = train_multitask(make, A3cConfig(episodes=60, slots=64, hidden=16, starts=2, workers=2))
    assert np.mean(found.curve[-5:]) > np.mean(found.curve[:5])


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
