"""A network with a layer of every kind, and by hand which technique applies to which at which rate."""

import copy
import dataclasses
import functools

import torch
from small_networks import Layer
from torch import fx, nn

from transforms import TECHNIQUES, Network, Unit, analyse, export
from transforms.graph.describe import module_specs
from transforms.techniques.technique import Samples

INPUT = (3, 12, 12)
KINDS = ("stride1", "stride2", "same_channels", "5x5", "1x1", "depthwise", "pooled", "fc_on_maps", "fc", "last_fc")
BLOCKS = {"inverted": 1, "attention": 6, "mlp": 8}
"""Kinds of layers that begin a block, and their numbers in `EveryBlock`."""

DENSE = {
    "mobilenet": (1.0,),
    "mobilenet_v2": (2.0, 1.0),
    "fire": (0.5, 0.25),
    "prune": (0.75, 0.5, 0.25, 0.125),
    "tucker2": (0.5, 0.25),
}
INNER = (0.75, 0.5, 0.25)
FACTORED = {"svd": (0.25, 0.125), "ksvd": (0.25,)}
APPLIES: dict[str, dict[str, tuple[float, ...]]] = {  # by hand, from the MACs: what is not here must decline
    # base 9 * 3 * 16 = 432 a pixel; Fire with 8 squeezed: 8 * (3 + 8 + 8 * 9) = 664; pruned to 12: 12 * (27 + 16) = 516
    "stride1": DENSE | {"fire": (0.25,), "prune": (0.5, 0.25, 0.125)},
    # base 9 * 16 * 32 = 4608; expanded twice at four times the pixels: 32 * (4 * 16 + 9 + 32) = 3360
    "stride2": DENSE,
    "same_channels": DENSE,
    "5x5": DENSE,
    # base 24 * 32 = 768; kept * (24 + 32) is 896 at 16 kept, 448 at 8
    # low_rank: k * (24 + 32) is 504 at k = 9
    # inner: behind it lies a depthwise layer, and then a dense one
    "1x1": {"prune": (0.25, 0.125), "low_rank": (0.375, 0.25), "inner": INNER},
    "depthwise": {},
    "pooled": DENSE,
    "fc_on_maps": FACTORED | {"gap": (1.0,)},
    "fc": FACTORED,
    "last_fc": FACTORED,
    # base 16 * 64 = 1024; kept * (16 + 64) is 640 at 8 kept, 1280 at 16
    "inverted": {"prune": (0.125,), "low_rank": (0.375, 0.25), "inner": INNER, "skip": (1.0,)},
    "attention": {"low_rank": (0.375, 0.25), "heads": INNER, "skip": (1.0,)},
    "mlp": {"low_rank": (0.375, 0.25), "inner": INNER, "skip": (1.0,)},
}
EVERY = [(name, rate, kind) for name, t in TECHNIQUES.items() for rate in t.rates for kind in (*KINDS, *BLOCKS)]
APPLICABLE = [case for case in EVERY if case[1] in APPLIES[case[2]].get(case[0], ())]
DECLINED = [case for case in EVERY if case not in APPLICABLE]


class EveryKind(nn.Sequential):
    """One layer of every kind in `KINDS`, in that order."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 24, 5, padding=2), nn.ReLU(),
            nn.Conv2d(24, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU6(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(), nn.Linear(32 * 3 * 3, 64), nn.ReLU(),
            nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, 10, bias=False),
        )  # fmt: skip


class Inverted(nn.Module):
    """Expand, depthwise, squeeze and excitation, project, and the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.deep = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.squeeze, self.excite, self.project = nn.Conv2d(64, 8, 1), nn.Conv2d(8, 64, 1), nn.Conv2d(64, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.deep(torch.relu(self.expand(x))))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + self.project(y * gate)


class EveryBlock(nn.Module):
    """A block of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inverted, self.layer = nn.Conv2d(3, 16, 3, 2, 1), Inverted(), Layer()
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.inverted(self.stem(x)).flatten(2).transpose(1, 2)).mean(1))


@functools.cache
def network(blocks: bool = False) -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return analyse(export(EveryBlock() if blocks else EveryKind(), INPUT))


def unit_of(kind: str) -> Unit:
    return network(True).units[BLOCKS[kind]] if kind in BLOCKS else network().units[KINDS.index(kind)]


def replaced(kind: str, name: str) -> nn.Module:
    """What a technique takes the place of."""
    body = TECHNIQUES[name].reach(unit_of(kind))
    return unit_of(kind).module() if body is None else body.module


def ends(kind: str, name: str) -> tuple[str, str]:
    """Nodes that give a variant's input, and what it has to give."""
    unit = unit_of(kind)
    body = TECHNIQUES[name].reach(unit)
    if body is not None:
        return body.source, body.output
    return unit.source, network().spec.places[-1].after if name == "gap" else unit.output


def in_shape(kind: str, name: str) -> tuple[int, ...]:
    return network(kind in BLOCKS).shape_of(ends(kind, name)[0])


@functools.cache
def features(seed: int, blocks: bool = False) -> dict[str, torch.Tensor]:
    """The value of every node of the base network on 24 random images."""
    images = torch.randn(24, *INPUT, generator=torch.Generator().manual_seed(seed))
    interpreter = fx.Interpreter(network(blocks).graph, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(images)
    return {node.name: value for node, value in interpreter.env.items() if isinstance(value, torch.Tensor)}


def samples(kind: str, name: str, seed: int) -> Samples:
    """What a variant is given, and what it has to give for that."""
    values = features(seed, kind in BLOCKS)
    given, wanted = ends(kind, name)
    return values[given], values[wanted]


def base_macs(kind: str, name: str) -> int:
    if name == "gap":
        return sum(u.op.weight.numel() for u in network().units if isinstance(u.op, nn.Linear))
    return sum(layer.macs for layer in module_specs(replaced(kind, name), in_shape(kind, name)))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def error(module: nn.Module, data: Samples) -> float:
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(module(data[0]), data[1]))


def with_weight(unit: Unit, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Unit:
    """The unit with other weights."""
    op = copy.deepcopy(unit.op)
    with torch.no_grad():
        op.weight.copy_(weight)
        if op.bias is not None and bias is not None:
            op.bias.copy_(bias)
    return dataclasses.replace(unit, op=op)


def smooth(shape: torch.Size) -> torch.Tensor:
    """Random weights whose singular values fall off along both channel dimensions, as trained ones do."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(shape, generator=generator)
    for dim in (0, 1):
        basis = torch.linalg.qr(torch.randn(shape[dim], shape[dim], generator=generator))[0]
        decay = basis @ torch.diag(0.8 ** torch.arange(shape[dim])) @ basis.T
        weight = torch.tensordot(decay, weight.movedim(dim, 0), 1).movedim(0, dim)
    return weight


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
