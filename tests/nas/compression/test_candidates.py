"""Which variants are not worth making on a device."""

import msgspec
from networks import made_library, tiny

from modeltree.layers import LayerSpec
from modeltree.profiles import load_profile
from nas.compression.candidates import Record, outdone, slower

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
