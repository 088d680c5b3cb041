"""Which variants are not worth making on a device."""

import msgspec
from networks import made_library, tiny

from modeltree.layers import LayerSpec
from modeltree.profiles import load_profile
from nas.compression.candidates import Choice, Record, needless, outdone, quickest, slower
from transforms import technique
from transforms.graph.describe import module_specs

PHONE = load_profile("phone")


def record(name, channels, logit_error, *, settled, kept=0):
    layer = LayerSpec(op="conv", in_channels=channels, out_channels=8, out_height=4, out_width=4)
    return Record(
        unit=0, technique=name, rate=0.5, error=0.0, logit_error=logit_error, drop=0.0, seconds=0.0, layers=(layer,),
        kept=kept, foldable=False, settled=settled,
    )  # fmt: skip


def test_a_variant_that_needs_training_yields_to_one_as_fast_that_is_ready():
    ready = record("tucker2", 8, 1e-4, settled=True)
    for waits, beaten in [
        (record("fire", 8, 0.3, settled=False), True),
        (record("fire", 4, 0.3, settled=False), False),  # faster
        (record("fire", 16, 0.3, settled=True), False),  # nothing to save
        (record("prune", 16, 0.3, settled=False, kept=4), False),  # its follower is faster
    ]:
        records = {(0, ready.choice): ready, (0, waits.choice): waits}
        assert ((0, waits.choice) in outdone(records, PHONE, 2e-3)) == beaten
    fire = record("fire", 8, 0.3, settled=False)
    told = outdone({(0, ready.choice): ready, (0, fire.choice): fire}, PHONE, 2e-3)
    assert "tucker2@0.5 is as fast" in told[0, fire.choice]


def test_nothing_yields_to_a_variant_that_does_harm_or_is_of_another_unit():
    harmful, waits = record("tucker2", 8, 0.01, settled=True), record("fire", 8, 0.3, settled=False)
    assert not outdone({(0, harmful.choice): harmful, (0, waits.choice): waits}, PHONE, 2e-3)
    assert not outdone(
        {(1, harmful.choice): record("svd", 8, 0.0, settled=True), (0, waits.choice): waits}, PHONE, 2e-3
    )


def test_variants_that_take_as_long_as_their_layer_are_left_out():
    network = tiny()
    every = list(made_library(("mobilenet", "prune", "gap"), network=network).records)
    work_is_free = msgspec.structs.replace(PHONE, ns_per_mac=dict.fromkeys(PHONE.ns_per_mac, 0.0))
    dropped = slower(network, every, work_is_free)  # two layers cost more than one
    assert {choice.technique for _, choice in dropped} == {"mobilenet"}
    layers_are_free = msgspec.structs.replace(PHONE, ns_per_mac=dict.fromkeys(PHONE.ns_per_mac, 1.0), overhead_us=0.0)
    assert not slower(network, every, layers_are_free)


LINEAR = 3
"""The tiny network's first linear layer: a quarter of the rank takes twice what an eighth takes."""


def of_linear(choice, logit_error, *, settled=True):
    unit = tiny().units[LINEAR]
    layers = tuple(module_specs(technique(choice.technique).structure(unit, choice.rate), unit.in_shape))
    return Record(
        unit=LINEAR, technique=choice.technique, rate=choice.rate, error=0.0, logit_error=logit_error, drop=0.0,
        seconds=0.0, layers=layers, kept=0, foldable=False, settled=settled,
    )  # fmt: skip


def test_the_two_fastest_of_a_unit_are_made_first_and_all_that_reach_beyond_it():
    wanted = [(LINEAR, Choice("svd", rate)) for rate in (0.5, 0.25, 0.125)]
    beyond = [
        (1, Choice("prune", 0.5)),
        (1, Choice("prune", 0.25)),
        (1, Choice("prune", 0.125)),
        (LINEAR, Choice("gap", 1.0)),
    ]
    assert quickest(tiny(), [*wanted, *beyond], PHONE) == [*wanted[1:], *beyond]


def test_a_slower_variant_is_spared_where_a_faster_one_does_no_harm():
    later, fast = [(LINEAR, Choice("svd", 0.25))], Choice("svd", 0.125)
    for error, spared in ((1e-3, True), (3e-3, False)):
        told = needless(tiny(), later, {(LINEAR, fast): of_linear(fast, error)}, PHONE, 2e-3)
        assert (later[0] in told) == spared
    assert (
        "svd@0.125 is as fast" in needless(tiny(), later, {(LINEAR, fast): of_linear(fast, 0.0)}, PHONE, 2e-3)[later[0]]
    )


def test_a_faster_variant_is_never_spared_for_a_slower_one():
    slow = Choice("svd", 0.25)
    assert not needless(tiny(), [(LINEAR, Choice("svd", 0.125))], {(LINEAR, slow): of_linear(slow, 0.0)}, PHONE, 2e-3)
