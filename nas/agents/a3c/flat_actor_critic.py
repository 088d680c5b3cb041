"""The actor-critic's forward pass and the gradient of its loss in numpy, on one flat vector of parameters.

A network of this size spends its time between torch's calls, not in them: written out, an update takes a tenth of it.
`actor_critic.loss_of` is the definition; a test compares the two. The vector may lie in shared memory, which makes a
worker's copy of all parameters one assignment and RMSProp's step four operations.
"""

from dataclasses import dataclass

import numpy as np
import torch

from nas.agents.a3c.actor_critic import ActorCritic, Weights

Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of an `ActorCritic`."""

    inputs: int
    hidden: int
    heads: int
    options: int

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Of the parameters in the vector: weights (in, out) and biases of actor, critic, policy and value."""
        stack = [(self.inputs, self.hidden), (self.hidden,), (self.hidden, self.hidden), (self.hidden,)]
        outputs = self.heads * self.options
        return [*stack, *stack, (self.hidden, outputs), (outputs,), (self.hidden, 1), (1,)]

    @property
    def numbers(self) -> int:
        """Length of the vector."""
        return sum(int(np.prod(size)) for size in self.sizes)

    @property
    def of_stack(self) -> int:
        """Numbers of the actor's stack, which come first; the critic's, as many, follow."""
        return sum(int(np.prod(size)) for size in self.sizes[:4])


class FlatActorCritic:
    """Views on a vector. Observations are (B, inputs), already measured from their middle in their spread."""

    def __init__(self, shape: Shape, vector: np.ndarray) -> None:
        self.shape, self.vector = shape, vector
        self.gradient = np.zeros_like(vector)
        self._parameters, self._slopes = _views(shape, vector), _views(shape, self.gradient)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(B, heads, options)."""
        w0, b0, w1, b1 = self._parameters[:4]
        hidden = np.tanh(np.tanh(x @ w0 + b0) @ w1 + b1)
        out = hidden @ self._parameters[8] + self._parameters[9]
        return out.reshape(len(x), self.shape.heads, self.shape.options)

    def value(self, x: np.ndarray) -> np.ndarray:
        """(B,)."""
        w0, b0, w1, b1 = self._parameters[4:8]
        hidden = np.tanh(np.tanh(x @ w0 + b0) @ w1 + b1)
        return (hidden @ self._parameters[10] + self._parameters[11])[:, 0]

    def drawn(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(B, heads): options drawn by their chances (the largest logit plus Gumbel noise is such a draw)."""
        logits = self.logits(x)
        waits = rng.standard_exponential(logits.shape, dtype=np.float32)
        return (logits - np.log(np.maximum(waits, 1e-30))).argmax(-1)

    def differentiate(self, x: np.ndarray, actions: np.ndarray, aim: np.ndarray, weights: Weights) -> np.ndarray:
        """The gradient of `actor_critic.loss_of`, (numbers,); it is overwritten by the next call.

        Parameters
        ----------
        x : (B, inputs). actions : (B, heads). aim : (B,), the returns R.
        """
        p, g, count = self._parameters, self._slopes, len(x)
        lower, upper = _hidden(x, p[:4])
        logits = (upper @ p[8] + p[9]).reshape(count, self.shape.heads, self.shape.options)
        low, up = _hidden(x, p[4:8])
        value = (up @ p[10] + p[11])[:, 0]
        logits -= logits.max(-1, keepdims=True)
        chances = np.exp(logits)
        total = chances.sum(-1, keepdims=True)
        chances /= total
        logs = logits - np.log(total)
        # of -mean over batch and heads of (log pi(a) A + beta H)
        entropy = -(chances * logs).sum(-1, keepdims=True)
        slope = chances * (aim - value)[:, None, None] + weights.entropy * chances * (logs + entropy)
        taken = np.take_along_axis(slope, actions[:, :, None], -1) - (aim - value)[:, None, None]
        np.put_along_axis(slope, actions[:, :, None], taken, -1)
        slope = (slope / (count * self.shape.heads)).reshape(count, -1).astype(x.dtype, copy=False)
        _backward(x, (lower, upper), slope, p[:4], g[:4], p[8], (g[8], g[9]))
        missed = (2 * weights.value / count * (value - aim)).astype(x.dtype, copy=False)[:, None]
        _backward(x, (low, up), missed, p[4:8], g[4:8], p[10], (g[10], g[11]))
        if weights.tie:
            size = self.shape.of_stack
            apart = 2 * weights.tie * (self.vector[:size] - self.vector[size : 2 * size])
            self.gradient[:size] += apart
            self.gradient[size : 2 * size] -= apart
        return self.gradient


def flattened(network: ActorCritic) -> tuple[Shape, np.ndarray]:
    """A network's parameters as `FlatActorCritic` has them: a copy."""
    hidden, inputs = _parameters_of(network)[0].shape
    shape = Shape(inputs=inputs, hidden=hidden, heads=network.heads, options=network.options)
    parts = [one.detach().numpy().T.ravel() for one in _parameters_of(network)]
    return shape, np.concatenate(parts)


def restore_(network: ActorCritic, vector: np.ndarray) -> None:
    """Give a network the parameters of a vector, (numbers,)."""
    at = 0
    with torch.no_grad():
        for one in _parameters_of(network):
            size = one.numel()
            turned = torch.from_numpy(vector[at : at + size].copy()).reshape(tuple(reversed(one.shape)))
            one.copy_(turned.T if one.ndim == 2 else turned)
            at += size


def _parameters_of(network: ActorCritic) -> list[torch.nn.Parameter]:
    return [*network.actor.parameters(), *network.critic.parameters(), *network.policy.parameters(),
            *network.value.parameters()]  # fmt: skip


def _views(shape: Shape, vector: np.ndarray) -> list[np.ndarray]:
    views, at = [], 0
    for size in shape.sizes:
        count = int(np.prod(size))
        views.append(vector[at : at + count].reshape(size))
        at += count
    return views


def _hidden(x: np.ndarray, stack: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    w0, b0, w1, b1 = stack
    lower = np.tanh(x @ w0 + b0)
    return lower, np.tanh(lower @ w1 + b1)


def _backward(
    x: np.ndarray, hidden: tuple[np.ndarray, np.ndarray], slope: np.ndarray, stack: list[np.ndarray],
    slopes: list[np.ndarray], head: np.ndarray, head_slopes: Layer,
) -> None:  # fmt: skip
    """From the outputs' slope, (B, out), write the slopes of a head and the stack below it."""
    lower, upper = hidden
    np.matmul(upper.T, slope, out=head_slopes[0])
    slope.sum(0, out=head_slopes[1])
    slope = (slope @ head.T) * (1 - upper * upper)
    np.matmul(lower.T, slope, out=slopes[2])
    slope.sum(0, out=slopes[3])
    slope = (slope @ stack[2].T) * (1 - lower * lower)
    np.matmul(x.T, slope, out=slopes[0])
    slope.sum(0, out=slopes[1])
