"""Variants in the place of a whole block, as a search sees them: what they cost, exclude and save."""

import functools

import numpy as np
import pytest
import torch
from networks import made_library, made_predictor, scenario
from torch import nn

from nas.compression.calibration_set import random_plans
from nas.compression.library import Choice, covered
from nas.treesearch.options.savings import savings
from nas.treesearch.problem import ABSORBED, Plan
from nas.treesearch.space import build_space
from transforms import analyse, compose, export, technique
from transforms.graph.describe import module_specs

NAMES = ("inner", "skip", "prune", "low_rank")


class Inverted(nn.Sequential):
    """Expand, depthwise, project."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, 64, 1), nn.ReLU6(), nn.Conv2d(64, 64, 3, stride, 1, groups=64), nn.ReLU6(),
            nn.Conv2d(64, channels, 1),
        )  # fmt: skip


class Mobile(nn.Module):
    """A stem, an inverted residual with a sum, one without, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), Inverted(16), Inverted(16, 2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.two(x + self.one(x)))


@functools.cache
def mobile():
    torch.manual_seed(0)
    return analyse(export(Mobile(), (3, 8, 8)))


def whole_space(device="pi4"):
    library, last = made_library(NAMES, network=mobile()), len(mobile().spec.segments)
    return build_space(mobile(), library, made_predictor(library), scenario(device=device), (0, last))


def plans(block, count):
    rng, found = np.random.default_rng(2), []
    for _ in range(count):
        place, options = int(rng.integers(1, block.places + 1)), []
        for mask in block.feasible(place):
            options.append(int(rng.choice(np.flatnonzero(mask[options[-1] if options else 0]))))
        found.append(Plan(place, tuple(options)))
    return found


def test_a_device_time_is_that_of_the_composed_network():
    space = whole_space()
    device, block = scenario(device="pi4").device, space.problem.blocks[0]
    used = set()
    for plan in plans(block, 60):
        choices = space.variants([plan])
        if any(choice.technique == "prune" for choice in choices.values()):  # elementwise work is not folded
            continue
        modules = {u: technique(c.technique).structure(mobile().units[u], c.rate).eval() for u, c in choices.items()}
        part = compose(mobile(), 0, plan.partition, modules)
        wanted = device.compute_ms(module_specs(part, mobile().spec.places[0].shape))
        assert block.device_ms(plan) == pytest.approx(wanted, rel=1e-9), (plan, choices)
        used |= {choice.technique for choice in choices.values()}
    assert used == {"inner", "skip", "low_rank"}


def test_what_a_block_covers_is_superfluous_and_nothing_ends_inside():
    space = whole_space()
    block, (first, *inside) = space.problem.blocks[0], covered(mobile().units[1], Choice("skip", 1.0))
    assert (first, inside) == (1, [2, 3])
    skip = space.choices[1].index(Choice("skip", 1.0))
    two, one = (space.choices[u].index(Choice(ABSORBED, float(n))) for u, n in ((2, 2), (3, 1)))
    assert np.flatnonzero(np.isfinite(block.units[2].pair_ms[skip])).tolist() == [two]
    assert np.flatnonzero(np.isfinite(block.units[3].pair_ms[two])).tolist() == [one]
    assert np.isfinite(block.units[4].pair_ms[one, 0])
    assert [np.isinf(block.units[u].last_ms[o]) for u, o in ((1, skip), (2, two), (3, one))] == [True, True, False]


def test_no_block_reaches_over_a_place_where_the_network_is_sliced():
    library, last = made_library(NAMES, network=mobile()), len(mobile().spec.segments)
    inside = next(i for i, place in enumerate(mobile().spec.places) if place.after == mobile().units[4].output)
    space = build_space(mobile(), library, made_predictor(library), scenario(device="pi4"), (0, inside, last))
    assert Choice("skip", 1.0) in space.choices[1]
    assert not any(choice is not None and choice.technique == "inner" for choice in space.choices[4])


def test_random_compositions_never_change_what_is_not_there():
    library = made_library(NAMES, network=mobile())
    for plan in random_plans(mobile(), library, 60, np.random.default_rng(0)):
        parts = [u for unit, choice in plan.items() for u in covered(mobile().units[unit], choice)]
        assert len(parts) == len(set(parts)), plan


def test_every_compression_says_what_it_saves():
    library, device = made_library(NAMES, network=mobile()), scenario(device="pi4").device
    space = whole_space()
    rows = {(row.layer, row.choice): row for row in savings(mobile(), library, device, space.dropped)}
    assert len(rows) == len(library.records)
    skip = rows[mobile().units[1].name, "skip"]
    inside = [item for item in mobile().spec.items if item.unit in (1, 2, 3) or item.name == "add"]
    layers = [layer for item in inside for layer in item.layers]
    assert skip.covers == 3
    assert skip.saves_ms == skip.base_ms == pytest.approx(device.compute_ms(layers))
    assert {row.why_not for row in rows.values() if row.saves_ms > 0 and row.covers > 1} == {""}
