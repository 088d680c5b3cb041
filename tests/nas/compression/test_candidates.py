"""Which variants are not worth making on a device."""

import msgspec
import torch
from networks import made_library, tiny
from torch import nn

from modeltree.layers import LayerSpec
from modeltree.profiles import load_profile
from nas.compression.candidates import Choice, Record, candidates, hopeless, needless, outdone, quickest, slower
from transforms import analyse, export, technique
from transforms.graph.describe import module_specs

PHONE = load_profile("phone")


def record(name, channels, logit_error, *, settled, kept=0, drop=0.0):
    layer = LayerSpec(op="conv", in_channels=channels, out_channels=8, out_height=4, out_width=4)
    return Record(
        unit=0, technique=name, rate=0.5, error=0.0, logit_error=logit_error, drop=drop, seconds=0.0, layers=(layer,),
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


def test_a_closed_form_that_loses_too_much_is_not_trained():
    lost = [
        (record("low_rank", 8, 0.9, settled=False, drop=40.0), True),
        (record("low_rank", 8, 0.9, settled=False, drop=20.0), False),
        (record("low_rank", 8, 0.9, settled=True, drop=40.0), False),  # what is ready is judged by others
        (record("fire", 8, 0.9, settled=False, drop=40.0), False),  # starts far from where training ends
    ]
    for one, left_out in lost:
        assert (list(hopeless({(0, one.choice): one}).values()) == ["its closed form alone loses 40.0 points"]) == (
            left_out
        )


def test_two_rates_that_come_to_the_same_network_are_one_variant():
    layers = nn.Conv2d(3, 80, 3), nn.ReLU(), nn.Conv2d(80, 80, 1), nn.Flatten(), nn.Linear(80 * 36, 10)
    network = analyse(export(nn.Sequential(*layers), (3, 8, 8)))
    applies, declined = candidates(network, ("low_rank",))  # 30 and 20 of 80 channels: 16 in whole vectors
    assert applies == [(1, Choice("low_rank", 0.375))]
    assert declined[1, Choice("low_rank", 0.25)] == "is the same network as low_rank@0.375"


def test_channels_of_a_pointwise_layer_are_left_out_only_where_a_dense_layer_reads_the_rest():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first, self.second = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)
            self.head = nn.Linear(64 * 36, 10)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = x + self.second(torch.relu(self.first(x)))
            return self.head(torch.flatten(x, 1))

    applies, declined = candidates(analyse(export(Residual(), (3, 8, 8))), ("prune",))
    assert (1, Choice("prune", 0.25)) in applies
    assert (2, Choice("prune", 0.25)) not in applies
    assert "no dense layer alone reads" in declined[2, Choice("prune", 0.25)]


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
