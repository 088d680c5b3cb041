"""T5: attention with fewer heads; beyond the paper.

A block from the layer that makes queries, keys and values to the projection behind them is written anew with the heads
that carry most of what the projection makes of them. The projection is then solved for by least squares.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from modeltree.errors import NotApplicable
from transforms.graph.bodies import ATTENTION, Body
from transforms.graph.lifting import aten
from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of, layer_inputs, refit_, watched
from transforms.techniques.technique import Samples, Technique, Variant

_TOLERANCE = 1e-4
_ATTENDS = aten.scaled_dot_product_attention.default


class Attention(nn.Module):
    """Self-attention: (n, tokens, channels) -> (n, tokens, outputs). Queries, keys and values have `heads` x `size`."""

    def __init__(self, channels: int, heads: int, size: int, outputs: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(channels, 3 * heads * size)
        self.proj = nn.Linear(heads * size, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend, then mix the heads."""
        n, tokens = x.shape[0], x.shape[1]
        made = self.qkv(x).reshape(n, tokens, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        query, key, value = made.unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.proj(attended.transpose(1, 2).reshape(n, tokens, self.heads * self.size))
        return out


class HeadPruning(Technique):
    """Attention with n heads -> with the most significant share of them. The rate is the share kept."""

    id, name, rates = "T5", "heads", (0.75, 0.5, 0.25)
    solved = True

    def rates_for(self, unit: Unit, lanes: int) -> tuple[float, ...]:
        body = self.reach(unit)
        if body is None:
            return self.rates
        heads = _heads(body)[0]
        counts = dict.fromkeys(max(1, round(rate * heads)) for rate in self.rates)
        return tuple(round(count / heads, 5) for count in counts if count < heads) or self.rates

    def reach(self, unit: Unit) -> Body | None:
        return next((body for body in unit.bodies if body.kind == ATTENTION), None)

    def structure(self, unit: Unit, rate: float) -> Variant:
        body = self.reach(unit)
        if body is None:
            raise NotApplicable(f"{self.name} leaves out heads of an attention: {unit.name} begins none")
        if not _is_plain(body):
            raise NotApplicable(
                f"{self.name} knows attention of one layer for queries, keys, values: not {unit.name}'s"
            )
        heads, size = _heads(body)
        kept = max(1, round(rate * heads))
        if kept >= heads:
            raise NotApplicable(f"{self.name} would keep all {heads} heads behind {unit.name}: nothing saved")
        return Variant(unit, Attention(body.in_shape[1], kept, size, body.out_shape[1]), body=body)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        body = self.reach(unit)
        assert body is not None
        heads, size = _heads(body)
        last: Any = body.module.get_submodule(body.last)
        reading = last.weight.detach().unflatten(1, (heads, size)).square().sum((0, 2))
        inside = None if samples is None else layer_inputs(body.module, body.last, samples[0])
        if inside is not None:
            given = torch.einsum(
                "nthd,ohd->ntho", inside.unflatten(2, (heads, size)), last.weight.unflatten(1, (heads, size))
            )
            reading = given.var((0, 1)).sum(1)
        kept = reading.argsort(descending=True, stable=True)[: variant.core.heads].sort().values
        _take_(variant.core, body, kept)
        if samples is not None and inside is not None:
            attended = _inside(variant.core, samples[0])
            refit_(variant.core.proj, attended, last(inside))


def _inside(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """What the projection reads."""
    with watched(attention.proj) as reads:
        attention(x)
    return reads[0]


def _heads(body: Body) -> tuple[int, int]:
    """How many heads, and channels a head."""
    node = next(node for node in body.module.graph.nodes if node.target is _ATTENDS)
    with torch.no_grad():
        query = _values(body, node.args[0].name)
    return int(query.shape[1]), int(query.shape[3])


def _values(body: Body, name: str) -> torch.Tensor:
    """What a node of the body gives for one image of zeros."""
    interpreter = torch.fx.Interpreter(body.module, garbage_collect_values=False)
    interpreter.run(torch.zeros(1, *body.in_shape))
    value: torch.Tensor = next(v for node, v in interpreter.env.items() if node.name == name)
    return value


def _take_(attention: Attention, body: Body, kept: torch.Tensor) -> None:
    """Give an attention the weights of some heads."""
    heads, size = _heads(body)
    first: Any = body.module.get_submodule(body.first)
    last: Any = body.module.get_submodule(body.last)
    attention.qkv.weight.copy_(first.weight.unflatten(0, (3, heads, size))[:, kept].flatten(0, 2))
    attention.qkv.bias.copy_(bias_of(first).unflatten(0, (3, heads, size))[:, kept].flatten())
    attention.proj.weight.copy_(last.weight.unflatten(1, (heads, size))[:, kept].flatten(1))
    attention.proj.bias.copy_(bias_of(last))


@functools.lru_cache(maxsize=256)
def _is_plain(body: Body) -> bool:
    """Whether attention as we write it gives what the body gives."""
    shape = _values(body, next(n for n in body.module.graph.nodes if n.target is _ATTENDS).args[0].name).shape
    first: Any = body.module.get_submodule(body.first)
    if len(body.in_shape) != 2 or len(shape) != 4 or first.weight.shape[0] != 3 * shape[1] * shape[3]:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *body.in_shape, generator=generator)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        ours = Attention(body.in_shape[1], int(shape[1]), int(shape[3]), body.out_shape[1])
        _take_(ours, body, torch.arange(int(shape[1])))
        wanted, given = body.module(x), ours(x)
    return given.shape == wanted.shape and bool((given - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
