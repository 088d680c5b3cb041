"""T4: the channels inside a block, pruned along their dependency group; beyond the paper.

Between a dense layer and the next that reads nothing else, channels are nobody else's: those of an inverted residual
(expand, depthwise, squeeze and excitation, project), those of a transformer's MLP. Leaving some out changes every layer
between, as torch-pruning's dependency graph says, and nothing outside, so that no map has to bring them back.

Kept are the channels that carry most of what the next layer makes of them. That layer is then solved for by least
squares, so that it gives what it gave; so is a layer of the squeeze and excitation that reads pruned channels.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning
from torch import fx, nn

from modeltree.errors import NotApplicable
from transforms.graph.bodies import INNER, Body
from transforms.graph.lifting import aten
from transforms.graph.network import Unit
from transforms.techniques.least_squares import layer_inputs, refit_
from transforms.techniques.technique import LANES, Samples, Technique, Variant, aligned

_MIXING = {
    aten.layer_norm.default, aten.group_norm.default, aten.softmax.int, aten.batch_norm.default, aten.cat.default,
    aten.scaled_dot_product_attention.default, aten.matmul.default, aten.bmm.default, aten.add.Tensor,
}  # fmt: skip
"""Calls that tie channels to each other, or to those of another stretch."""


class InnerPruning(Technique):
    """A block with n channels inside -> with the most significant share of them. The rate is the share kept."""

    id, name, rates = "T4", "inner", (0.75, 0.5, 0.25)
    solved = True

    def rates_for(self, unit: Unit, lanes: int) -> tuple[float, ...]:
        body = self.reach(unit)
        total = 0 if body is None else _width(body)
        return tuple(aligned(self.rates, total, lanes or LANES)) if total else self.rates

    def reach(self, unit: Unit) -> Body | None:
        return next((body for body in unit.bodies if body.kind == INNER and _is_separable(body)), None)

    def structure(self, unit: Unit, rate: float) -> Variant:
        body = self.reach(unit)
        if body is None:
            raise NotApplicable(
                f"{self.name} needs channels that only the layers up to the next dense one read: {unit.name} has none"
            )
        width = _width(body)
        kept = max(1, round(rate * width))
        if kept >= width:
            raise NotApplicable(f"{self.name} would keep all {width} channels behind {unit.name}: nothing saved")
        return Variant(unit, _pruned(body, torch.arange(kept)), body=body)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        body = self.reach(unit)
        assert body is not None
        inside = None if samples is None else layer_inputs(body.module, body.last, samples[0])
        worth = _worth(body, inside)
        kept = worth.argsort(descending=True, stable=True)[: _width(body, variant.core)].sort().values
        core = _pruned(body, kept)
        if samples is not None:
            for name in _readers(core, body.module):
                layer: Any = body.module.get_submodule(name)
                targets = layer(layer_inputs(body.module, name, samples[0]) if name != body.last else inside)
                changed: Any = core.get_submodule(name)
                refit_(changed, layer_inputs(core, name, samples[0]), targets)
        variant.core.load_state_dict(core.state_dict())


def _is_separable(body: Body) -> bool:
    """Whether what lies between works channel by channel, or reads channels as a dense layer does."""
    constants = [node for node in body.module.graph.nodes if node.op == "get_attr"]
    return not constants and not any(node.target in _MIXING for node in body.module.graph.nodes)


def _width(body: Body, module: fx.GraphModule | None = None) -> int:
    """How many channels there are inside."""
    first: Any = (module or body.module).get_submodule(body.first)
    return int(first.weight.shape[0])


def _pruned(body: Body, kept: torch.Tensor) -> fx.GraphModule:
    """A copy of the body that has some of its inner channels only, with the weights that belong to them."""
    module = copy.deepcopy(body.module).requires_grad_(True)  # torch-pruning follows gradients
    first = module.get_submodule(body.first)
    dropped = sorted(set(range(_width(body))) - set(kept.tolist()))
    remove = (
        torch_pruning.prune_linear_out_channels
        if isinstance(first, nn.Linear)
        else torch_pruning.prune_conv_out_channels
    )
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(module, torch.zeros(1, *body.in_shape))
        graph.get_pruning_group(first, remove, idxs=dropped).prune()
    return module


def _worth(body: Body, inside: torch.Tensor | None) -> torch.Tensor:
    """(channels,) how much of what the last layer gives comes from each: of its weights alone without samples.

    inside : (n, channels, h, w) or (n, tokens, channels) of what the last layer reads.
    """
    first: Any = body.module.get_submodule(body.first)
    last: Any = body.module.get_submodule(body.last)
    reading = last.weight.detach().transpose(0, 1).flatten(1).square().sum(1)
    if inside is None:
        return reading * first.weight.detach().flatten(1).square().sum(1)
    values = inside.movedim(1, -1) if isinstance(last, nn.Conv2d) else inside
    return reading * values.flatten(0, -2).var(0)


def _readers(core: fx.GraphModule, base: fx.GraphModule) -> Iterator[str]:
    """Dense layers that read fewer channels than in the base network, in the order in which they run."""
    for node in core.graph.nodes:
        if node.op == "call_module":
            here: Any = core.get_submodule(str(node.target))
            there: Any = base.get_submodule(str(node.target))
            if getattr(here, "groups", 1) == 1 and here.weight.shape[1] < there.weight.shape[1]:
                yield str(node.target)
