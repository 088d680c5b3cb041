"""The check of a recipe's rate: kept where it works, lowered where the first steps diverge."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from modeltree.errors import ConfigError
from nas.data import load_dataset
from nas.training.rate import checked_rate
from nas.training.train import recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def network(*, normalised):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if normalised else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10)
    )


def test_a_rate_that_works_stays_and_the_network_is_left_alone():
    data, made = load_dataset("digits", image_size=8), network(normalised=True)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    how = recipe(data)
    assert checked_rate(made, data, how) == how
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_network_that_would_diverge_gets_a_rate_at_which_it_learns():
    data, made = load_dataset("digits", image_size=8), network(normalised=False)
    how = replace(recipe(data), lr=3.0)
    found = checked_rate(made, data, how)
    assert found.lr < how.lr
    assert replace(found, lr=how.lr) == how
    assert checked_rate(made, data, how) == found


def test_a_network_that_cannot_learn_is_refused():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * torch.full((len(x), 10), np.nan)

    with pytest.raises(ConfigError, match=r"make the network worse at any rate from 0\.05"):
        checked_rate(Broken(), load_dataset("digits", image_size=8), recipe(load_dataset("digits", image_size=8)))
