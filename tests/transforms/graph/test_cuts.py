"""The law of cuts: those offered are those found by counting live tensors, on random networks and on the named ones."""

import itertools
import math

import pytest
import torch
from small_networks import NETWORKS, assert_parts_make_the_whole, network, of
from torch import fx, nn

from transforms import Network


class Random(nn.Module):
    """A random network of convolutions (some depthwise), sums, concatenations, rectifiers and splits."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.pick = lambda n: int(torch.randint(n, (1,), generator=draw))
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[str, int, int]] = []
        channels = [3]
        open_ = {0}
        for step in range(1, 14):
            a = max(open_) if self.pick(3) else self.pick(step)
            same = [i for i in range(step) if channels[i] == channels[a] and i != a]
            kinds = ["conv", "conv", "depthwise", "relu", "cat", *(["add"] * 3 if same else [])]
            kind = kinds[self.pick(len(kinds))]
            b = same[self.pick(len(same))] if kind == "add" else self.pick(step)
            if kind == "cat" and channels[a] + channels[b] > 12:
                kind = "conv"
            self.steps.append((kind, a, b))
            out = {"conv": 4, "cat": channels[a] + channels[b]}.get(kind, channels[a])
            if kind in ("conv", "depthwise"):
                groups = channels[a] if kind == "depthwise" else 1
                self.layers[str(step)] = nn.Conv2d(channels[a], out, 3, padding=1, groups=groups)
            channels.append(out)
            open_ = (open_ - {a} - ({b} if kind in ("add", "cat") else set())) | {step}
        self.open = sorted(open_)
        self.classifier = nn.Conv2d(sum(channels[i] for i in self.open), 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for step, (kind, a, b) in enumerate(self.steps, start=1):
            match kind:
                case "relu":
                    values.append(torch.relu(values[a]))
                case "add":
                    values.append(values[a] + values[b])
                case "cat":
                    values.append(torch.cat([values[a], values[b]], 1))
                case _:
                    values.append(self.layers[str(step)](values[a]))
        return self.classifier(torch.cat([values[i] for i in self.open], 1))


def legal_by_counting(graph: fx.Graph) -> list[fx.Node]:
    """Nodes behind which theirs is the only value that anybody still reads."""
    nodes = [node for node in graph.nodes if node.op != "get_attr"]
    position = {node: i for i, node in enumerate(nodes)}
    legal = []
    for i, node in enumerate(nodes[:-1]):
        alive = [n for n in nodes[: i + 1] if any(position[user] > i for user in n.users)]
        if alive == [node]:
            legal.append(node)
    return legal


def worth_offering(net: Network) -> list[str]:
    """Of these, the ends of units and glue; and of a run without weights only where it gets no smaller."""
    nodes = {node.name: node for node in net.graph.graph.nodes}
    inside = {name for unit in net.units for name in unit.nodes[:-1]}
    legal = [node for node in legal_by_counting(net.graph.graph) if node.name not in inside]
    order = list(nodes)
    kept = [legal[0].name]
    for here, following in itertools.pairwise([*legal[1:], None]):
        if following is not None:
            between = order[order.index(here.name) + 1 : order.index(following.name) + 1]
            size, next_size = (math.prod(n.meta["val"].shape[1:]) for n in (here, following))
            if not any(nodes[name].op == "call_module" for name in between) and next_size <= size:
                continue
        kept.append(here.name)
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_cuts_of_random_networks_are_those_found_by_counting_live_tensors(seed):
    module = Random(seed)
    net = of(module, (3, 4, 4))
    assert [place.after for place in net.spec.places] == worth_offering(net)
    assert_parts_make_the_whole(net, module, (3, 4, 4))


def test_the_random_networks_are_worth_testing():
    counts = [len(of(Random(seed), (3, 4, 4)).spec.places) for seed in range(20)]
    assert min(counts) <= 3
    assert max(counts) >= 6
    assert {step[0] for seed in range(20) for step in Random(seed).steps} == {"conv", "depthwise", "relu", "cat", "add"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_named_networks_cuts_are_those_found_by_counting_too(name):
    counted = worth_offering(network(name))
    assert [p.after for p in network(name).spec.places] == [n for n in counted if n != "chunk"]
