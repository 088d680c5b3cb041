"""Training: it learns, it is repeatable, and a killed run ends like one that was not."""

import dataclasses
import math
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from modeltree.errors import ConfigError, DataError
from nas.bases import fingerprint
from nas.data import Dataset, ImageSet, load_dataset
from nas.jobs.checkpoint import load_state, save_state
from nas.training.train import TrainConfig, accuracy, augment, device_named, one_cycle, recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", image_size=8)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * 4 * 4, 10),
    )  # fmt: skip


CONFIG = TrainConfig(epochs=4, batch_size=64, lr=0.05, crop=False)


def test_a_small_network_learns_digits_and_its_input_is_untouched(digits, network):
    before = fingerprint(network)
    trained = train(network, digits, CONFIG)
    assert accuracy(trained, digits.test, digits) > 90
    assert accuracy(network, digits.test, digits) < 50
    assert fingerprint(network) == before
    assert network.training
    assert not trained.training


def test_the_same_seed_gives_the_same_bits_whatever_ran_before(digits, network):
    config = dataclasses.replace(CONFIG, epochs=1)
    one = train(network, digits, config)
    drawn = torch.rand(7)
    two = train(network, digits, config)
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one) != fingerprint(train(network, digits, dataclasses.replace(config, seed=1)))
    torch.manual_seed(5)
    expected = torch.rand(7)
    torch.manual_seed(5)
    train(network, digits, config)
    assert torch.equal(torch.rand(7), expected), "training must not move the caller's generator"
    assert len(drawn) == 7


class Viewing(nn.Module):
    """A network that takes it that the pixels of a channel lie side by side in memory."""

    def __init__(self):
        super().__init__()
        self.maps, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 10)

    def forward(self, images):
        return self.last(torch.relu(self.maps(images)).view(len(images), -1))


def test_a_network_that_views_its_maps_is_trained_all_the_same(digits):
    trained = train(Viewing(), digits, CONFIG)
    assert accuracy(trained, digits.test, digits) > 60


def test_products_of_16_bits_learn_as_well_and_leave_plain_weights(digits, network):
    trained = train(network, digits, dataclasses.replace(CONFIG, bf16=True))
    assert accuracy(trained, digits.test, digits) > 90
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert fingerprint(trained) != fingerprint(train(network, digits, CONFIG))


def test_a_criterion_of_ones_own_is_what_is_trained_on(digits, network):
    def second_class(logits, labels):
        return nn.functional.cross_entropy(logits, torch.ones_like(labels))

    trained = train(network, digits, dataclasses.replace(CONFIG, epochs=1), criterion=second_class)
    with torch.no_grad():
        assert (trained(digits.normalise(digits.test.images)).argmax(1) == 1).all()


class _Kill(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [1, 20, 37, 38, 39, 75])
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(digits, network, tmp_path, killed_at):
    config = dataclasses.replace(CONFIG, flip=True, crop=True)  # 19 steps an epoch
    whole = fingerprint(train(network, digits, config))

    def kill(done: int, total: int, text: str) -> None:
        if done == killed_at:
            raise _Kill

    with pytest.raises(_Kill):
        train(network, digits, config, checkpoint=tmp_path / "state", progress=kill)
    seen: list[int] = []
    resumed = train(
        network, digits, config, checkpoint=tmp_path / "state", progress=lambda done, total, text: seen.append(done)
    )
    assert fingerprint(resumed) == whole
    assert seen == list(range((killed_at - 1) // 19 * 19 + 1, 4 * 19 + 1))
    again = train(network, digits, config, checkpoint=tmp_path / "state", progress=kill)  # nothing left to do
    assert fingerprint(again) == whole


def test_a_checkpoint_of_another_run_is_refused(digits, network, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1)
    train(network, digits, config, checkpoint=tmp_path / "state")
    with pytest.raises(ConfigError, match=r"another run \(it differs in lr\)"):
        train(network, digits, dataclasses.replace(config, lr=0.01), checkpoint=tmp_path / "state")
    other = load_dataset("digits", image_size=8, seed=1)
    with pytest.raises(ConfigError, match="differs in data"):
        train(network, other, config, checkpoint=tmp_path / "state")


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["NAS_EVIL"],)


def test_a_checkpoint_with_a_payload_is_refused_and_not_run(digits, network, tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_EVIL", str(tmp_path / "pwned"))
    torch.save({"run": _Evil()}, tmp_path / "state")
    with pytest.raises(DataError, match="delete it"):
        train(network, digits, CONFIG, checkpoint=tmp_path / "state")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04", pickle.dumps({"run": 3})])
def test_a_broken_checkpoint_is_refused(digits, network, tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(DataError, match="delete it"):
        train(network, digits, CONFIG, checkpoint=tmp_path / "state")


@pytest.mark.parametrize("state", [{}, {"run": 3}, [1], {"run": {}, "model": {}}])
def test_a_checkpoint_of_something_else_is_refused(digits, network, tmp_path, state):
    save_state(tmp_path / "state", state)
    with pytest.raises((DataError, ConfigError), match="delete it"):
        train(network, digits, CONFIG, checkpoint=tmp_path / "state")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    save_state(tmp_path / "state", {"x": torch.ones(1000)})
    assert torch.equal(load_state(tmp_path / "state")["x"], torch.ones(1000))
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-200])
    with pytest.raises(DataError, match="not a whole checkpoint"):
        load_state(tmp_path / "state")


def test_a_diverging_run_says_so(digits, network):
    with pytest.raises(ConfigError, match="lower rate"):
        train(network, digits, dataclasses.replace(CONFIG, epochs=1, lr=1e30))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"weight_decay": -1.0},
        {"label_smoothing": 1.0},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="must"):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize("name", ["gpu9", "meta", "", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(ConfigError, match="cannot use device"):
        device_named(name)


def test_the_rate_goes_up_on_a_line_and_down_on_a_cosine():
    assert [one_cycle(at) for at in (0.0, 0.125, 0.25)] == [0.0, 0.5, 1.0]
    assert one_cycle(0.625) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0)


def test_augmenting_shifts_and_mirrors_whole_images():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (64, 3, 8, 8), dtype=np.uint8)
    mirrored = augment(images, rng, flip=True, crop=False)
    same = (mirrored == images).all((1, 2, 3))
    assert (mirrored == images[..., ::-1]).all((1, 2, 3))[~same].all()
    assert 16 < same.sum() < 48
    shifted = augment(images, rng, flip=False, crop=True)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = [padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    hits = np.array([(shifted == window).all((1, 2, 3)) for window in windows])
    assert (hits.sum(0) == 1).all()
    assert hits.any(1).all()


def test_augmenting_shifts_each_way_by_an_eighth_of_that_side():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (200, 1, 8, 24), dtype=np.uint8)
    shifted = augment(images, rng, flip=False, crop=True)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (3, 3)))
    windows = {(y, x): padded[:, :, y : y + 8, x : x + 24] for y in range(3) for x in range(7)}
    hits = {by for by, window in windows.items() if (shifted == window).all((1, 2, 3)).any()}
    assert hits == set(windows)


def test_digits_are_never_mirrored(digits):
    assert not recipe(digits).flip
    assert recipe(digits, epochs=3).epochs == 3


def test_transformers_alone_are_trained_with_adamw(digits, network):
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    assert recipe(digits, model=encoder).optimiser == "adamw"
    assert recipe(digits, model=nn.MultiheadAttention(8, 2)).optimiser == "adamw"
    for other in (network, nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2)), nn.Sequential(network, encoder)):
        assert recipe(digits, model=other) == recipe(digits)


def test_adamw_learns_repeatably_and_goes_on_from_a_checkpoint(digits, network, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=2, optimiser="adamw", lr=3e-3, weight_decay=0.05)
    trained = train(network, digits, config)
    assert accuracy(trained, digits.test, digits) > 90
    assert fingerprint(trained) != fingerprint(train(network, digits, dataclasses.replace(config, optimiser="sgd")))

    def kill(done: int, total: int, text: str) -> None:
        if done == 25:
            raise _Kill

    with pytest.raises(_Kill):
        train(network, digits, config, checkpoint=tmp_path / "state", progress=kill)
    assert fingerprint(train(network, digits, config, checkpoint=tmp_path / "state")) == fingerprint(trained)


class _First(nn.Module):
    """Says the class whose index is the first pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), 4).float()


def test_accuracy_counts_the_right_ones_over_all_batches():
    labels = np.array([0, 1, 2, 3, 0], np.int64)
    images = np.zeros((5, 3, 1, 1), np.uint8)
    images[:, 0, 0, 0] = [0, 1, 2, 0, 1]  # three right
    part = ImageSet(images=images, labels=labels)
    data = Dataset(
        name="x", classes=("a", "b", "c", "d"), mean=(0.0,) * 3, std=(1.0,) * 3,
        fit=part, search=part, test=part, flip=False,
    )  # fmt: skip
    model = _First()
    assert accuracy(model, part, data, batch_size=2) == 60.0
    assert model.training
    empty = ImageSet(images=images[:0], labels=labels[:0])
    with pytest.raises(DataError, match="no images"):
        accuracy(model, empty, data)
    one = dataclasses.replace(data, fit=ImageSet(images=images[:1], labels=labels[:1]))
    with pytest.raises(DataError, match="at least 2"):
        train(nn.Linear(1, 1), one, CONFIG)
