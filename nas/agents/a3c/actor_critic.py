"""Actor and critic for several categorical choices at once, and their loss [Li 2023, eqs. 15-20].

Two stacks of layers, one for the actor and one for the critic, are *softly* shared: each has its own parameters, and
the loss holds them together by the square of their distance. On the actor stack sit as many heads as there are choices
(one a block; a joint agent has one for everything), on the critic stack the value of the state.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


class ActorCritic(nn.Module):
    """`heads` choices of `options` each. Observations are (B, inputs); `centre_` says what they are measured in."""

    middle: torch.Tensor
    spread: torch.Tensor

    def __init__(self, inputs: int, heads: int, options: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.options = heads, options
        self.actor, self.critic = _stack(inputs, hidden), _stack(inputs, hidden)
        self.critic.load_state_dict(self.actor.state_dict())
        self.policy, self.value = nn.Linear(hidden, heads * options), nn.Linear(hidden, 1)
        nn.init.zeros_(self.policy.weight)
        nn.init.zeros_(self.policy.bias)
        self.register_buffer("middle", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))

    def centre_(self, middle: np.ndarray, spread: np.ndarray) -> None:
        """Measure observations from `middle` in `spread`, both (inputs,)."""
        self.middle.copy_(torch.from_numpy(middle))
        self.spread.copy_(torch.from_numpy(spread))

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithms of the chances, (B, heads, options), and the value, (B,)."""
        observation = (observation - self.middle) / self.spread
        logits = self.policy(self.actor(observation)).reshape(-1, self.heads, self.options)
        return logits.log_softmax(-1), self.value(self.critic(observation))[:, 0]

    def export(self) -> "Actor":
        """The actor as plain arrays."""
        layers = [one for one in self.actor if isinstance(one, nn.Linear)] + [self.policy]
        pairs = [(one.weight.detach().numpy().T.copy(), one.bias.detach().numpy().copy()) for one in layers]
        weight, bias = pairs[0]
        weight = weight / self.spread.numpy()[:, None]
        pairs[0] = weight, bias - self.middle.numpy() @ weight
        return Actor(layers=tuple(pairs), heads=self.heads, options=self.options)

    def distance(self) -> torch.Tensor:
        """Squared distance of the two stacks' parameters."""
        pairs = zip(self.actor.parameters(), self.critic.parameters(), strict=True)
        return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """An actor without torch. layers : weights (in, out) and biases."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    heads: int
    options: int

    def logits(self, observation: np.ndarray) -> np.ndarray:
        """(B, heads, options) of (B, inputs)."""
        x = observation
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight + bias)
        weight, bias = self.layers[-1]
        return (x @ weight + bias).reshape(len(x), self.heads, self.options)

    def best(self, observation: np.ndarray) -> np.ndarray:
        """(B, heads): the likeliest options."""
        return self.logits(observation).argmax(-1)

    def drawn(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(B, heads): options drawn by their chances (the largest logit plus Gumbel noise is such a draw)."""
        logits = self.logits(observation)
        return (logits + rng.gumbel(size=logits.shape)).argmax(-1)


def _stack(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the loss's parts beside the actor's own. entropy : beta of eq. 18. tie : of the stacks' distance."""

    entropy: float
    value: float
    tie: float


def returns(rewards: np.ndarray, following: np.ndarray, gamma: float) -> np.ndarray:
    """k-step returns, eq. 16: (k, copies) rewards in their order, (copies,) values of the states behind the last."""
    values, after = [], following
    for reward in rewards[::-1]:
        after = reward + gamma * after
        values.append(after)
    return np.stack(values[::-1])


def loss_of(
    network: ActorCritic, observation: torch.Tensor, actions: torch.Tensor, aim: torch.Tensor, weights: Weights
) -> torch.Tensor:
    """Eq. 20 as something to be made small; means over the batch.

        -mean over heads of (log pi(a) (R - V) + beta H(pi)) + w (R - V)^2 + tie |theta - theta_v|^2

    Parameters
    ----------
    observation : (B, inputs). actions : (B, heads). aim : (B,), the returns R.
    """
    log, value = network(observation)
    advantage = (aim - value).detach()
    taken = log.gather(2, actions[:, :, None])[:, :, 0]
    entropy = -(log.exp() * log).sum(-1)
    actor = (taken * advantage[:, None] + weights.entropy * entropy).mean()
    critic = (aim - value).square().mean()
    return -actor + weights.value * critic + weights.tie * network.distance()
