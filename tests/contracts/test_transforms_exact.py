"""Where each compression technique loses nothing."""

import functools

import pytest
import torch
from compressed_kinds import (
    error,
    features,
    rand,
    unit_of,
    with_weight,
)
from torch import nn

from modeltree.errors import NotApplicable
from transforms import TECHNIQUES, Unit, analyse, export
from transforms.techniques.ksvd import SparseLinear

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_exact(name: str, unit: Unit, rate: float, *, nonnegative: bool = True) -> None:
    x = torch.randn(4, *unit.in_shape, generator=torch.Generator().manual_seed(9))
    x = x.abs() if nonnegative else x
    with torch.no_grad():
        wanted = unit.module()(x)
        assert wanted.abs().mean() > 1e-2
        torch.testing.assert_close(TECHNIQUES[name].apply(unit, rate)(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["fc_on_maps", "fc"])
def test_svd_of_a_matrix_of_low_rank_is_exact(kind):
    m, n = unit_of(kind).op.weight.shape
    weight = rand(m, 16) @ rand(16, n) / 16  # k = 0.25 * 64
    assert_exact("svd", with_weight(unit_of(kind), weight), 0.25, nonnegative=False)
    with pytest.raises(AssertionError, match="not close"):
        assert_exact("svd", with_weight(unit_of(kind), weight), 0.125, nonnegative=False)


@pytest.mark.parametrize("kind", ["stride1", "stride2", "same_channels", "5x5"])
def test_mobilenet_of_a_separable_kernel_is_exact(kind):
    out, inputs, k, _ = unit_of(kind).op.weight.shape
    unit = with_weight(unit_of(kind), rand(out, inputs, 1, 1) * rand(1, inputs, k, k) / 5)
    assert_exact("mobilenet", unit, 1.0, nonnegative=False)


@pytest.mark.parametrize(("kind", "rate"), [("stride2", 1.0), ("stride2", 2.0), ("same_channels", 1.0), ("5x5", 2.0)])
def test_mobilenet_v2_of_a_separable_kernel_is_exact_on_what_rectifiers_give(kind, rate):
    out, inputs, k, _ = unit_of(kind).op.weight.shape
    parts = [rand(out, inputs, 1, 1) * rand(1, inputs, k, k + i).narrow(3, i, k) / 5 for i in range(int(rate))]
    weight = sum(parts)
    if kind == "same_channels":  # there the residual link carries the identity
        weight[range(out), range(out), k // 2, k // 2] += 1
    assert_exact("mobilenet_v2", with_weight(unit_of(kind), weight), rate)
    assert (TECHNIQUES["mobilenet_v2"].structure(unit_of(kind), rate).core.add is None) == (kind != "same_channels")


@functools.cache
def alone(*args, side: int = 8, **kwargs) -> Unit:
    """A convolution as a network of its own."""
    torch.manual_seed(0)
    conv = nn.Conv2d(*args, **kwargs)
    return analyse(export(conv, (conv.in_channels, side, side))).units[0]


@pytest.mark.parametrize("unit", [
    lambda: alone(16, 16, 4, padding="same"),
    lambda: alone(16, 16, 3, stride=2, padding=3, side=4),
    lambda: alone(16, 16, (1, 3), padding="same", dilation=2),
], ids=["even kernel", "stride that keeps the shape", "dilated row"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "prune", "tucker2"])
def test_unusual_convolutions_are_replaced_by_their_own_geometry(name, unit):
    out, inputs, *k = unit().op.weight.shape
    weight = rand(out, inputs, 1, 1) * rand(1, inputs, *k) / 5
    if name == "mobilenet_v2" and unit() is alone(16, 16, (1, 3), padding="same", dilation=2):
        weight[range(16), range(16), 0, 1] += 1
    changed = with_weight(unit(), weight)
    if name in ("mobilenet", "mobilenet_v2"):
        assert_exact(name, changed, 1.0)
    else:
        rate = TECHNIQUES[name].rates[-1]
        assert TECHNIQUES[name].apply(changed, rate)(torch.zeros(2, *changed.in_shape)).shape[1:] == changed.out_shape


@pytest.mark.parametrize("unit", [
    lambda: alone(16, 16, 4, padding=2),
    lambda: alone(16, 16, 2, padding=1),
    lambda: alone(16, 16, 3),
    lambda: alone(16, 16, 3, padding=2, dilation=2),
    lambda: alone(16, 16, 3, padding="same"),
    lambda: alone(16, 1, 5, padding=2),
])  # fmt: skip
def test_fire_declines_where_its_two_halves_would_not_meet(unit):
    with pytest.raises(NotApplicable, match=r"fire (needs an odd kernel|divides the output).*conv2d"):
        TECHNIQUES["fire"].structure(unit(), 0.25)


def test_mobilenet_declines_a_single_filter():
    with pytest.raises(NotApplicable, match=r"mobilenet would need 10240 MACs in conv2d, the layer itself 9216"):
        TECHNIQUES["mobilenet"].structure(alone(16, 1, 3, padding=1), 1.0)


@pytest.mark.parametrize("kind", ["stride2", "same_channels", "5x5"])
def test_tucker_of_a_kernel_of_low_multilinear_rank_is_exact(kind):
    out, inputs, k, _ = unit_of(kind).op.weight.shape
    core = rand(out // 4, inputs // 4, k, k)
    weight = torch.einsum("abhw,oa,ib->oihw", core, rand(out, out // 4), rand(inputs, inputs // 4)) / 100
    assert_exact("tucker2", with_weight(unit_of(kind), weight), 0.25, nonnegative=False)


@pytest.mark.parametrize("kind", ["stride2", "pooled", "1x1"])
@pytest.mark.parametrize("with_samples", [False, True])
def test_pruning_filters_that_are_zero_is_exact(kind, with_samples):
    weight = unit_of(kind).op.weight.detach().clone()
    dead = torch.arange(len(weight)) % 4 != 1
    weight[dead] = 0
    unit = with_weight(unit_of(kind), weight, torch.where(dead, 0.0, 0.1))
    x = features(2)[unit.source]
    with torch.no_grad():
        wanted = unit.module()(x)
        variant = TECHNIQUES["prune"].apply(unit, 0.25, (x, wanted) if with_samples else None)
        assert wanted.abs().mean() > 1e-3
        torch.testing.assert_close(variant(x), wanted, rtol=1e-2 if with_samples else 1e-5, atol=1e-3)


def test_pruning_restores_channels_that_are_mixtures_of_kept_ones():
    weight = unit_of("pooled").op.weight.detach().clone()
    weight[16:] = weight[:16] * torch.linspace(0.1, 0.5, 16)[:, None, None, None]  # a rectifier keeps the proportion
    unit = with_weight(unit_of("pooled"), weight)
    with torch.no_grad():
        data, held_back = (
            (features(s)[unit.source], unit.module()(features(s)[unit.source])) for s in (1, 2)
        )  # fmt: skip
    power = float((held_back[1] ** 2).mean())
    assert error(TECHNIQUES["prune"].apply(unit, 0.5, data), held_back) < 1e-3 * power
    assert error(TECHNIQUES["prune"].apply(unit, 0.5), held_back) > 1e-2 * power


def test_fire_of_a_kernel_whose_first_half_looks_at_single_pixels_is_exact():
    out, inputs, k, _ = unit_of("same_channels").op.weight.shape
    mixed = torch.einsum("oahw,ia->oihw", rand(out, 8, k, k), rand(inputs, 8)) / 40  # 0.5 * 32 / 2 directions
    mixed[: out // 2] *= torch.zeros(k, k).index_put((torch.tensor(k // 2), torch.tensor(k // 2)), torch.tensor(1.0))
    unit = with_weight(unit_of("same_channels"), mixed)
    assert_exact("fire", unit, 0.5, nonnegative=False)


def test_ksvd_codes_every_input_with_a_quarter_of_the_atoms():
    unit = unit_of("fc_on_maps")
    variant = TECHNIQUES["ksvd"].apply(unit, 0.25)
    codes, dictionary = variant.core
    assert isinstance(codes, SparseLinear)
    assert (codes.out_features, dictionary.in_features) == (16, 16)
    assert int((codes.weight != 0).sum(dim=0).max()) == 4
    assert codes.density == pytest.approx(0.25)
    torch.testing.assert_close(dictionary.weight.norm(dim=0), torch.ones(16))


def test_ksvd_of_a_sparse_product_is_good_and_better_than_as_many_numbers_in_an_svd():
    unit = unit_of("fc_on_maps")
    generator = torch.Generator().manual_seed(4)
    m, n = unit.op.weight.shape
    codes = torch.zeros(16, n)
    for column in range(n):
        codes[torch.randperm(16, generator=generator)[:4], column] = torch.randn(4, generator=generator)
    weight = torch.linalg.qr(torch.randn(m, 16, generator=generator))[0] @ codes
    first, second = TECHNIQUES["ksvd"].apply(with_weight(unit, weight), 0.25).core
    left, values, right = torch.linalg.svd(weight)
    same_size = (left[:, :4] * values[:4]) @ right[:4]
    with torch.no_grad():
        lost = float((second.weight @ first.weight - weight).norm() / weight.norm())
    assert lost < 0.35
    assert lost < 0.5 * float((same_size - weight).norm() / weight.norm())


@pytest.mark.parametrize("rank", [0, 2])
def test_ksvd_of_a_matrix_of_lower_rank_than_its_codes_is_exact_and_silent(rank):
    unit = unit_of("fc")
    weight = rand(64, rank) @ rand(rank, 64)
    first, second = TECHNIQUES["ksvd"].apply(with_weight(unit, weight), 0.25).core
    with torch.no_grad():
        torch.testing.assert_close(second.weight @ first.weight, weight, rtol=1e-4, atol=1e-4)


def test_a_masked_weight_stays_out_while_training():
    layer = SparseLinear(6, 4)
    layer.mask[1, 2] = 0
    layer.weight.data[1, 2] = 100.0
    layer(torch.ones(1, 6)).sum().backward()
    assert layer.weight.grad[1, 2] == 0
    assert float(layer(torch.ones(1, 6)).detach().abs().max()) < 10
    assert layer.density == pytest.approx(23 / 24)
