"""The agents' networks: fully connected, several of one shape computed together, exported as plain arrays."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError
from runtime.selection.policies import Dense

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}
"""What may lie between layers; `runtime.selection.policies.Dense` knows the same."""


class Stack(nn.Module):
    """`count` networks of fully connected layers with ReLU (or another of `ACTIVATIONS`) between them.

    dueling : the last layer also gives a value V, and the output is Q = V + A - mean A over the actions. With a
        discount of 0.99 the value of every action is dozens of rewards high, and actions differ by a part of one: this
        way what they share is learnt once, not once an action. The order of actions is A's alone, so V is not exported.

    Parameters
    ----------
    sizes : numbers in, in each hidden layer, and out. generator : what the first weights are drawn from.
    """

    def __init__(
        self, sizes: Sequence[int], *, generator: torch.Generator, count: int = 1, dueling: bool = False,
        activation: str = "relu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = activation
        self._between = ACTIVATIONS[activation]
        widths = [*sizes[:-1], sizes[-1] + dueling]
        self.dueling = dueling
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            for held, shape in ((self.weights, (count, inputs, outputs)), (self.biases, (count, 1, outputs))):
                held.append(nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in) to (count, batch, out)."""
        x = x.expand(len(self.weights[0]), *x.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = self._between(x)
        if not self.dueling:
            return x
        value, gain = x[..., :1], x[..., 1:]
        return value + gain - gain.mean(-1, keepdim=True)

    @torch.no_grad()
    def lift_(self, level: float) -> None:
        """Add a number to every output; a dueling network's V alone rises."""
        self.biases[-1][..., : 1 if self.dueling else None] += level

    def export(self) -> Dense:
        """The first network as plain arrays; of a dueling one, the part that orders the actions."""
        weights = [weight[0].detach().numpy().copy() for weight in self.weights]
        biases = [bias[0, 0].detach().numpy().copy() for bias in self.biases]
        if self.dueling:
            weights[-1], biases[-1] = weights[-1][:, 1:], biases[-1][1:]
        return Dense(weights, biases, self.activation)


def layer_sizes(inputs: int, hidden: int, layers: int, outputs: int) -> list[int]:
    """Sizes of a network of so many fully connected layers; the paper's have five."""
    return [inputs, *[hidden] * (layers - 1), outputs]


def adam(parameters: Iterable[torch.Tensor], lr: float) -> torch.optim.Adam:
    """The agents' optimiser, for parameters of any shape.

    Its epsilon is far above the usual 1e-8. A trained agent's gradients are small for long stretches; Adam divides by
    their size, so that the first larger one moved every weight by several `lr` at once, and policies were lost by that.
    """
    return torch.optim.Adam(parameters, lr=lr, eps=1e-5, fused=True)


def slow_down_(optimiser: torch.optim.Optimizer, config: Any, updates: int) -> None:
    """Set the rate for an update: from `lr` in a straight line down to a share `last_lr` of it at the last one."""
    done = min(1.0, updates / max(1, config.steps - config.warmup))
    for group in optimiser.param_groups:
        group["lr"] = config.lr * (1.0 - (1.0 - config.last_lr) * done)


@torch.no_grad()
def follow_(target: Stack, source: Stack, share: float) -> None:
    """Move a target network towards its source: target = (1 - share) target + share source."""
    for slow, fast in zip(target.parameters(), source.parameters()):
        slow.lerp_(fast, share)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """What an agent learnt. returns : the sum of rewards of every finished episode of the training."""

    network: Stack
    returns: tuple[float, ...]

    @torch.no_grad()
    def scores(self, observations: np.ndarray) -> np.ndarray:
        """(batch, in) to (batch, actions): what the actions are ordered by."""
        return self.network(torch.from_numpy(np.asarray(observations, dtype=np.float32)))[0].numpy()

    def act(self, observation: np.ndarray) -> int:
        """The best action for one observation, (inputs,); nothing is drawn."""
        return int(self.scores(observation[None])[0].argmax())

    def export(self) -> Dense:
        """As plain arrays, for `runtime.selection.policies.Trained`."""
        return self.network.export()


def check_config(config: Any) -> None:
    """Refuse what no agent can train with; the checks that the agents' configs share."""
    for name in ("steps", "batch", "hidden", "layers", "buffer"):
        value = getattr(config, name)
        if value < 1:
            raise ConfigError(f"{name} is {value}: it must be at least 1")
    gamma, lr, warmup = (getattr(config, name) for name in ("gamma", "lr", "warmup"))
    if not 0 <= gamma < 1:
        raise ConfigError(f"gamma is {gamma}: it must be at least 0 and below 1")
    if not (lr > 0 and math.isfinite(lr)):
        raise ConfigError(f"lr is {lr}: it must be finite and above 0")
    if not 0 < config.last_lr <= 1:
        raise ConfigError(f"last_lr is {config.last_lr}: it must be above 0 and at most 1")
    if warmup < 0:
        raise ConfigError(f"warmup is {warmup}: it must be at least 0 steps")
