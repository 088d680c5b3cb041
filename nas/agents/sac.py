"""Soft actor-critic for discrete actions [Niu 2022, eqs. 7-11; after Christodoulou 2019, its reference 16].

The policy maximises rewards plus alpha times its own entropy (eq. 7). A discrete policy gives every action's
probability, so all expectations over actions are sums, nothing is drawn for them. pi is the policy, Q the critics (two
of them; the lower one counts), Q^ the slow copies that targets are made with, H the target entropy.

Where the paper is short: "one neural network for Q" is two here, as in its reference; Q^ inside eq. 9's expectation is
the target network; eq. 11 as printed, pi (alpha log pi + H), would always drive alpha up, so it is read as the
reference has it, -alpha pi (log pi + H), which is at rest where the policy's entropy is H.

Where it departs from the paper: critics begin at the value of the mean reward (`Replay.level`) and are dueling
(`Stack`), Adam's epsilon is larger (`adam`), and the rate falls (`slow_down_`). At a constant rate, with the usual
epsilon and critics that began at 0, four of four trainings of 20 000 steps lost at some step what they had learnt, two
for good: the policy puts all on one action, where its gradient vanishes.
"""

import copy
import math
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch

from modeltree.errors import ConfigError
from nas.agents.networks import Learnt, Stack, adam, check_config, follow_, layer_sizes, slow_down_
from nas.agents.replay_buffer import Batch, Replay, played, spaces
from nas.jobs.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class SacConfig:
    """How the agent learns. gamma, lr and the five layers are the paper's; it gives no other number.

    steps : in the environment; one update follows each. warmup : the first of them, with random actions and no update.
    hidden : numbers in a hidden layer. buffer : steps remembered.
    follow : share by which the target critics move at each update.
    entropy_share : the target entropy, as a share of that of a policy without preferences, ln(actions).
    first_alpha : the temperature before it is learnt.
    last_lr : share of lr that is left at the last update; it falls in a straight line. 1 is the paper's constant rate.
    """

    steps: int = 8_000
    warmup: int = 500
    batch: int = 128
    hidden: int = 64
    layers: int = 5
    gamma: float = 0.99
    lr: float = 1e-3
    follow: float = 0.01
    buffer: int = 50_000
    entropy_share: float = 0.3
    first_alpha: float = 0.1
    last_lr: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        check_config(self)
        for name in ("follow", "entropy_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0 and at most 1")
        if not (self.first_alpha > 0 and math.isfinite(self.first_alpha)):
            raise ConfigError(f"first_alpha is {self.first_alpha}: it must be finite and above 0")


def critic_targets(actor: Stack, targets: Stack, batch: Batch, alpha: float, gamma: float) -> torch.Tensor:
    """(n,): r + gamma E[Q^ - alpha log pi], the expectation over all actions of the next state [Niu 2022, eq. 9]."""
    with torch.no_grad():
        log_pi = torch.log_softmax(actor(batch.following)[0], dim=-1)
        low = targets(batch.following).amin(dim=0)
        value = (log_pi.exp() * (low - alpha * log_pi)).sum(dim=-1)
        return batch.reward + gamma * (1 - batch.ended) * value


def critic_loss(critics: Stack, batch: Batch, target: torch.Tensor) -> torch.Tensor:
    """J_Q = E[(Q(s, a) - target)^2 / 2], summed over the two critics [Niu 2022, eq. 8]."""
    values = critics(batch.observation)
    taken = values.gather(2, batch.action.expand(len(values), -1)[..., None])[..., 0]
    return 0.5 * (taken - target).square().mean(dim=1).sum()


def actor_loss(actor: Stack, critics: Stack, batch: Batch, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """J_pi = E[pi (alpha log pi - Q)] [Niu 2022, eq. 10], and (n,), the policy's entropies."""
    log_pi = torch.log_softmax(actor(batch.observation)[0], dim=-1)
    pi = log_pi.exp()
    with torch.no_grad():
        low = critics(batch.observation).amin(dim=0)
    return (pi * (alpha * log_pi - low)).sum(dim=-1).mean(), -(pi * log_pi).sum(dim=-1).detach()


def temperature_loss(log_alpha: torch.Tensor, entropy: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """J(alpha) = E[-alpha (E log pi + H)] [Niu 2022, eq. 11], with -E log pi the entropies, (n,)."""
    return log_alpha.exp() * (entropy - target_entropy).mean()


class Sac:
    """The agent between two updates: its networks, its temperature, and what it draws from."""

    def __init__(self, inputs: int, actions: int, config: SacConfig) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        sizes = layer_sizes(inputs, config.hidden, config.layers, actions)
        self.actor = Stack(sizes, generator=self.generator)
        self.critics = Stack(sizes, generator=self.generator, count=2, dueling=True)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.first_alpha), requires_grad=True)
        self.target_entropy = config.entropy_share * math.log(actions)
        parameters = (self.actor.parameters(), self.critics.parameters(), [self.log_alpha])
        self.optimisers = [adam(held, config.lr) for held in parameters]
        self.updates = 0

    def begin_(self, level: float) -> None:
        """Let the critics begin at a level."""
        self.critics.lift_(level)
        self.targets.lift_(level)

    def draw(self, observation: np.ndarray) -> int:
        """An action drawn from the policy; observation : (inputs,)."""
        with torch.no_grad():
            pi = torch.softmax(self.actor(torch.from_numpy(observation)[None])[0, 0], dim=-1)
        return int(torch.multinomial(pi, 1, generator=self.generator))

    def update_(self, batch: Batch) -> None:
        """One step of soft policy evaluation and improvement, of the temperature and of the targets."""
        for optimiser in self.optimisers:
            slow_down_(optimiser, self.config, self.updates)
        self.updates += 1
        alpha = float(self.log_alpha.detach().exp())
        target = critic_targets(self.actor, self.targets, batch, alpha, self.config.gamma)
        self._descend_(1, critic_loss(self.critics, batch, target))
        loss, entropy = actor_loss(self.actor, self.critics, batch, alpha)
        self._descend_(0, loss)
        self._descend_(2, temperature_loss(self.log_alpha, entropy, self.target_entropy))
        follow_(self.targets, self.critics, self.config.follow)

    def _descend_(self, which: int, loss: torch.Tensor) -> None:
        self.optimisers[which].zero_grad()
        loss.backward()
        self.optimisers[which].step()


def train(env: gymnasium.Env, config: SacConfig, progress: Progress = silent) -> Learnt:
    """Train on an environment with vectors for observations and numbered actions.

    The same seed gives the same policy on the same machine with the same number of threads, whatever ran before.
    """
    inputs, actions = spaces(env)
    agent, rng = Sac(inputs, actions, config), np.random.default_rng(config.seed)
    replay, returns = Replay(config.buffer, inputs), []

    def choose(observation: np.ndarray, step: int) -> int:
        return int(rng.integers(actions)) if step < config.warmup else agent.draw(observation)

    for done, finished in enumerate(played(env, choose, replay, steps=config.steps, seed=config.seed), 1):
        if done > config.warmup:
            if agent.updates == 0:
                agent.begin_(replay.level(config.gamma))
            agent.update_(replay.sample(config.batch, rng))
        if finished is not None:
            returns.append(finished)
            progress(done, config.steps, f"return {finished:.1f}")
    return Learnt(network=agent.actor, returns=tuple(returns))
