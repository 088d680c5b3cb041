"""The two controllers: bidirectional LSTMs over the layers of a block [Wang 2020, sec. VI-C, fig. 6]."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from modeltree.layers import KINDS, LayerSpec
from nas.treesearch.problem import Block, Problem

_FEATURES = len(KINDS) + 6


class Sampled(NamedTuple):
    """Actions of a batch of nodes, the logarithm of their probability and the entropy of what they were drawn from.

    actions : (batch,) places, or (batch, units) options.
    """

    actions: torch.Tensor
    log_probability: torch.Tensor
    entropy: torch.Tensor


class BlockTensors:
    """A block as tensors: what the controllers read, and which actions they may take.

    A place and what happens there are one action, place * `width` + ending.

    endings : (1, (places + 1) * width) bool, actions that exist.
    layers : (elements, features). segment : (elements,) of each. first : (places,) first element of each segment.
    unit_elements : (units,) element of each unit.
    columns : (units, options) position of each option in the vocabulary, 0 where padded.
    allowed : (places + 1, units, options in front, options) bool.
    on_device : (places + 1, units) bool.
    """

    def __init__(self, block: Block, vocabulary: dict[str, int], width: int = 1) -> None:
        self.width = width
        self.endings = torch.tensor([[e < len(at) for at in block.endings for e in range(width)]])
        self.layers = torch.tensor([_features(element.layer) for element in block.elements])
        segments = [element.segment for element in block.elements]
        self.segment = torch.tensor(segments)
        self.first = torch.tensor([segments.index(s) for s in range(block.places)])
        self.unit_elements = torch.tensor(
            [i for i, element in enumerate(block.elements) if element.is_unit], dtype=torch.long
        )
        widest = max((len(table.labels) for table in block.units), default=1)
        count = len(block.units)
        self.columns = torch.zeros(count, widest, dtype=torch.long)
        self.allowed = torch.zeros(block.places + 1, count, widest, widest, dtype=torch.bool)
        self.on_device = torch.zeros(block.places + 1, count, dtype=torch.bool)
        for i, table in enumerate(block.units):
            self.columns[i, : len(table.labels)] = torch.tensor([vocabulary[label] for label in table.labels])
        for partition in range(block.places + 1):
            for i, mask in enumerate(block.feasible(partition)):
                self.allowed[partition, i, : mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
                self.on_device[partition, i] = True


def vocabulary_of(problem: Problem) -> dict[str, int]:
    """Every option label of a problem, numbered."""
    labels = {label for block in problem.blocks for table in block.units for label in table.labels}
    return {label: i for i, label in enumerate(sorted(labels))}


def width_of(problem: Problem) -> int:
    """The most endings that any place of a problem has."""
    return max(len(at) for block in problem.blocks for at in block.endings)


class PartitionController(nn.Module):
    """One softmax over the L places of a block and "not here", each with its endings."""

    def __init__(self, hidden: int, width: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_FEATURES + 1, hidden, bidirectional=True, batch_first=True)
        self.place = nn.Linear(2 * hidden, width)
        self.none = nn.Linear(2 * hidden, width)

    def forward(self, block: BlockTensors, bandwidth: torch.Tensor) -> torch.Tensor:
        """bandwidth : (batch,) as `scaled_bandwidth` gives it. Returns logits (batch, (places + 1) * width)."""
        states = self.lstm(_with(block.layers, bandwidth[:, None]))[0]
        places = self.place(states[:, block.first]).flatten(1)
        logits = torch.cat([places, self.none(states.mean(dim=1))], dim=1)
        return logits.masked_fill(~block.endings, -1e9)


class CompressionController(nn.Module):
    """One softmax per layer over the techniques that apply to it. Layers that went to the cloud read as zeros."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_FEATURES + 1, hidden, bidirectional=True, batch_first=True)
        self.option = nn.Linear(2 * hidden, vocabulary)

    def forward(self, block: BlockTensors, bandwidth: torch.Tensor, partition: torch.Tensor) -> torch.Tensor:
        """bandwidth, partition : (batch,). Returns logits (batch, units, options)."""
        stays = (block.segment[None, :] < partition[:, None])[..., None]
        states = self.lstm(_with(block.layers, bandwidth[:, None]) * stays)[0]
        logits = self.option(states[:, block.unit_elements])
        return logits.gather(2, block.columns[None].expand(len(bandwidth), -1, -1))


def draw(logits: torch.Tensor, generator: torch.Generator, forced: torch.Tensor | None = None) -> Sampled:
    """Draw from softmax(logits), (batch, actions); rows of `forced` that are not negative are taken as given."""
    logarithm = torch.log_softmax(logits, dim=1)
    with torch.no_grad():
        uniform = torch.rand(logits.shape, generator=generator).clamp_min(1e-20)
        actions = (logarithm - torch.log(-torch.log(uniform))).argmax(dim=1)
        if forced is not None:
            actions = torch.where(forced >= 0, forced, actions)
    return Sampled(actions, _picked(logarithm, actions), _entropy(logarithm))


def draw_options(
    logits: torch.Tensor, block: BlockTensors, partition: torch.Tensor, generator: torch.Generator,
    forced: torch.Tensor | None = None,
) -> Sampled:  # fmt: skip
    """Draw one option a unit, in order, each only among those from which the device half can be completed.

    logits : (batch, units, options). partition : (batch,). forced : (batch, units), taken as given where not negative.
    """
    batch, units = logits.shape[:2]
    previous = torch.zeros(batch, dtype=torch.long)
    chosen, total, entropy = [], logits.new_zeros(batch), logits.new_zeros(batch)
    allowed, on_device = block.allowed[partition], block.on_device[partition]
    rows = torch.arange(batch)
    for i in range(units):
        mask = allowed[rows, i, previous].clone()
        mask[:, 0] |= ~on_device[:, i]
        step = draw(logits[:, i].masked_fill(~mask, -1e9), generator, None if forced is None else forced[:, i])
        stays = on_device[:, i]
        total = total + step.log_probability * stays
        entropy = entropy + step.entropy * stays
        previous = torch.where(stays, step.actions, 0)
        chosen.append(previous)
    actions = torch.stack(chosen, dim=1) if chosen else torch.zeros(batch, 0, dtype=torch.long)
    return Sampled(actions, total, entropy)


def scaled_bandwidth(mbps: float) -> float:
    """A bandwidth as the controllers read it: its decade, 1 Mbit/s being 0."""
    return math.log10(mbps)


def _picked(logarithm: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return logarithm.gather(1, actions[:, None]).squeeze(1)


def _entropy(logarithm: torch.Tensor) -> torch.Tensor:
    return -(logarithm.exp() * logarithm.clamp_min(-1e8)).sum(dim=1)


def _with(layers: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:
    batch = len(bandwidth)
    repeated = layers[None].expand(batch, -1, -1)
    return torch.cat([repeated, bandwidth[:, None, :].expand(-1, layers.shape[0], -1)], dim=2)


def _features(layer: LayerSpec) -> list[float]:
    """x = (l, k, s, p, n) [Wang 2020, eq. 1] as numbers near 1, with input channels and output height beside it."""
    kind, kernel, stride, padding, channels = layer.hyperparameters
    sizes = [np.log2(1 + n) / 10 for n in (channels, layer.in_channels, layer.out_height)]
    return [float(kind == k) for k in KINDS] + [kernel / 5, stride / 2, padding / 2, *map(float, sizes)]
