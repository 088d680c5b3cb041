"""Bottlenecks of a frozen network: they learn, they are kept, and one does not depend on the others beside it."""

from pathlib import Path

import pytest
import torch
from torch import nn

import nas.exits.bottlenecks
from modeltree.errors import ConfigError
from nas.bases import fingerprint
from nas.data import Dataset, load_dataset
from nas.exits.bottlenecks import train_bottlenecks
from nas.training.base_network import Prepared
from nas.training.train import TrainConfig, train
from transforms import analyse, export
from transforms.bottleneck import bottleneck, start_
from transforms.quantise import quantised

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(done, total, text):
    """No one listens."""


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    digits = load_dataset("digits", image_size=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(24 * 4, 10),
        )  # fmt: skip
        model = train(model, digits, TrainConfig(epochs=4, batch_size=64, lr=0.05, crop=False))
    network = analyse(export(model, (3, 8, 8)))
    return Prepared(dataset=digits, model=model, network=network, program=Path("nowhere"), key=("a", "b"))


def same(one, two) -> bool:
    return all(fingerprint(a) == fingerprint(b) for a, b in zip(one, two, strict=True))


def seen(prepared: Prepared, place: int, coder, bits: int | None) -> tuple[float, float]:
    """(error of the features relative to their variance, percent of test images that are answered as before)."""
    digits, network = prepared.dataset, prepared.network
    encoder, decoder = coder
    with torch.no_grad():
        x = network.between(0, place)(digits.normalise(digits.test.images))
        code = encoder(x)
        back = decoder(code if bits is None else quantised(code, bits))
        rest = network.between(place, len(network.spec.segments))
        agree = (rest(back).argmax(1) == rest(x).argmax(1)).float().mean()
        return float((back - x).square().mean() / x.var()), 100 * float(agree)


@pytest.mark.parametrize("bits", [None, 3])
def test_bottlenecks_learn_beyond_the_best_linear_start(prepared: Prepared, tmp_path, bits):
    before = [p.clone() for p in prepared.network.graph.parameters()]
    coders = train_bottlenecks(prepared, [(1, 2), (2, 3)], tmp_path, 0, quiet, bits=bits)
    assert list(coders) == [(1, 2), (2, 3)]
    digits: Dataset = prepared.dataset
    for (place, kept), coder in coders.items():
        started = bottleneck(prepared.network.spec.places[place].shape, kept)
        with torch.no_grad():
            start_(*started, prepared.network.between(0, place)(digits.normalise(digits.fit.images[:512])))
        error, agree = seen(prepared, place, coder, bits)
        error_at_start, agree_at_start = seen(prepared, place, started, bits)
        assert error < error_at_start
        assert agree > agree_at_start
        assert agree > 60
        assert not any(part.training for part in coder)
    assert all(torch.equal(*pair) for pair in zip(before, prepared.network.graph.parameters(), strict=True))
    assert all(p.grad is None for p in prepared.network.graph.parameters())


def test_training_for_few_bits_is_worth_it(prepared, tmp_path):
    plain = train_bottlenecks(prepared, [(2, 6)], tmp_path, 0, quiet)[2, 6]
    aware = train_bottlenecks(prepared, [(2, 6)], tmp_path, 0, quiet, bits=2)[2, 6]
    assert sorted(path.name for path in tmp_path.glob("bottleneck*")) == [
        "bottleneck_2_6_2.safetensors", "bottleneck_2_6_32.safetensors",
    ]  # fmt: skip
    assert seen(prepared, 2, aware, 2)[0] < seen(prepared, 2, plain, 2)[0]


def test_one_comes_out_the_same_whatever_is_trained_beside_it_and_is_kept(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(nas.exits.bottlenecks, "_STEPS_SMALL", 5)
    drawn = torch.random.get_rng_state()
    both = train_bottlenecks(prepared, [(1, 2), (2, 3)], tmp_path / "one", 0, quiet)
    assert torch.equal(torch.random.get_rng_state(), drawn), "training must not move the caller's generator"
    torch.rand(3)
    alone = train_bottlenecks(prepared, [(2, 3)], tmp_path / "two", 0, quiet)
    assert same(both[2, 3], alone[2, 3])
    assert not same(both[2, 3], train_bottlenecks(prepared, [(2, 3)], tmp_path / "three", 1, quiet)[2, 3])
    kept = tmp_path / "one" / "bottleneck_1_2_32.safetensors"
    kept.write_bytes(kept.read_bytes()[:-5])  # a damaged file is made again
    assert same(train_bottlenecks(prepared, [(1, 2)], tmp_path / "one", 0, quiet)[1, 2], both[1, 2])
    monkeypatch.setattr(nas.exits.bottlenecks, "distillation_set", None)  # nothing is left to learn
    again = train_bottlenecks(prepared, [(1, 2), (2, 3)], tmp_path / "one", 0, quiet)
    assert all(same(both[key], again[key]) for key in both)


def test_places_without_channels_and_too_many_channels_are_refused(prepared, tmp_path):
    last = len(prepared.network.spec.segments)
    with pytest.raises(ConfigError, match="earlier cut"):
        train_bottlenecks(prepared, [(last, 3)], tmp_path, 0, quiet)
    with pytest.raises(ConfigError, match=r"within 1\.\.16"):
        train_bottlenecks(prepared, [(1, 17)], tmp_path, 0, quiet)
