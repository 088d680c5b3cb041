"""What names a base network in the cache: its weights, what it computes with them, and the data."""

import pytest

from nas.bases import build, save_weights
from nas.config import SearchConfig
from nas.training.base_network import prepare

NETWORK = """
import torch
from torch import nn


def made():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), POOL, nn.Flatten(), nn.Linear(256, 10))
"""


@pytest.fixture
def key_of(tmp_path):
    """The key of a network with one way of pooling, always with the same weights."""
    weights, runs = tmp_path / "w.safetensors", []

    def key(pool, seed=0):
        (tmp_path / f"{pool}.py").write_text(NETWORK.replace("POOL", f"nn.{pool}(2)"))
        base = f"{tmp_path / pool}.py:made"
        if not weights.exists():
            save_weights(build(base, num_classes=10, image_size=16), weights)
        config = SearchConfig(base=base, weights=str(weights), image_size=16, seed=seed)
        runs.append(tmp_path / f"run{len(runs)}")
        return prepare(config, runs[-1], tmp_path / "cache", lambda *_: None).key

    return key


def test_the_key_tells_networks_of_the_same_weights_apart_and_is_the_same_each_time(key_of):
    largest, again, mean = key_of("MaxPool2d"), key_of("MaxPool2d"), key_of("AvgPool2d")
    assert largest == again
    assert largest[0] != mean[0]
    assert largest[1] == mean[1]


def test_the_key_tells_seeds_apart_because_other_images_are_held_back(key_of):
    one, other = key_of("MaxPool2d"), key_of("MaxPool2d", seed=1)
    assert one[0] == other[0]
    assert one[1] != other[1]
