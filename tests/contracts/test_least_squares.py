"""The best last layer of a variant, and moments of inputs, in closed form."""

import copy

import pytest
import torch
from compressed_kinds import unit_of
from torch import nn

from transforms import technique
from transforms.techniques.least_squares import refit_last_, root_of_moments


def inputs_of(unit, count=64, seed=0):
    return torch.randn(count, *unit.core_in_shape, generator=torch.Generator().manual_seed(seed)).abs()


def loss(core, unit, x, rectified):
    given, wanted = core(x), unit.op(x)
    if rectified:
        given, wanted = given.relu(), wanted.relu()
    return float((given - wanted).square().mean())


def test_the_last_layer_is_found_again_where_the_rest_is_right():
    unit = unit_of("same_channels")
    with torch.no_grad():
        core = nn.Sequential(copy.deepcopy(unit.op), nn.Conv2d(unit.op.out_channels, unit.op.out_channels, 1))
        assert refit_last_(core, unit, inputs_of(unit), rectified=False)
        mixing = core[1].weight[:, :, 0, 0]
        assert torch.allclose(mixing, torch.eye(len(mixing)), atol=0.02)
        assert loss(core, unit, inputs_of(unit, seed=1), False) < 1e-4 * float(unit.op(inputs_of(unit)).var())


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "tucker2"])
def test_samples_bring_a_variant_closer_to_its_unit(name):
    unit = unit_of("same_channels")
    x, fresh = inputs_of(unit), inputs_of(unit, seed=1)
    with torch.no_grad():
        plain = technique(name).apply(unit, technique(name).rates[-1])
        fitted = technique(name).apply(unit, technique(name).rates[-1], (x, unit.module()(x)))
        errors = [float((made(fresh) - unit.module()(fresh)).square().mean()) for made in (plain, fitted)]
    assert errors[1] < 0.9 * errors[0]


def test_under_a_rectifier_what_is_negative_is_free():
    unit = unit_of("same_channels")
    x = inputs_of(unit)
    with torch.no_grad():
        first = nn.Conv2d(unit.op.in_channels, 4, 3, padding=1, bias=False)
        plain = nn.Sequential(first, nn.Conv2d(4, unit.op.out_channels, 1))
        rectified = copy.deepcopy(plain)
        assert refit_last_(plain, unit, x, rectified=False)
        assert refit_last_(rectified, unit, x, rectified=True)
        assert loss(plain, unit, x, False) <= loss(rectified, unit, x, False)
        assert loss(rectified, unit, x, True) < loss(plain, unit, x, True)


def test_with_few_positions_the_weights_stay():
    unit = unit_of("fc")
    core = nn.Sequential(nn.Linear(unit.core_in_shape[0], 8, bias=False), nn.Linear(8, unit.op.out_features))
    before = core[1].weight.clone()
    with torch.no_grad():
        assert not refit_last_(core, unit, inputs_of(unit, count=16), rectified=False)
    assert torch.equal(core[1].weight, before)


def test_the_root_of_moments_is_their_root():
    rows = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)).double()
    root = root_of_moments(rows)
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ root, rows.T @ rows / 500, rtol=0, atol=5e-4)
