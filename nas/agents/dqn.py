"""Deep Q network: the baseline of [Niu 2022, sec. IV; Mnih et al. 2015], and double, the agent of [Song 2021, alg. 2].

One network gives every action's value Q(s, a) = r + gamma max Q^(s', .); Q^ is a copy that is renewed now and then.
Double [van Hasselt 2015]: r + gamma Q^(s', argmax Q(s', .)), so that what one network overrates the other has to
believe, too. Actions are the best ones, except for a share epsilon of random ones that falls while it learns.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch

from modeltree.errors import ConfigError, unknown
from nas.agents.networks import ACTIVATIONS, Learnt, Stack, adam, check_config, layer_sizes, slow_down_
from nas.agents.replay_buffer import Batch, Replay, played, spaces
from nas.agents.resume import Training
from nas.jobs.progress import Progress, silent

_KEEP_EVERY = 5_000
"""Steps between two checkpoints, at least; they are written where an episode ends."""


@dataclass(frozen=True, kw_only=True)
class DqnConfig:
    """How the agent learns. gamma, lr and the five layers are the paper's; it gives no other number.

    steps : in the environment; one update follows each. warmup : the first of them, with random actions and no update.
    hidden : numbers in a hidden layer. buffer : steps remembered.
    renew : steps between two copies of the network to the target's.
    last_epsilon : share of random actions at the end; it falls from 1 in a straight line over `explore` of the steps.
    last_lr : share of lr that is left at the last update; it falls in a straight line.
    dueling, begin_at_mean : whether the network is a dueling one (`Stack`), and whether it begins at the rewards' mean
        (`Replay.level`). Without both, and with last_lr 1, this is the agent of Mnih et al. with Adam.
    double : whether the network chooses the action whose value the target's tells. activation : `relu` or `tanh`.
    every : steps between two updates.
    """

    steps: int = 8_000
    warmup: int = 500
    batch: int = 128
    hidden: int = 64
    layers: int = 5
    gamma: float = 0.99
    lr: float = 1e-3
    renew: int = 200
    buffer: int = 50_000
    last_epsilon: float = 0.05
    explore: float = 0.5
    last_lr: float = 0.02
    dueling: bool = True
    begin_at_mean: bool = True
    double: bool = False
    activation: str = "relu"
    every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(self)
        for name in ("renew", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if not 0 <= self.last_epsilon <= 1:
            raise ConfigError(f"last_epsilon is {self.last_epsilon}: it must lie in 0..1")
        if not 0 < self.explore <= 1:
            raise ConfigError(f"explore is {self.explore}: it must be above 0 and at most 1")

    def epsilon(self, step: int) -> float:
        """The share of random actions at a step."""
        if step < self.warmup:
            return 1.0
        return max(self.last_epsilon, 1.0 - (1.0 - self.last_epsilon) * step / (self.explore * self.steps))


@dataclass(frozen=True, kw_only=True)
class DdqnConfig(DqnConfig):
    """Double DQN as [Song 2021, table I] has it: two hidden layers of 20 tanh units, discount 0.9, replay 100 000.

    The paper gives neither the rate nor how long it trains; the rest is ours.
    """

    steps: int = 60_000
    warmup: int = 2_000
    hidden: int = 20
    layers: int = 3
    gamma: float = 0.9
    lr: float = 3e-3
    buffer: int = 100_000
    renew: int = 500
    every: int = 3
    last_epsilon: float = 0.02
    dueling: bool = False
    double: bool = True
    activation: str = "tanh"


def loss_of(network: Stack, target: Stack, batch: Batch, gamma: float, *, double: bool = False) -> torch.Tensor:
    """The mean Huber loss of Q(s, a) against r + gamma max Q^(s', .), or double: r + gamma Q^(s', argmax Q(s', .))."""
    with torch.no_grad():
        told = target(batch.following)[0]
        chosen = (network(batch.following)[0] if double else told).argmax(dim=-1, keepdim=True)
        aim = batch.reward + gamma * (1 - batch.ended) * told.gather(1, chosen)[:, 0]
    taken = network(batch.observation)[0].gather(1, batch.action[:, None])[:, 0]
    return torch.nn.functional.smooth_l1_loss(taken, aim)


def train(
    env: gymnasium.Env, config: DqnConfig, progress: Progress = silent, *, checkpoint: Path | None = None
) -> Learnt:
    """Train on an environment with vectors for observations and numbered actions.

    The same seed gives the same policy on the same machine with the same number of threads, whatever ran before.

    checkpoint : file that takes the state now and then; if it exists, the training goes on from there.

    Raises
    ------
    ConfigError, DataError : the checkpoint is of another training, or none.
    """
    inputs, actions = spaces(env)
    rng = np.random.default_rng(config.seed)
    sizes = layer_sizes(inputs, config.hidden, config.layers, actions)
    network = Stack(
        sizes, generator=torch.Generator().manual_seed(config.seed), dueling=config.dueling,
        activation=config.activation,
    )  # fmt: skip
    target = copy.deepcopy(network).requires_grad_(False)
    optimiser = adam(network.parameters(), config.lr)
    replay = Replay(config.buffer, inputs)
    training = Training(env, config, network, target, optimiser, replay, rng)
    first = training.load_(checkpoint, config.seed) if checkpoint is not None and checkpoint.exists() else 0
    kept = first

    @torch.no_grad()
    def choose(observation: np.ndarray, step: int) -> int:
        if rng.random() < config.epsilon(step):
            return int(rng.integers(actions))
        return int(network(torch.from_numpy(observation)[None])[0, 0].argmax())

    steps = played(env, choose, replay, steps=config.steps, seed=config.seed, first=first)
    for done, finished in enumerate(steps, first + 1):
        if done > config.warmup:
            if config.begin_at_mean and done == config.warmup + 1:
                level = replay.level(config.gamma)
                network.lift_(level)
                target.lift_(level)
            if done % config.every == 0:
                slow_down_(optimiser, config, done - config.warmup - 1)
                optimiser.zero_grad()
                batch = replay.sample(config.batch, rng)
                loss_of(network, target, batch, config.gamma, double=config.double).backward()
                optimiser.step()
            if done % config.renew == 0:
                target.load_state_dict(network.state_dict())
        if finished is not None:
            training.returns.append(finished)
            progress(done, config.steps, f"return {finished:.1f}")
            if checkpoint is not None and done - kept >= _KEEP_EVERY:
                training.save(checkpoint, done)
                kept = done
    return Learnt(network=network, returns=tuple(training.returns))
