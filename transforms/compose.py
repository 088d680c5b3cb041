"""Plugging variants into a network, and folding what filter pruning leaves behind into the layer that reads it."""

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import fx, nn

from modeltree.layers import LayerSpec
from transforms.graph.bodies import INNER
from transforms.graph.network import Network, Unit
from transforms.techniques.ksvd import SparseLinear
from transforms.techniques.mobilenet_v2 import InvertedResidual
from transforms.techniques.technique import Variant


def compose(network: Network, start: int, stop: int, variants: Mapping[int, nn.Module]) -> fx.GraphModule:
    """The part of the network between two places with variants plugged in, channels pruned through.

    variants : unit index -> module in its place; one that covers several units is given for the first of them. Modules
        are used as they are, except where a pruned neighbour folds into them: those are new. Those of units that one in
        front takes the place of are left aside.
    """
    inside = {unit.index: unit for unit in network.units_between(start, stop)}
    plugged = {index: module for index, module in variants.items() if index in inside}
    for module in list(plugged.values()):
        for index in _taken(module):
            plugged.pop(index, None)
    for index, unit in inside.items():
        producer = plugged.get(index)
        follower = None if unit.following is None else inside.get(unit.following)
        if follower is None or not isinstance(producer, Variant) or isinstance(producer.restore, nn.Identity):
            continue
        consumer = plugged.get(follower.index)
        consumer = Variant(follower, follower.op) if consumer is None else consumer
        if not isinstance(consumer, Variant) or not is_foldable(consumer, follower):
            continue
        plugged[follower.index] = fold(producer.restore, consumer, follower)
        plugged[index] = without_restore(producer)
    return network.between(start, stop, plugged)


def _taken(module: nn.Module) -> tuple[int, ...]:
    """Units behind its own that a variant takes the place of."""
    body = module.body if isinstance(module, Variant) else None
    return () if body is None else body.units[1:]


def entry(variant: Variant) -> str | None:
    """Path of the dense layer that reads a variant's input and nothing else does; None if there is none."""
    if variant.body is not None and variant.body.kind != INNER:
        return None
    if any(isinstance(m, InvertedResidual) and m.add is not None for m in variant.core.modules()):
        return None
    for name, module in variant.named_modules():
        if isinstance(module, SparseLinear):
            return None
        if isinstance(module, nn.Conv2d):
            return name if module.groups == 1 else None
        if isinstance(module, nn.Linear):
            return name
    return None


def is_foldable(consumer: Variant, unit: Unit) -> bool:
    """Whether the consumer begins with a dense layer over channels: a linear layer must read flattened maps."""
    path = entry(consumer)
    if path is None:
        return False
    return isinstance(consumer.get_submodule(path), nn.Conv2d) or len(unit.core_in_shape) == 1 or consumer.ends_network


def without_restore(variant: Variant) -> Variant:
    """The same variant handing on the kept channels only."""
    bare = copy.copy(variant)
    bare._modules = dict(variant._modules)
    bare.restore = nn.Identity()
    return bare


def fold(restore: nn.Module, consumer: Variant, unit: Unit) -> Variant:
    """A copy of `consumer` that reads the kept channels: its first dense layer times the restoring map.

    restore : 1x1 convolution without bias, (channels, kept, 1, 1). Zero padding stays zero under it: folding is exact.
    """
    assert isinstance(restore, nn.Conv2d)
    folded = copy.deepcopy(consumer)
    path = entry(folded)
    assert path is not None
    layer, mixing = folded.get_submodule(path), restore.weight.detach()[:, :, 0, 0]
    kept = mixing.shape[1]
    replacement: Any
    if isinstance(layer, nn.Conv2d):
        weight = torch.einsum("oihw,ik->okhw", layer.weight.detach(), mixing)
        replacement = nn.Conv2d(
            kept, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
        )  # fmt: skip
    else:
        assert isinstance(layer, nn.Linear)
        by_channel = layer.weight.detach().unflatten(1, (mixing.shape[0], -1))
        weight = torch.einsum("oip,ik->okp", by_channel, mixing).flatten(1)
        replacement = nn.Linear(weight.shape[1], layer.out_features, bias=layer.bias is not None)
        if len(unit.in_shape) == 3 and len(unit.core_in_shape) == 1 and not consumer.ends_network:
            folded.head = nn.Flatten(1)
    with torch.no_grad():
        replacement.weight.copy_(weight)
        if layer.bias is not None:
            replacement.bias.copy_(layer.bias)
    folded.set_submodule(path, replacement)
    return folded


def folded_layers(layers: list[LayerSpec], channels: int, kept: int) -> list[LayerSpec]:
    """Costs of a consumer once it reads `kept` of `channels` channels: its first layer with weights shrinks."""
    for position, layer in enumerate(layers):
        if layer.op in ("conv", "fc"):
            shrunk = msgspec.structs.replace(layer, in_channels=layer.in_channels * kept // channels)
            return [*layers[:position], shrunk, *layers[position + 1 :]]
    return layers
