"""What every compression technique promises, run over techniques x rates x kinds of layer."""

import pytest
import torch
from compressed_kinds import (
    APPLICABLE,
    APPLIES,
    DECLINED,
    base_macs,
    error,
    features,
    network,
    samples,
    smooth,
    unit_of,
    weights,
    with_weight,
)

from modeltree.errors import ConfigError, NotApplicable
from transforms import TECHNIQUES, technique
from transforms.graph.describe import module_specs


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


@pytest.mark.parametrize(("name", "kind"), [("svd", "fc"), ("svd", "fc_on_maps"), ("tucker2", "same_channels"),
                                            ("tucker2", "5x5")])  # fmt: skip
def test_a_milder_rate_is_no_worse(name, kind):
    unit = with_weight(unit_of(kind), smooth(unit_of(kind).op.weight.shape))
    inputs = samples(unit, name, 2)[0]
    with torch.no_grad():
        data = (inputs, unit.module()(inputs))
    milder, harsher = (error(TECHNIQUES[name].apply(unit, rate), data) for rate in TECHNIQUES[name].rates)
    assert 0 < milder < harsher
