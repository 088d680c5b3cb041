"""Playing an environment step by step, and the buffer that remembers the steps."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import gymnasium
import numpy as np
import torch

from modeltree.errors import ConfigError


class Batch(NamedTuple):
    """Steps to learn from: (n, in), (n,), (n,), (n, in), and (n,) with 1 where the task itself ended."""

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    following: torch.Tensor
    ended: torch.Tensor


class Replay:
    """The last `size` steps [Niu 2022, D of eq. 8]; what is older is written over."""

    def __init__(self, size: int, inputs: int) -> None:
        self.observation, self.following = (np.zeros((size, inputs), np.float32) for _ in range(2))
        self.action = np.zeros(size, np.int64)
        self.reward, self.ended = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, len(self.action))

    def add_(self, observation: np.ndarray, action: int, reward: float, following: np.ndarray, ended: bool) -> None:
        """Remember a step; observations are (inputs,)."""
        i = self.seen % len(self.action)
        self.observation[i], self.action[i], self.reward[i] = observation, action, reward
        self.following[i], self.ended[i] = following, ended
        self.seen += 1

    def sample(self, count: int, rng: np.random.Generator) -> Batch:
        """`count` steps drawn evenly, with replacement."""
        chosen = rng.integers(len(self), size=count)
        columns = (self.observation, self.action, self.reward, self.following, self.ended)
        return Batch(*(torch.from_numpy(column[chosen]) for column in columns))

    def level(self, gamma: float) -> float:
        """What a step is worth, those after it counted, if all pay the mean and end the task with the same chance.

        Critics that begin there need not climb to it: with a discount of 0.99 that is a hundred rewards, and what they
        learn on the way up of actions that the agent then gives up stays wrong by dozens.
        """
        pay, ends = (float(column[: len(self)].mean()) for column in (self.reward, self.ended))
        return pay / (1 - gamma * (1 - ends))


def played(
    env: gymnasium.Env,
    choose: Callable[[np.ndarray, int], int],
    replay: Replay,
    *,
    steps: int,
    seed: int,
    first: int = 0,
) -> Iterator[float | None]:
    """Play on for so many steps, remembering each; yields after every step, the episode's return where it was the last.

    choose : given an observation, (inputs,), and how many steps were played, the action.
    first : steps that were played before; the environment's generator then stands where they left it.

    An episode that was merely cut off is not remembered as ended: its last state still has a value.
    """
    observation, _ = env.reset() if first else env.reset(seed=seed)
    total = 0.0
    for step in range(first, steps):
        action = choose(observation, step)
        following, reward, ended, cut_off, _ = env.step(action)
        replay.add_(observation, action, float(reward), following, ended)
        observation = following
        total += float(reward)
        if ended or cut_off:
            yield total
            observation, total = env.reset()[0], 0.0
        else:
            yield None


def spaces(env: gymnasium.Env) -> tuple[int, int]:
    """Numbers in an observation, and actions.

    Raises
    ------
    ConfigError : observations are no vectors, or actions are not numbered from 0.
    """
    observations, actions = env.observation_space, env.action_space
    if not (isinstance(observations, gymnasium.spaces.Box) and len(observations.shape) == 1):
        raise ConfigError(f"the environment's observations are {observations}: they must be a Box with one axis")
    if not (isinstance(actions, gymnasium.spaces.Discrete) and actions.start == 0):
        raise ConfigError(f"the environment's actions are {actions}: they must be Discrete, from 0")
    return observations.shape[0], int(actions.n)
