"""Asynchronous advantage actor-critic for vectorised environments with several choices a step [Mnih 2016; Li 2023].

Workers are processes. Each takes the shared parameters, plays `steps` steps of its own copies of the environment, and
sends its gradient into the shared parameters at once, without waiting for the others. With one worker everything
happens in this process, and a seed gives the same agent every time.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import multiprocessing

from modeltree.errors import ConfigError
from nas.agents.a3c.actor_critic import ActorCritic, Weights, returns
from nas.agents.a3c.flat_actor_critic import FlatActorCritic, Shape, flattened, restore_
from nas.agents.a3c.shared_rmsprop import rmsprop_


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
    """How the agent learns; lr, the batch of 32 and up to 8 workers are the paper's.

    gamma is 0, not the paper's 0.95: what is placed in a slot changes nothing of the next one but the energy left,
    which costs nothing, so that later rewards are noise in a return. starts is not the paper's either: see `train`.

    episodes : played by all workers together, those of the starts included. slots : steps of an episode.
    copies, steps : of the environment in a worker, and how many each takes between two updates (k, and t_max); their
    product is the batch. starts : a power of two. start_share : of the episodes, for all rounds.
    first_entropy, entropy : beta of eq. 18 at the beginning of the starts and of what follows; each falls
    exponentially to `last_entropy` of itself. lr, second_lr : of the starts and of what follows; each falls in a
    straight line to `last_lr` of itself.
    """

    episodes: int = 400
    slots: int = 600
    workers: int = 1
    copies: int = 32
    steps: int = 1
    hidden: int = 64
    starts: int = 32
    start_share: float = 0.7
    gamma: float = 0.0
    lr: float = 0.01
    second_lr: float = 0.003
    last_lr: float = 0.05
    first_entropy: float = 0.1
    entropy: float = 0.05
    last_entropy: float = 0.2
    value: float = 0.5
    tie: float = 1e-4
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.episodes, self.slots, self.workers, self.copies, self.steps, self.hidden, self.starts)
        if min(counts) < 1 or self.starts & (self.starts - 1):
            raise ConfigError(
                f"episodes, slots, workers, copies, steps, hidden, starts are {counts}: each at least 1, starts a "
                "power of two"
            )
        if not (0 <= self.gamma < 1 and min(self.lr, self.second_lr, self.clip) > 0 and 0 < self.last_lr <= 1):
            raise ConfigError(
                "gamma must lie in 0..1 (1 excluded), lr, second_lr and clip above 0, last_lr in 0..1 (0 excluded)"
            )
        if not (0 < self.start_share < 1 and 0 < self.last_entropy <= 1):
            raise ConfigError("start_share must lie in 0..1, last_entropy too (1 included): pass numbers in between")

    @property
    def phases(self) -> list["Phase"]:
        """One for each round of the starts, and what follows."""
        updates = self.episodes * self.slots // (self.copies * self.steps)
        rounds, listed, spent = self.starts.bit_length() - 1, [], 0
        for index in range(rounds):
            networks = self.starts >> index
            each = int(updates * self.start_share / rounds / networks)
            spent += networks * each
            listed.append(
                Phase(networks=networks, updates=each, entropy=self.first_entropy, lr=self.lr, first=index / rounds,
                      last=(index + 1) / rounds)
            )  # fmt: skip
        rest = max(1, updates - spent)
        lr = self.second_lr if rounds else self.lr
        return [*listed, Phase(networks=1, updates=rest, entropy=self.entropy, lr=lr, first=0.0, last=1.0)]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Of so many networks, each with so many updates of all workers together.

    entropy, lr : where their falls begin. first, last : the part of the fall that the phase has.
    """

    networks: int
    updates: int
    entropy: float
    lr: float
    first: float
    last: float


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
    scale gets them out: a swap needs two heads at once. So several networks start; after every round the half whose
    last rewards were higher goes on, with twice the updates each, until one is left. This is not in [Li 2023];
    `starts=1` is the paper's.

    Raises
    ------
    ConfigError : the environment's observations are no vectors.
    """
    began = time.monotonic()
    torch.manual_seed(config.seed)
    space = make(1).single_observation_space
    if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
        raise ConfigError(f"the environment's observations are {space}: they must be vectors")
    chance = by_chance(make(config.copies), config.seed, config.slots)
    learners = [_fresh(space.shape[0], choices, config) for _ in range(config.starts)]
    shape, curve = flattened(learners[0].network)[0], []
    with _workers(make, choices, config, shape, chance) as run:
        for number, phase in enumerate(config.phases):
            levels = []
            for place, learner in enumerate(learners):
                played, level = run(phase, learner.shared, learner.averages, (number, place))
                curve += played
                levels.append(level)
            order = np.argsort(levels)[::-1]
            learners = [learners[place] for place in order[: max(1, len(learners) // 2)]]
    best = learners[0]
    restore_(best.network, best.shared.numpy())
    best.network.centre_(chance.observation, chance.observation_spread)
    return Trained(network=best.network, curve=curve, seconds=time.monotonic() - began)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Learner:
    """A network, its parameters and RMSProp's averages in memory that workers share."""

    network: ActorCritic
    shared: torch.Tensor
    averages: torch.Tensor


def _fresh(inputs: int, choices: Choices, config: A3cConfig) -> _Learner:
    network = ActorCritic(inputs, choices.heads, choices.options, config.hidden)
    vector = torch.from_numpy(flattened(network)[1]).share_memory_()
    return _Learner(network=network, shared=vector, averages=torch.zeros_like(vector).share_memory_())


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
    rewards, observations = np.concatenate([one[1] for one in played]), np.concatenate([one[0] for one in played])
    spread = observations.std(0)
    return Chance(
        reward=float(rewards.mean()),
        reward_spread=float(rewards.std()) or 1.0,
        observation=observations.mean(0),
        observation_spread=np.where(spread < 1e-3, 1.0, spread).astype(observations.dtype),
    )


Run = Callable[..., tuple[list[float], float]]


@contextlib.contextmanager
def _workers(make: MakeEnv, choices: Choices, config: A3cConfig, shape: Shape, chance: Chance) -> Iterator[Run]:
    """Something that lets all workers play a phase with one network: the curve, and the mean of the last rewards."""
    if config.workers == 1:
        worker = _Worker(0, make, choices, config, shape, chance)

        def alone(*arguments: Any) -> tuple[list[float], float]:
            everything: list[Any] = [*arguments, torch.zeros(1)]
            return worker.work(*everything)

        yield alone
        return
    with multiprocessing.get_context("spawn").Pool(config.workers) as pool:

        def together(*arguments: Any) -> tuple[list[float], float]:
            done = torch.zeros(1).share_memory_()
            fixed = (make, choices, config, shape, chance)
            results = pool.starmap(_work, [(index, *fixed, *arguments, done) for index in range(config.workers)])
            shortest = min(len(curve) for curve, _ in results)
            curve = np.mean([curve[:shortest] for curve, _ in results], axis=0).tolist()
            return curve, float(np.mean([level for _, level in results]))

        yield together


def _work(index: int, make: MakeEnv, choices: Choices, config: A3cConfig, shape: Shape, chance: Chance,
          *arguments: Any) -> tuple[list[float], float]:  # fmt: skip
    torch.set_num_threads(1)
    everything: list[Any] = [*arguments]
    return _Worker(index, make, choices, config, shape, chance).work(*everything)


class _Worker:
    """One of the asynchronous workers, with copies of the environment and of the parameters."""

    def __init__(
        self, index: int, make: MakeEnv, choices: Choices, config: A3cConfig, shape: Shape, chance: Chance
    ) -> None:
        self.index, self.env, self.config, self.chance = index, make(config.copies), config, chance
        self.choices = choices
        self.own = FlatActorCritic(shape, np.zeros(shape.numbers, np.float32))
        self.tally = Tally(size=config.slots)
        self.observation: np.ndarray | None = None

    def work(
        self, phase: Phase, shared: torch.Tensor, averages: torch.Tensor, run: tuple[int, int], done: torch.Tensor
    ) -> tuple[list[float], float]:
        """One phase: the mean reward of each of its episodes' lengths, and of its last fifth of steps."""
        config, own = self.config, self.own
        parameters, squares = shared.numpy(), averages.numpy()
        rng = np.random.default_rng([config.seed, *run, self.index])
        if self.observation is None:
            self.observation = self._centred(self.env.reset(seed=int(rng.integers(2**31)))[0])
        curve, means = [], [0.0]
        while (at := float(done)) < phase.updates:
            done += 1
            np.copyto(own.vector, parameters)
            observation, chosen, rewards = self._play(rng)
            curve += self.tally.add(rewards)
            means.append(float(rewards.mean()))
            gone = phase.first + (phase.last - phase.first) * at / phase.updates
            weights = Weights(entropy=phase.entropy * config.last_entropy**gone, value=config.value, tie=config.tie)
            aim = returns((rewards - self.chance.reward) / self.chance.reward_spread,
                          own.value(self.observation), config.gamma).reshape(-1)  # fmt: skip
            gradient = own.differentiate(observation, chosen, aim.astype(np.float32), weights)
            gradient *= min(1.0, config.clip / max(1e-12, float(np.linalg.norm(gradient))))
            rmsprop_(parameters, squares, gradient, phase.lr * (1 - gone * (1 - config.last_lr)))
        return curve, float(np.mean(means[-max(1, len(means) // 5) :]))

    def _play(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations and choices, (steps * copies, ...), and rewards, (steps, copies)."""
        observations, taken, rewards = [], [], []
        assert self.observation is not None
        for _ in range(self.config.steps):
            chosen = self.own.drawn(self.observation, rng)
            observations.append(self.observation)
            taken.append(chosen)
            observation, reward, *_ = self.env.step(self.choices.actions(chosen))
            self.observation = self._centred(observation)
            rewards.append(reward)
        return np.concatenate(observations), np.concatenate(taken), np.stack(rewards)

    def _centred(self, observation: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (observation - self.chance.observation) / self.chance.observation_spread
        return scaled.astype(np.float32)


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
