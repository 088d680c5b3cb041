"""Asynchronous advantage actor-critic for vectorised environments with several choices a step [Mnih 2016; Li 2023].

Workers are processes. Each takes the shared parameters, plays `steps` steps of its own copies of the environment, and
sends its gradient into the shared parameters at once, without waiting for the others. With one worker everything
happens in this process, and a seed gives the same agent every time.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
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

    episodes : played by all workers together, those of the starts included. slots : steps of an episode.
    copies, steps : of the environment in a worker, and how many each takes between two updates (k, and t_max); their
    product is the batch. starts, start_share : see `train`.
    first_entropy, entropy : beta of eq. 18 at the beginning of the starts and of what follows; each falls
    exponentially to `last_entropy` of itself. lr : falls in a straight line to `last_lr` of itself.
    """

    episodes: int = 400
    slots: int = 600
    workers: int = 1
    copies: int = 32
    steps: int = 1
    hidden: int = 128
    starts: int = 16
    start_share: float = 0.8
    gamma: float = 0.95
    lr: float = 0.01
    last_lr: float = 0.05
    first_entropy: float = 0.05
    entropy: float = 0.02
    last_entropy: float = 0.05
    value: float = 0.5
    tie: float = 1e-4
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.episodes, self.slots, self.workers, self.copies, self.steps, self.hidden, self.starts)
        if min(counts) < 1:
            raise ConfigError(f"episodes, slots, workers, copies, steps, hidden, starts are {counts}: each at least 1")
        if not (0 <= self.gamma < 1 and self.lr > 0 and 0 < self.last_lr <= 1 and self.clip > 0):
            raise ConfigError("gamma must lie in 0..1 (1 excluded), lr and clip above 0, last_lr in 0..1 (0 excluded)")
        if not (0 < self.start_share < 1 and 0 < self.last_entropy <= 1):
            raise ConfigError("start_share must lie in 0..1, last_entropy too (1 included): pass numbers in between")

    @property
    def phases(self) -> tuple["Phase", "Phase"]:
        """Of a start, and of what follows the starts."""
        updates = self.episodes * self.slots // (self.copies * self.steps)
        each = int(updates * self.start_share / self.starts) if self.starts > 1 else 0
        rest = max(1, updates - each * self.starts)
        return Phase(updates=each, entropy=self.first_entropy), Phase(updates=rest, entropy=self.entropy)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """So many updates of all workers together, from that entropy down."""

    updates: int
    entropy: float


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

    Heads that choose independently settle where no head alone can improve, and neither entropy nor the advantage's
    scale gets them out: a swap needs two heads at once. So several networks start, each with a share of the episodes;
    the one whose last rewards were highest goes on, the others are dropped. This is not in [Li 2023].

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
    chance = by_chance(probe, config.seed, config.slots)
    start, rest = config.phases
    with _workers(config.workers) as run:
        best: tuple[float, ActorCritic, SharedRmsProp] | None = None
        curve: list[float] = []
        for index in range(config.starts if start.updates else 1):
            network = ActorCritic(space.shape[0], choices.heads, choices.options, config.hidden)
            network.centre_(chance.observation, chance.observation_spread)
            share = SharedRmsProp(network.share_memory().parameters())
            level = -math.inf
            if start.updates:
                played, level = run(make, choices, config, start, network, share, chance, index)
                curve += played
            if best is None or level > best[0]:
                best = level, network, share
        assert best is not None
        curve += run(make, choices, config, rest, best[1], best[2], chance, config.starts)[0]
    return Trained(network=best[1], curve=curve, seconds=time.monotonic() - began)


@dataclass(frozen=True, kw_only=True, eq=False)
class Chance:
    """Means and deviations under random actions, which rewards and observations are measured in; (inputs,)."""

    reward: float
    reward_spread: float
    observation: np.ndarray
    observation_spread: np.ndarray


def by_chance(env: gymnasium.vector.VectorEnv, seed: int, steps: int = 64) -> Chance:
    """Play random actions; what never varies has a deviation of 1. A whole episode shows what changes slowly, too."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    played = [env.step(env.action_space.sample()) for _ in range(steps)]
    rewards, seen = np.concatenate([one[1] for one in played]), np.concatenate([one[0] for one in played])
    spread = seen.std(0)
    return Chance(
        reward=float(rewards.mean()),
        reward_spread=float(rewards.std()) or 1.0,
        observation=seen.mean(0),
        observation_spread=np.where(spread < 1e-3, 1.0, spread).astype(seen.dtype),
    )


Run = Callable[..., tuple[list[float], float]]


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Run]:
    """Something that lets all workers play a phase: the curve, and the mean of the last rewards."""
    if count == 1:

        def alone(*arguments: Any) -> tuple[list[float], float]:
            everything: list[Any] = [0, *arguments, torch.zeros(1)]
            return _work(*everything)

        yield alone
        return
    with multiprocessing.get_context("spawn").Pool(count) as pool:

        def together(*arguments: Any) -> tuple[list[float], float]:
            done = torch.zeros(1).share_memory_()
            found = pool.starmap(_work, [(index, *arguments, done) for index in range(count)])
            shortest = min(len(curve) for curve, _ in found)
            curve = np.mean([curve[:shortest] for curve, _ in found], axis=0).tolist()
            return curve, float(np.mean([level for _, level in found]))

        yield together


def _work(
    index: int, make: MakeEnv, choices: Choices, config: A3cConfig, phase: Phase, shared: ActorCritic,
    share: SharedRmsProp, chance: Chance, start: int, done: torch.Tensor,
) -> tuple[list[float], float]:  # fmt: skip
    """One worker in one phase: the mean reward of each of its episodes' lengths, and of its last fifth of steps."""
    torch.set_num_threads(1)
    env, rng = make(config.copies), np.random.default_rng([config.seed, start, index])
    network = copy.deepcopy(shared)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    curve, tally, means = [], Tally(size=config.slots), [0.0]
    while (at := float(done)) < phase.updates:
        done += 1
        network.load_state_dict(shared.state_dict())
        played, observation = _play(env, network, choices, observation, config.steps, rng)
        curve += tally.add(played["reward"])
        means.append(float(played["reward"].mean()))
        gone = at / phase.updates
        weights = Weights(entropy=phase.entropy * config.last_entropy**gone, value=config.value, tie=config.tie)
        rewards = torch.as_tensor((played["reward"] - chance.reward) / chance.reward_spread, dtype=torch.float32)
        with torch.no_grad():
            aim = returns(rewards, network(torch.from_numpy(observation))[1], config.gamma).reshape(-1)
        loss = loss_of(network, played["observation"], played["chosen"], aim, weights)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        gradients = [parameter.grad for parameter in network.parameters()]
        share.step_(gradients, config.lr * (1 - gone * (1 - config.last_lr)))
    return curve, float(np.mean(means[-max(1, len(means) // 5) :]))


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
        """The means that became whole; rewards : of any shape, in the order in which they came."""
        whole = []
        for reward in rewards.reshape(-1).tolist():
            self.total += reward
            self.count += 1
            if self.count == self.size:
                whole.append(self.total / self.count)
                self.total, self.count = 0.0, 0
        return whole
