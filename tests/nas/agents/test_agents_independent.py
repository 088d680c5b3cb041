"""The agents against what was written without them: their losses in numpy alone, and a standard task."""

import gymnasium
import numpy as np
import pytest
import torch

from nas.agents import AGENTS
from nas.agents.dqn import loss_of
from nas.agents.networks import Stack
from nas.agents.replay_buffer import Batch
from nas.agents.sac import actor_loss, critic_loss, critic_targets, temperature_loss

INPUTS, HIDDEN, ACTIONS, COUNT = 3, 5, 4, 6
ALPHA, GAMMA, TARGET_ENTROPY, STEP = 0.4, 0.9, 0.8, 1e-5


pytestmark = pytest.mark.usefixtures("one_thread")


# In numpy, from the equations: two layers' weights as a list of arrays, everything in float64.


def network(parameters, x):
    w0, b0, w1, b1 = parameters
    return np.maximum(x @ w0 + b0, 0) @ w1 + b1


def log_softmax(x):
    return x - x.max(1, keepdims=True) - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True))


def eq_8(critic, observation, action, aims):
    return np.mean(0.5 * (network(critic, observation)[np.arange(COUNT), action] - aims) ** 2)


def eq_9(actor, targets, following, reward, ended):
    log_pi = log_softmax(network(actor, following))
    low = np.minimum(*(network(target, following) for target in targets))
    return reward + GAMMA * np.where(ended, 0.0, np.sum(np.exp(log_pi) * (low - ALPHA * log_pi), axis=1))


def eq_10(actor, critics, observation):
    log_pi = log_softmax(network(actor, observation))
    low = np.minimum(*(network(critic, observation) for critic in critics))
    return np.mean(np.sum(np.exp(log_pi) * (ALPHA * log_pi - low), axis=1))


def eq_11(log_alpha, actor, observation):
    log_pi = log_softmax(network(actor, observation))
    return np.mean(np.sum(-np.exp(log_alpha) * np.exp(log_pi) * (log_pi + TARGET_ENTROPY), axis=1))


def huber(parameters, observation, action, aims):
    error = np.abs(network(parameters, observation)[np.arange(COUNT), action] - aims)
    return np.mean(np.where(error < 1, 0.5 * error**2, error - 0.5))


def slopes(loss, parameters):
    """The gradient by differences, one number at a time."""
    found = []
    for array in parameters:
        slope = np.zeros_like(array)
        for i in np.ndindex(*array.shape):
            kept = array[i]
            array[i] = kept + STEP
            above = loss()
            array[i] = kept - STEP
            slope[i] = (above - loss()) / (2 * STEP)
            array[i] = kept
        found.append(slope)
    return found


def numbers(stack, which=0):
    """A copy of one network's weights: w0, b0, w1, b1."""
    pairs = zip(stack.weights, stack.biases)
    return [array[which].detach().numpy().copy() for pair in pairs for array in pair]


def gradients(stack, which=0):
    return [array.grad[which].numpy() for pair in zip(stack.weights, stack.biases) for array in pair]


def stacks(seed):
    """Actor, two critics, their targets."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [INPUTS, HIDDEN, ACTIONS]
    return [Stack(sizes, generator=generator, count=count).double() for count in (1, 2, 2)]


def batch(seed):
    rng = np.random.default_rng(seed)
    made = (
        rng.normal(size=(COUNT, INPUTS)), rng.integers(ACTIONS, size=COUNT), rng.normal(size=COUNT),
        rng.normal(size=(COUNT, INPUTS)), np.arange(COUNT) % 3 == 1,
    )  # fmt: skip
    return made, Batch(*(torch.from_numpy(column.astype(float) if column.dtype == bool else column) for column in made))


every_seed = pytest.mark.parametrize("seed", range(4))


@every_seed
def test_the_critics_learn_by_the_loss_and_the_gradients_of_equations_8_and_9(seed):
    actor, critics, targets = stacks(seed)
    (observation, action, reward, following, ended), data = batch(seed)
    aims = eq_9(numbers(actor), [numbers(targets, i) for i in range(2)], following, reward, ended)
    ours = critic_targets(actor, targets, data, ALPHA, GAMMA)
    np.testing.assert_allclose(ours.numpy(), aims, rtol=1e-10)
    loss = critic_loss(critics, data, ours)
    loss.backward()
    both = [numbers(critics, i) for i in range(2)]
    assert loss.item() == pytest.approx(sum(eq_8(one, observation, action, aims) for one in both), rel=1e-10)
    for i, one in enumerate(both):
        expected = slopes(lambda one=one: eq_8(one, observation, action, aims), one)
        for a, b in zip(gradients(critics, i), expected):
            np.testing.assert_allclose(a.reshape(b.shape), b, atol=1e-7)


@every_seed
def test_the_policy_learns_by_the_loss_and_the_gradient_of_equation_10(seed):
    actor, critics, _ = stacks(seed)
    (observation, *_), data = batch(seed)
    loss, _ = actor_loss(actor, critics, data, ALPHA)
    loss.backward()
    one, both = numbers(actor), [numbers(critics, i) for i in range(2)]
    assert loss.item() == pytest.approx(eq_10(one, both, observation), rel=1e-10)
    for a, b in zip(gradients(actor), slopes(lambda: eq_10(one, both, observation), one)):
        np.testing.assert_allclose(a.reshape(b.shape), b, atol=1e-7)


@every_seed
def test_the_temperature_learns_by_the_loss_and_the_gradient_of_equation_11(seed):
    actor, critics, _ = stacks(seed)
    (observation, *_), data = batch(seed)
    _, entropy = actor_loss(actor, critics, data, ALPHA)
    log_alpha = torch.tensor(np.log(ALPHA), dtype=torch.float64, requires_grad=True)
    loss = temperature_loss(log_alpha, entropy, TARGET_ENTROPY)
    loss.backward()
    at = [np.array([np.log(ALPHA)])]
    assert loss.item() == pytest.approx(eq_11(at[0][0], numbers(actor), observation), rel=1e-10)
    slope = slopes(lambda: eq_11(at[0][0], numbers(actor), observation), at)[0][0]
    assert float(log_alpha.grad) == pytest.approx(slope, rel=1e-6)


@every_seed
def test_the_q_network_learns_by_hubers_loss_and_its_gradient(seed):
    network_, _, target = stacks(seed)
    (observation, action, reward, following, ended), data = batch(seed)
    aims = reward + GAMMA * np.where(ended, 0.0, network(numbers(target), following).max(axis=1))
    loss = loss_of(network_, target, data, GAMMA)
    loss.backward()
    one = numbers(network_)
    assert loss.item() == pytest.approx(huber(one, observation, action, aims), rel=1e-10)
    for a, b in zip(gradients(network_), slopes(lambda: huber(one, observation, action, aims), one)):
        np.testing.assert_allclose(a.reshape(b.shape), b, atol=1e-7)


SHORT = {
    "sac": {"steps": 2500, "batch": 64, "hidden": 32},
    "dqn": {"steps": 4000, "batch": 64, "hidden": 32, "renew": 100, "explore": 0.3},
}


@pytest.mark.parametrize("name", SHORT)
def test_the_agents_learn_to_balance_a_pole(name):
    """CartPole-v1 pays 1 for every step until the pole falls: 20 or so at random, 500 at most."""
    agent = AGENTS[name]
    found = agent.train(gymnasium.make("CartPole-v1"), agent.config(**SHORT[name]))
    env, lasted = gymnasium.make("CartPole-v1"), []
    for episode in range(10):
        seen, over, total = env.reset(seed=1000 + episode)[0], False, 0.0
        while not over:
            seen, reward, ended, cut_off, _ = env.step(found.act(seen))
            over, total = ended or cut_off, total + reward
        lasted.append(total)
    assert np.mean(lasted) > 60
