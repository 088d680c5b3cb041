"""Asynchronous advantage actor-critic for vectorised environments with several choices a step [Mnih 2016; Li 2023].

Workers are processes. Each takes the shared parameters, plays `steps` steps of its own copies of the environment, and
sends its gradient into the shared parameters at once, without waiting for the others. With one worker everything
happens in this process, and a seed gives the same agent every time.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import multiprocessing

from modeltree.errors import ConfigError
from nas.agents.actor_critic import ActorCritic, Weights, loss_of, returns
from nas.agents.shared_rmsprop import SharedRmsProp


class Choices(Protocol):
    """How an agent's heads stand for the environment's actions."""

    @property
    def heads(self) -> int:
        """Choices."""

    @property
    def options(self) -> int:
        """Of every choice."""

    def actions(self, chosen: np.ndarray) -> np.ndarray:
        """(B, choices) for the environment from (B, heads)."""


@dataclass(frozen=True, kw_only=True)
class A3cConfig:
    """How the agent learns; lr, gamma, the batch of 32 and up to 8 workers are the paper's.

    episodes : played by all workers together. slots : steps of an episode. copies, steps : of the environment in a
    worker, and how many each takes between two updates (k, and t_max); their product is the batch.
    entropy : beta of eq. 18, falls to a hundredth in a straight line. last_lr : share of lr at the last update.
    """

    episodes: int = 400
    slots: int = 600
    workers: int = 1
    copies: int = 16
    steps: int = 2
    hidden: int = 128
    gamma: float = 0.95
    lr: float = 0.01
    last_lr: float = 0.05
    entropy: float = 0.3
    value: float = 0.5
    tie: float = 1e-4
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.episodes, self.slots, self.workers, self.copies, self.steps, self.hidden)
        if min(counts) < 1:
            raise ConfigError(f"episodes, slots, workers, copies, steps, hidden are {counts}: each must be at least 1")
        if not (0 <= self.gamma < 1 and self.lr > 0 and 0 < self.last_lr <= 1 and self.clip > 0):
            raise ConfigError("gamma must lie in 0..1 (1 excluded), lr and clip above 0, last_lr in 0..1 (0 excluded)")

    @property
    def updates(self) -> int:
        """Of all workers together."""
        return max(1, self.episodes * self.slots // (self.copies * self.steps))


@dataclass(kw_only=True)
class Trained:
    """A network, and the mean reward of every episode's length of steps. seconds : that training took."""

    network: ActorCritic
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0


MakeEnv = Callable[[int], gymnasium.vector.VectorEnv]
"""An environment of so many copies; must be picklable for several workers."""


def train(make: MakeEnv, choices: Choices, config: A3cConfig) -> Trained:
    """Train an agent.

    Raises
    ------
    ConfigError : the environment's observations are no vectors.
    """
    began = time.monotonic()
    torch.manual_seed(config.seed)
    probe = make(config.copies)
    space = probe.single_observation_space
    if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
        raise ConfigError(f"the environment's observations are {space}: they must be vectors")
    network = ActorCritic(space.shape[0], choices.heads, choices.options, config.hidden)
    centre = rewards_of_chance(probe, config.seed)
    share = SharedRmsProp(network.share_memory().parameters())
    done = torch.zeros(1).share_memory_()
    if config.workers == 1:
        curve = _work(0, make, choices, config, network, share, done, centre)
    else:
        curve = _in_processes(make, choices, config, network, share, done, centre)
    return Trained(network=network, curve=curve, seconds=time.monotonic() - began)


def rewards_of_chance(env: gymnasium.vector.VectorEnv, seed: int) -> tuple[float, float]:
    """Mean and deviation of the rewards of random actions: what rewards are measured in."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    rewards = np.concatenate([env.step(env.action_space.sample())[1] for _ in range(64)])
    return float(rewards.mean()), float(rewards.std()) or 1.0


def _in_processes(
    make: MakeEnv, choices: Choices, config: A3cConfig, network: ActorCritic, share: SharedRmsProp, done: torch.Tensor,
    centre: tuple[float, float],
) -> list[float]:  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.workers) as pool:
        arguments = [(index, make, choices, config, network, share, done, centre) for index in range(config.workers)]
        curves = pool.starmap(_work, arguments)
    shortest = min(len(curve) for curve in curves)
    return np.mean([curve[:shortest] for curve in curves], axis=0).tolist()


def _work(
    index: int, make: MakeEnv, choices: Choices, config: A3cConfig, shared: ActorCritic, share: SharedRmsProp,
    done: torch.Tensor, centre: tuple[float, float],
) -> list[float]:  # fmt: skip
    """One worker; the mean reward of each of its episodes' lengths."""
    torch.set_num_threads(1)
    env, rng = make(config.copies), np.random.default_rng([config.seed, index])
    network = copy.deepcopy(shared)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    curve, tally = [], Tally(size=config.slots)
    while (at := float(done)) < config.updates:
        done += 1
        network.load_state_dict(shared.state_dict())
        played, observation = _play(env, network, choices, observation, config.steps, rng)
        curve += tally.add(played["reward"])
        left = 1 - at / config.updates
        weights = Weights(entropy=config.entropy * max(left, 0.01), value=config.value, tie=config.tie)
        rewards = torch.as_tensor((played["reward"] - centre[0]) / centre[1], dtype=torch.float32)
        with torch.no_grad():
            aim = returns(rewards, network(torch.from_numpy(observation))[1], config.gamma).reshape(-1)
        loss = loss_of(network, played["observation"], played["chosen"], aim, weights)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        gradients = [parameter.grad for parameter in network.parameters()]
        share.step_(gradients, config.lr * max(left, config.last_lr))
    return curve


def _play(
    env: gymnasium.vector.VectorEnv, network: ActorCritic, choices: Choices, observation: np.ndarray, steps: int,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], np.ndarray]:  # fmt: skip
    """So many steps; arrays begin with (steps * copies), rewards with (steps, copies)."""
    actor = network.export()
    seen, taken, rewards = [], [], []
    for _ in range(steps):
        chosen = actor.drawn(observation, rng)
        seen.append(observation)
        taken.append(chosen)
        observation, reward, *_ = env.step(choices.actions(chosen))
        rewards.append(reward)
    played = {
        "observation": torch.from_numpy(np.concatenate(seen)),
        "chosen": torch.from_numpy(np.concatenate(taken)),
        "reward": np.stack(rewards),
    }
    return played, observation


@dataclass(kw_only=True)
class Tally:
    """Means over every `size` rewards."""

    size: int
    total: float = 0.0
    count: int = 0

    def add(self, rewards: np.ndarray) -> list[float]:
        """The means that became whole."""
        whole = []
        for reward in rewards.reshape(-1).tolist():
            self.total += reward
            self.count += 1
            if self.count == self.size:
                whole.append(self.total / self.count)
                self.total, self.count = 0.0, 0
        return whole
