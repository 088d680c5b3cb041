"""What every compression technique promises, run over techniques x rates x kinds of layer."""

import copy
import dataclasses

import pytest
import torch
from compressed_kinds import (
    APPLICABLE,
    APPLIES,
    BLOCKS,
    DECLINED,
    INPUT,
    base_macs,
    ends,
    error,
    in_shape,
    network,
    replaced,
    samples,
    smooth,
    unit_of,
    weights,
    with_weight,
)
from torch import fx, nn

from modeltree.errors import ConfigError, NotApplicable
from transforms import TECHNIQUES, analyse, compose, export, node_values, technique
from transforms.graph.describe import module_specs

SEEING = ("prune", "gap", "low_rank", "inner", "heads")
"""Techniques that start from samples."""


pytestmark = pytest.mark.usefixtures("one_thread")


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
    wanted = (unit.classes,) if variant.ends_network else samples(kind, name, 1)[1].shape[1:]
    with torch.no_grad():
        assert variant(torch.randn(batch, *in_shape(kind, name))).shape == (batch, *wanted)
    assert variant.ends_network == (name == "gap")


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
@pytest.mark.parametrize("with_samples", [False, True])
def test_the_layer_stays_as_it_is_and_shares_no_weights(name, rate, kind, with_samples):
    unit = unit_of(kind)
    data = samples(kind, name, 1) if with_samples else None
    module, state = replaced(kind, name), weights(replaced(kind, name))
    given = tuple(d.clone() for d in data) if data else ()
    variant = TECHNIQUES[name].apply(unit, rate, data)
    with torch.no_grad():
        for parameter in variant.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(given, data or (), strict=True))
    storages = {p.untyped_storage().data_ptr() for net in (network(), network(True)) for p in net.graph.parameters()}
    own = [*variant.parameters(), *variant.buffers()]
    assert own or name == "skip"
    assert storages.isdisjoint(p.untyped_storage().data_ptr() for p in own)


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
def test_a_variant_has_fewer_macs_than_what_it_replaces(name, rate, kind):
    layers = module_specs(TECHNIQUES[name].structure(unit_of(kind), rate), in_shape(kind, name))
    macs = sum(layer.macs for layer in layers)
    assert (macs > 0) == (name != "skip")
    assert macs < base_macs(kind, name)


@pytest.mark.parametrize(("name", "rate", "kind"), APPLICABLE)
@pytest.mark.parametrize("with_samples", [False, True])
def test_applying_twice_gives_the_same_weights_and_draws_nothing(name, rate, kind, with_samples):
    unit = unit_of(kind)
    data = samples(kind, name, 1) if with_samples else None
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
    variant = TECHNIQUES[name].apply(unit, rate, samples(kind, name, 1))
    again = TECHNIQUES[name].structure(unit, rate)
    again.load_state_dict(variant.state_dict())
    x, shape = samples(kind, name, 2)[0], in_shape(kind, name)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), variant(x))
    assert module_specs(again, shape) == module_specs(variant, shape)


@pytest.mark.parametrize(
    ("name", "rate", "kind"), [c for c in APPLICABLE if c[1] == APPLIES[c[2]][c[0]][0] and c[2] != "pooled"]
)
def test_a_variant_exports_with_a_dynamic_batch(name, rate, kind):
    unit = unit_of(kind)
    variant = TECHNIQUES[name].apply(unit, rate)
    batch = torch.export.Dim("batch", min=1, max=64)
    shape = in_shape(kind, name)
    program = torch.export.export(variant, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    for size in (1, 5):
        x = torch.randn(size, *shape)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), variant(x))


@pytest.mark.parametrize(("name", "rate", "kind"), [c for c in APPLICABLE if c[0] in SEEING])
def test_starting_from_samples_is_no_worse_on_samples_held_back(name, rate, kind):
    unit, held_back = unit_of(kind), samples(kind, name, 2)
    blind = error(TECHNIQUES[name].apply(unit, rate), held_back)
    seeing = error(TECHNIQUES[name].apply(unit, rate, samples(kind, name, 1)), held_back)
    assert 0 < seeing <= 1.05 * blind


@pytest.mark.parametrize(("name", "kind"), [("svd", "fc"), ("svd", "fc_on_maps"), ("tucker2", "same_channels"),
                                            ("tucker2", "5x5")])  # fmt: skip
def test_a_milder_rate_is_no_worse(name, kind):
    unit = with_weight(unit_of(kind), smooth(unit_of(kind).op.weight.shape))
    inputs = samples(kind, name, 2)[0]
    with torch.no_grad():
        data = (inputs, unit.module()(inputs))
    milder, harsher = (error(TECHNIQUES[name].apply(unit, rate), data) for rate in TECHNIQUES[name].rates)
    assert 0 < milder < harsher


@pytest.mark.parametrize(("name", "rate", "kind"), [c for c in APPLICABLE if TECHNIQUES[c[0]].reach(unit_of(c[2]))])
def test_a_block_composes_in_its_network_as_it_is_alone(name, rate, kind):
    net, (given, wanted) = network(kind in BLOCKS), ends(kind, name)
    variant = TECHNIQUES[name].apply(unit_of(kind), rate, samples(kind, name, 1))
    x = torch.randn(3, *INPUT, generator=torch.Generator().manual_seed(4))
    whole = compose(net, 0, len(net.spec.segments), {unit_of(kind).index: variant})
    given_value = node_values(net, x)[given]

    class Replacing(fx.Interpreter):
        def run_node(self, node):
            return variant(given_value) if node.name == wanted else super().run_node(node)

    with torch.no_grad():
        torch.testing.assert_close(whole(x), Replacing(net.graph).run(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_whole_vectors_of_inner_channels_are_kept(lanes):
    for kind in ("1x1", "inverted", "mlp"):
        unit, technique_ = unit_of(kind), TECHNIQUES["inner"]
        rates = technique_.rates_for(unit, lanes)
        widths = [technique_.structure(unit, rate).core.get_submodule(unit.name).weight.shape[0] for rate in rates]
        assert widths, kind
        assert widths == sorted(set(widths), reverse=True)
        assert all(width % lanes == 0 for width in widths)


@pytest.mark.parametrize(("lanes", "kept"), [(0, (0.75, 0.5, 0.25, 0.125)), (4, (16, 12, 8, 4)), (16, (16,))])
def test_kept_filters_fill_whole_vectors_where_the_target_s_are_known(lanes, kept):
    unit, prune = analyse(export(nn.Conv2d(8, 24, 3), (8, 9, 9))).units[0], TECHNIQUES["prune"]
    rates = prune.rates_for(unit, lanes)
    assert kept == (tuple(prune.structure(unit, rate).core.out_channels for rate in rates) if lanes else rates)


def test_channels_that_a_layer_norm_reads_are_not_pruned_apart():
    class Normed(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(16, 64), nn.LayerNorm(64), nn.Linear(64, 16), nn.Flatten(), nn.Linear(64, 3))

    unit = analyse(export(Normed(), (4, 16))).units[0]
    with pytest.raises(NotApplicable, match=f"inner needs channels .*{unit.name}"):
        TECHNIQUES["inner"].structure(unit, 0.5)


def test_pruning_channels_that_carry_nothing_is_exact():
    unit = unit_of("inverted")
    body = TECHNIQUES["inner"].reach(unit)
    module = copy.deepcopy(body.module)
    last = module.get_submodule(body.last)
    with torch.no_grad():
        last.weight[:, ::2] = 0.0
        module.get_submodule(network(True).units[3].name).weight[:, ::2] = 0.0  # what squeezes reads them too
    silent = dataclasses.replace(body, module=module)
    changed = dataclasses.replace(unit, bodies=tuple(silent if b is body else b for b in unit.bodies))
    x = samples("inverted", "inner", 2)[0]
    with torch.no_grad():
        wanted = module(x)
        torch.testing.assert_close(TECHNIQUES["inner"].apply(changed, 0.5)(x), wanted, rtol=1e-4, atol=1e-5)
        assert (TECHNIQUES["inner"].apply(changed, 0.25)(x) - wanted).abs().max() > 1e-3
