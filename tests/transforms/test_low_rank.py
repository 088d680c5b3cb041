"""Low rank of pointwise layers and of layers on tokens: exact where the rank is there, and best for the real inputs."""

import pytest
import torch
from torch import nn

from modeltree.errors import NotApplicable
from transforms import Unit, analyse, export, technique
from transforms.graph.describe import module_specs

TOKENS = 49


class Mlp(nn.Module):
    """A layer 128 -> 256 on 7x7 tokens, behind a pointwise convolution 64 -> 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(64, 128, 1), nn.Linear(128, 256), nn.Linear(256, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.inner(tokens)).mean(1))


@pytest.fixture(scope="module")
def units() -> tuple[Unit, ...]:
    torch.manual_seed(0)
    return analyse(export(Mlp(), (64, 7, 7))).units


@pytest.mark.parametrize(("index", "rank"), [(0, 16), (1, 48)])
def test_costs_are_those_of_two_thin_layers_of_whole_vectors(units, index, rank):
    unit = units[index]
    m, n = unit.op.weight.shape[:2]
    layers = module_specs(technique("low_rank").structure(unit, 0.375), unit.in_shape)
    macs = [layer.macs for layer in layers if layer.macs]
    assert macs == [n * rank * TOKENS, rank * m * TOKENS]


@pytest.mark.parametrize("index", [0, 1])
def test_a_weight_of_the_rank_is_kept_exactly(units, index):
    unit = units[index]
    m, n = unit.op.weight.shape[:2]
    before = unit.op.weight.detach().clone()
    with torch.no_grad():
        unit.op.weight.copy_((torch.randn(m, 16) @ torch.randn(16, n) / n).reshape(before.shape))
    x = torch.randn(3, *unit.in_shape)
    wanted = unit.module()(x)
    for samples in (None, (x, wanted)):
        torch.testing.assert_close(technique("low_rank").apply(unit, 0.375, samples)(x), wanted, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        unit.op.weight.copy_(before)


def test_inputs_that_fill_few_directions_cost_nothing(units):
    unit = units[1]
    directions = torch.randn(32, 128)
    x = torch.randn(8, TOKENS, 32) @ directions
    with torch.no_grad():
        wanted = unit.module()(x)
        blind = (technique("low_rank").apply(unit, 0.375)(x) - wanted).square().mean()
        seeing = (technique("low_rank").apply(unit, 0.375, (x, wanted))(x) - wanted).square().mean()
    assert seeing < 1e-3 * wanted.square().mean() < blind


def test_one_vector_is_left_to_svd(units):
    with pytest.raises(NotApplicable, match="which svd factors"):
        technique("low_rank").structure(units[2], 0.25)
