"""How much is looked at: bounded by bytes and positions, and never more than there is."""

import itertools

import pytest
import torch
from torch import nn

from nas.compression.budget import first_place, probe_count, step_images, unit_bytes, unit_images, waves
from nas.jobs.batches import images_at_once, trained_at_once
from transforms import Network, analyse, export


def of(side: int) -> Network:
    """Convolutions 3 -> 64 -> 64 -> 8 on maps of a side, then ten classes."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 1, 4), nn.AdaptiveAvgPool2d(1))
    return analyse(export(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10)), (3, side, side)))


SMALL, LARGE = of(32), of(224)


def test_small_images_are_taken_as_they_always_were():
    assert images_at_once(SMALL.spec) == 128
    assert trained_at_once(SMALL.spec, 64) == 64
    assert [step_images(unit, 64) for unit in SMALL.units] == [64] * 4
    assert probe_count(SMALL.spec, 1000) == 1000


def test_large_images_are_taken_by_bytes_and_positions():
    assert images_at_once(LARGE.spec) == 5  # 64 MiB of maps of 64 * 224 * 224 * 4 bytes
    assert trained_at_once(LARGE.spec, 64) == 20
    assert [step_images(unit, 64) for unit in LARGE.units] == [4, 4, 4, 64]
    for unit in LARGE.units:
        assert unit_images(unit, 4000) * unit_bytes(unit) <= 256 * 2**20 or unit_images(unit, 4000) == 16
        assert unit_images(unit, 3) == 3


def test_effects_start_at_the_last_cut_that_is_small():
    places = [LARGE.spec.places[first_place(LARGE, unit)].after for unit in LARGE.units]
    assert places[:3] == [LARGE.spec.places[0].after] * 3  # 12.8 MB a map behind the first two
    assert places[3] == LARGE.spec.places[-2].after


@pytest.mark.parametrize("network", [SMALL, LARGE], ids=["32", "224"])
def test_waves_hold_every_task_once_in_the_order_of_the_units(network):
    tasks = [(unit.index, name) for name in "ab" for unit in network.units]
    parts = waves(network, tasks, 4000, 1000)
    together = list(itertools.chain(*parts))
    assert sorted(together) == sorted(tasks)
    assert [unit for unit, _ in together] == sorted(unit for unit, _ in tasks)
    assert all(parts)
