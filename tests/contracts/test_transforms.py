"""What every compression technique promises, run over techniques x rates x kinds of layer; and where each is exact."""

import copy
import dataclasses
import functools

import pytest
import torch
from torch import fx, nn

from modeltree.errors import ConfigError, NotApplicable
from transforms import TECHNIQUES, Network, Unit, analyse, export, technique
from transforms.graph.describe import module_specs
from transforms.techniques.ksvd import SparseLinear
from transforms.techniques.technique import Samples

INPUT = (3, 12, 12)
KINDS = ("stride1", "stride2", "same_channels", "5x5", "1x1", "depthwise", "pooled", "fc_on_maps", "fc", "last_fc")

DENSE = {
    "mobilenet": (1.0,),
    "mobilenet_v2": (2.0, 1.0),
    "fire": (0.5, 0.25),
    "prune": (0.75, 0.5, 0.25, 0.125),
    "tucker2": (0.5, 0.25),
}
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
    "1x1": {"prune": (0.25, 0.125), "low_rank": (0.375, 0.25)},
    "depthwise": {},
    "pooled": DENSE,
    "fc_on_maps": FACTORED | {"gap": (1.0,)},
    "fc": FACTORED,
    "last_fc": FACTORED,
}
EVERY = [(name, rate, kind) for name, t in TECHNIQUES.items() for rate in t.rates for kind in KINDS]
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


@functools.cache
def network() -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return analyse(export(EveryKind(), INPUT))


def unit_of(kind: str) -> Unit:
    return network().units[KINDS.index(kind)]


@functools.cache
def features(seed: int) -> dict[str, torch.Tensor]:
    """The value of every node of the base network on 24 random images."""
    images = torch.randn(24, *INPUT, generator=torch.Generator().manual_seed(seed))
    interpreter = fx.Interpreter(network().graph, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(images)
    return {node.name: value for node, value in interpreter.env.items() if isinstance(value, torch.Tensor)}


def samples(unit: Unit, name: str, seed: int) -> Samples:
    """Inputs of the unit, and what a variant has to give for them."""
    values = features(seed)
    return values[unit.source], values[network().spec.places[-1].after if name == "gap" else unit.output]


def base_macs(unit: Unit, name: str) -> int:
    if name == "gap":
        return sum(u.op.weight.numel() for u in network().units if isinstance(u.op, nn.Linear))
    return sum(layer.macs for layer in module_specs(unit.module(), unit.in_shape))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def error(module: nn.Module, data: Samples) -> float:
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(module(data[0]), data[1]))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_table_knows_every_technique_and_every_rate():
    assert {(name, rate) for name, t in TECHNIQUES.items() for rate in t.rates} == {c[:2] for c in APPLICABLE}
    assert all(technique(name) is t and t.name == name for name, t in TECHNIQUES.items())
    assert len({t.id for t in TECHNIQUES.values()}) == len(TECHNIQUES)


def test_an_unknown_technique_lists_the_known():
    with pytest.raises(ConfigError, match=r"'svdd'.*fire.*svd"):
        technique("svdd")


@pytest.mark.parametrize(("name", "rate", "kind"), DECLINED)
def test_a_technique_that_does_not_fit_names_the_layer_and_the_reason(name, rate, kind):
    unit = unit_of(kind)
    with pytest.raises(NotApplicable, match=rf"{unit.name}\b") as caught:
        TECHNIQUES[name].apply(unit, rate)
    assert name in str(caught.value)
    with pytest.raises(NotApplicable):
        TECHNIQUES[name].structure(unit, rate)


@pytest.mark.parametrize("rate", [0.0, -0.5, float("nan")])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_rate_that_means_nothing_is_refused(name, rate):
    with pytest.raises(ConfigError, match=f"rate of {name}"):
        TECHNIQUES[name].apply(unit_of("fc"), rate)


@pytest.mark.parametrize("name", [name for name in TECHNIQUES if name != "mobilenet_v2"])
def test_a_share_above_one_is_refused(name):
    with pytest.raises(ConfigError, match="at most 1"):
        TECHNIQUES[name].apply(unit_of("same_channels"), 1.01)


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_output_shape_is_the_layers_for_any_batch(name, rate, kind, batch):
    unit = unit_of(kind)
    variant = TECHNIQUES[name].apply(unit, rate)
    wanted = (unit.classes,) if variant.ends_network else unit.out_shape
    with torch.no_grad():
        assert variant(torch.randn(batch, *unit.in_shape)).shape == (batch, *wanted)
    assert variant.ends_network == (name == "gap")


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
@pytest.mark.parametrize("with_samples", [False, True])
def test_the_layer_stays_as_it_is_and_shares_no_weights(name, rate, kind, with_samples):
    unit = unit_of(kind)
    data = samples(unit, name, 1) if with_samples else None
    module, state = unit.module(), weights(unit.module())
    given = tuple(d.clone() for d in data) if data else ()
    variant = TECHNIQUES[name].apply(unit, rate, data)
    with torch.no_grad():
        for parameter in variant.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(given, data or (), strict=True))
    storages = {p.untyped_storage().data_ptr() for p in network().graph.parameters()}
    own = [*variant.parameters(), *variant.buffers()]
    assert own
    assert storages.isdisjoint(p.untyped_storage().data_ptr() for p in own)


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
def test_a_variant_has_fewer_macs_than_what_it_replaces(name, rate, kind):
    unit = unit_of(kind)
    layers = module_specs(TECHNIQUES[name].structure(unit, rate), unit.in_shape)
    assert 0 < sum(layer.macs for layer in layers) < base_macs(unit, name)


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
@pytest.mark.parametrize("with_samples", [False, True])
def test_applying_twice_gives_the_same_weights_and_draws_nothing(name, rate, kind, with_samples):
    unit = unit_of(kind)
    data = samples(unit, name, 1) if with_samples else None
    torch.manual_seed(5)
    one = TECHNIQUES[name].apply(unit, rate, data).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the caller's generator moved"
    two = TECHNIQUES[name].apply(unit, rate, data).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert all(value.isfinite().all() for value in one.values())


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
def test_structure_and_saved_weights_give_the_variant_back(name, rate, kind):
    unit = unit_of(kind)
    variant = TECHNIQUES[name].apply(unit, rate, samples(unit, name, 1))
    again = TECHNIQUES[name].structure(unit, rate)
    again.load_state_dict(variant.state_dict())
    x = features(2)[unit.source]
    with torch.no_grad():
        assert torch.equal(again.eval()(x), variant(x))
    assert module_specs(again, unit.in_shape) == module_specs(variant, unit.in_shape)


@pytest.mark.parametrize(
    ("name", "rate", "kind"), [c for c in APPLICABLE if c[1] == APPLIES[c[2]][c[0]][0] and c[2] != "pooled"]
)
def test_a_variant_exports_with_a_dynamic_batch(name, rate, kind):
    unit = unit_of(kind)
    variant = TECHNIQUES[name].apply(unit, rate)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(variant, (torch.zeros(2, *unit.in_shape),), dynamic_shapes=({0: batch},))
    for size in (1, 5):
        x = torch.randn(size, *unit.in_shape)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), variant(x))


@pytest.mark.parametrize(("name", "rate", "kind"), [c for c in APPLICABLE if c[0] in ("prune", "gap", "low_rank")])
def test_starting_from_samples_is_no_worse_on_samples_held_back(name, rate, kind):
    unit, held_back = unit_of(kind), samples(unit_of(kind), name, 2)
    blind = error(TECHNIQUES[name].apply(unit, rate), held_back)
    seeing = error(TECHNIQUES[name].apply(unit, rate, samples(unit, name, 1)), held_back)
    assert 0 < seeing <= 1.05 * blind


@pytest.mark.parametrize(("name", "kind"), [("svd", "fc"), ("svd", "fc_on_maps"), ("low_rank", "1x1"),
                                            ("tucker2", "same_channels"), ("tucker2", "5x5")])  # fmt: skip
def test_a_milder_rate_is_no_worse(name, kind):
    unit = with_weight(unit_of(kind), smooth(unit_of(kind).op.weight.shape))
    inputs = samples(unit, name, 2)[0]
    with torch.no_grad():
        data = (inputs, unit.module()(inputs))
    milder, harsher = (error(TECHNIQUES[name].apply(unit, rate), data) for rate in TECHNIQUES[name].rates)
    assert 0 < milder < harsher


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
