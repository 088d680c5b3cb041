"""Distributed DQN for several choices a step: Q values for every choice, actors that feed one learner [Li 2023].

With a joint Q function the outputs would be as many as combinations; as in its source each choice has its own Q over
its options on a shared network, and all aim at the same target: r + gamma * mean over choices of max Q^
[Tavakoli 2018].
"""

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError
from nas.agents.a3c import MakeEnv, Tally, by_chance


@dataclass(frozen=True, kw_only=True)
class DqnConfig:
    """How it learns. episodes, slots : see `A3cConfig`. copies : actors, each with an environment of its own.

    Every `batch` steps there is one update of `batch` remembered ones, as often as A3C's.
    explore : share of the training in which random actions fall from 1 to `last_epsilon`, the paper's 0.01.
    """

    episodes: int = 2000
    slots: int = 600
    copies: int = 8
    batch: int = 32
    hidden: int = 128
    gamma: float = 0.95
    lr: float = 1e-3
    renew: int = 200
    buffer: int = 50_000
    explore: float = 0.8
    last_epsilon: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.episodes, self.slots, self.copies, self.batch, self.hidden, self.renew, self.buffer)
        if min(counts) < 1 or self.batch % self.copies:
            raise ConfigError(f"counts are {counts}: each must be at least 1, and the copies must divide the batch")
        if not (0 <= self.gamma < 1 and self.lr > 0 and 0 < self.explore <= 1 and 0 <= self.last_epsilon <= 1):
            raise ConfigError("gamma must lie in 0..1 (1 excluded), lr above 0, explore and last_epsilon in 0..1")


class Values(nn.Module):
    """Q of every option of every choice, (B, heads, options)."""

    def __init__(self, inputs: int, heads: int, options: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.options = heads, options
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, heads * options),
        )  # fmt: skip

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Of (B, inputs)."""
        return self.layers(observation).reshape(-1, self.heads, self.options)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """(B, heads): the options of the highest value."""
        with torch.no_grad():
            return self(torch.from_numpy(observation)).argmax(-1).numpy()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Steps: observation and following (B, inputs), actions (B, heads), reward (B,)."""

    observation: torch.Tensor
    actions: torch.Tensor
    reward: torch.Tensor
    following: torch.Tensor


def loss_of(network: Values, target: Values, batch: Batch, gamma: float) -> torch.Tensor:
    """The mean Huber loss over the batch and the choices."""
    with torch.no_grad():
        aim = batch.reward + gamma * target(batch.following).amax(-1).mean(-1)
    taken = network(batch.observation).gather(2, batch.actions[:, :, None])[:, :, 0]
    return nn.functional.smooth_l1_loss(taken, aim[:, None].expand_as(taken))


@dataclass(kw_only=True)
class TrainedDqn:
    """A network, the mean reward of every episode's length of steps, and the seconds that training took."""

    network: Values
    curve: list[float]
    seconds: float


def train_dqn(make: MakeEnv, config: DqnConfig) -> TrainedDqn:
    """Train it on a vectorised MultiDiscrete environment."""
    began = time.monotonic()
    torch.manual_seed(config.seed)
    env, rng = make(config.copies), np.random.default_rng(config.seed)
    heads, options = len(env.single_action_space.nvec), int(env.single_action_space.nvec[0])  # type: ignore[attr-defined]
    chance = by_chance(env, config.seed)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    network = Values(observation.shape[1], heads, options, config.hidden)
    target = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr)
    memory = _Memory(config.buffer, observation.shape[1], heads)
    tally, curve = Tally(size=config.slots), []
    updates = max(1, config.episodes * config.slots // config.batch)
    for update in range(updates):
        epsilon = max(config.last_epsilon, 1 - (1 - config.last_epsilon) * update / (config.explore * updates))
        for _ in range(config.batch // config.copies):
            anywhere = rng.integers(0, options, (config.copies, heads))
            chosen = np.where(rng.random((config.copies, heads)) < epsilon, anywhere, network.best(observation))
            following, reward, *_ = env.step(chosen)
            memory.add(observation, chosen, (reward - chance.reward) / chance.reward_spread, following)
            curve += tally.add(reward)
            observation = following
        optimiser.zero_grad()
        loss_of(network, target, memory.draw(config.batch, rng), config.gamma).backward()
        optimiser.step()
        if (update + 1) % config.renew == 0:
            target.load_state_dict(network.state_dict())
    return TrainedDqn(network=network, curve=curve, seconds=time.monotonic() - began)


class _Memory:
    """The last steps, in a ring."""

    def __init__(self, size: int, inputs: int, heads: int) -> None:
        self.size, self.at, self.held = size, 0, 0
        self.observation, self.following = np.zeros((2, size, inputs), np.float32)
        self.actions, self.reward = np.zeros((size, heads), np.int64), np.zeros(size, np.float32)

    def add(self, observation: np.ndarray, actions: np.ndarray, reward: np.ndarray, following: np.ndarray) -> None:
        rows = (self.at + np.arange(len(reward))) % self.size
        self.observation[rows], self.actions[rows] = observation, actions
        self.reward[rows], self.following[rows] = reward, following
        self.at = (self.at + len(reward)) % self.size
        self.held = min(self.size, self.held + len(reward))

    def draw(self, count: int, rng: np.random.Generator) -> Batch:
        rows = rng.integers(0, self.held, count)
        fields = (self.observation[rows], self.actions[rows], self.reward[rows], self.following[rows])
        observation, actions, reward, following = map(torch.from_numpy, fields)
        return Batch(observation=observation, actions=actions, reward=reward, following=following)
