"""Early exits: where they stand, heads that learn beside a frozen network or together with it, files of both."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import nas.exits.heads
import nas.exits.joint
from modeltree.errors import ConfigError, DataError
from nas.bases import build, fingerprint, load_weights_
from nas.data import Dataset, ImageSet, load_dataset
from nas.exits.heads import exit_accuracies, load_heads, new_head, save_with_heads, train_heads
from nas.exits.joint import train_jointly
from nas.exits.places import exit_places
from nas.training.base_network import Prepared
from nas.training.train import TrainConfig, accuracy, train
from transforms import Network, analyse, export

SHAPE = (3, 8, 8)
CONFIG = TrainConfig(epochs=4, batch_size=64, lr=0.05, crop=False)


pytestmark = pytest.mark.usefixtures("one_thread")


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))), with one ReLU for both and no module behind the addition but the block itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(x + self.two(self.relu(self.one(x))))


class Small(nn.Sequential):
    """Batch norm, ReLUs in place, a residual block, dropout: 3x8x8 to 10 classes. a cut after each of three stages."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            Block(16),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.1), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 4, 10),
        )  # fmt: skip


def quiet(done, total, text):
    """No one listens."""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", image_size=8)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small()


@pytest.fixture(scope="module")
def prepared(digits, small) -> Prepared:
    model = train(small, digits, CONFIG)
    return Prepared(dataset=digits, model=model, network=analysed(model), program=Path("nowhere"), key=("a", "b"))


def analysed(model: nn.Module) -> Network:
    return analyse(export(model, SHAPE))


def same(one: nn.Module, two: nn.Module) -> bool:
    return fingerprint(one) == fingerprint(two)


def test_found_exits_stand_half_the_way_and_half_the_rest(prepared):
    convolutions = [part for c_in in (3, 8, 8, 8, 8) for part in (nn.Conv2d(c_in, 8, 3, padding=1), nn.ReLU())]
    network = analysed(nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)))
    # behind the five: 9, 31, 54, 77 and almost 100 % of the MACs
    assert exit_places(network, "auto", base="file.py:own") == (3, 4)
    assert exit_places(network, "none", base="file.py:own") == ()
    assert exit_places(prepared.network, "auto", base="file.py:small") == (2,)  # nearest to both


def test_a_network_without_inner_cuts_has_no_exit_to_find():
    network = analysed(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    assert exit_places(network, "auto", base="file.py:own") == ()


def test_given_exits_are_taken_in_rising_order(prepared):
    assert exit_places(prepared.network, "3, 1,3", base="vgg11") == (1, 3)


@pytest.mark.parametrize("wanted", ["0", "1,99", "x", "", "-1", "1;2"])
def test_places_where_no_exit_can_stand_are_refused_with_those_where_one_can(prepared, wanted):
    with pytest.raises(
        ConfigError, match=r"must be auto, none, or places.*legal are 1 \(after max_pool2d\), 2 \(after"
    ):
        exit_places(prepared.network, wanted, base="vgg11")
    last = len(prepared.network.spec.segments)
    with pytest.raises(ConfigError, match="legal are"):
        exit_places(prepared.network, str(last), base="vgg11")


@pytest.mark.parametrize("size", [32, 64])
def test_alexnet_with_exits_is_alexnet_with_those_of_the_paper(size):
    model = build("alexnet_exits", num_classes=10, image_size=size)
    assert same(model, build("alexnet", num_classes=10, image_size=size))
    spec = analyse(export(model, (3, size, size))).spec
    places = exit_places(analyse(export(model, (3, size, size))), "auto", base="alexnet_exits")
    convolutions = [sum(layer.op == "conv" for layer in spec.layers(0, place)) for place in places]
    assert convolutions == [4, 5]
    assert [spec.places[place].shape for place in places] == [(256, size // 8, size // 8), (256, 2, 2)]


def test_heads_of_a_frozen_network_learn_and_leave_it_as_it_was(prepared, digits, tmp_path):
    before = fingerprint(prepared.model), [p.clone() for p in prepared.network.graph.parameters()]
    heads = train_heads(prepared, (2, 3), tmp_path, 0, quiet)
    assert list(heads) == [2, 3]
    assert not any(head.training for head in heads.values())
    early, later, last = exit_accuracies(prepared.network, heads, digits.test, digits)
    assert early > 40
    assert later > 80
    assert last == pytest.approx(accuracy(prepared.model, digits.test, digits), abs=0.3)
    assert before[0] == fingerprint(prepared.model)
    assert all(torch.equal(*pair) for pair in zip(before[1], prepared.network.graph.parameters(), strict=True))


def test_heads_are_kept_and_depend_on_the_seed_and_their_place_alone(prepared, tmp_path, monkeypatch):
    heads = train_heads(prepared, (1, 3), tmp_path / "one", 0, quiet)
    torch.rand(3)
    alone = train_heads(prepared, (3,), tmp_path / "two", 0, quiet)
    assert same(heads[3], alone[3])
    assert not same(heads[3], train_heads(prepared, (3,), tmp_path / "three", 1, quiet)[3])
    whole = (tmp_path / "one" / "exit_3_10.safetensors").read_bytes()
    (tmp_path / "one" / "exit_3_10.safetensors").write_bytes(whole[:-5])  # a damaged file is made again
    assert same(train_heads(prepared, (1, 3), tmp_path / "one", 0, quiet)[3], heads[3])
    assert (tmp_path / "one" / "exit_3_10.safetensors").read_bytes() == whole
    monkeypatch.setattr(nas.exits.heads, "distillation_set", None)  # nothing is left to learn
    again = train_heads(prepared, (1, 3), tmp_path / "one", 0, quiet)
    assert all(same(heads[place], again[place]) for place in heads)


def test_a_network_and_its_exits_learn_together(digits, small):
    before = fingerprint(small)
    drawn = torch.random.get_rng_state()
    model, heads = train_jointly(small, digits, (3, 2), dataclasses.replace(CONFIG, epochs=8))
    assert list(heads) == [2, 3]
    first, second, last = exit_accuracies(analysed(model), heads, digits.test, digits)
    assert first > 55
    assert second > 85
    assert last > 90
    assert last == pytest.approx(accuracy(model, digits.test, digits), abs=0.3)
    assert fingerprint(small) == before
    assert torch.equal(torch.random.get_rng_state(), drawn), "training must not move the caller's generator"


def test_without_exits_training_is_the_plain_one(digits, small):
    config = dataclasses.replace(CONFIG, epochs=1)
    model, heads = train_jointly(small, digits, (), config)
    assert heads == {}
    assert same(model, train(small, digits, config))


def test_the_last_exit_is_not_moved_by_what_the_earlier_learn_from_it():
    last = torch.randn(4, 3, requires_grad=True)
    early = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    nas.exits.joint._joint(CONFIG)([early, last], labels).backward()
    alone = last.detach().requires_grad_()
    nn.functional.cross_entropy(alone, labels, label_smoothing=CONFIG.label_smoothing).backward()
    torch.testing.assert_close(last.grad, alone.grad)
    assert early.grad.abs().max() > 0


class _Kill(BaseException):
    pass


def test_a_killed_joint_training_ends_with_the_bits_of_one_that_was_not(digits, small, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=2)  # 19 steps an epoch
    model, heads = train_jointly(small, digits, (1, 3), config)

    def kill(done, total, text):
        if done == 25:
            raise _Kill

    with pytest.raises(_Kill):
        train_jointly(small, digits, (1, 3), config, checkpoint=tmp_path / "state", progress=kill)
    resumed, resumed_heads = train_jointly(small, digits, (1, 3), config, checkpoint=tmp_path / "state")
    assert same(model, resumed)
    assert all(same(heads[place], resumed_heads[place]) for place in heads)
    with pytest.raises(ConfigError, match="another run"):
        train_jointly(small, digits, (1, 2), config, checkpoint=tmp_path / "state")


@pytest.mark.parametrize("place", [1, 2, 3])
def test_heads_train_on_what_crosses_at_their_place(prepared, digits, place):
    images = digits.normalise(digits.test.images[:16])
    taps = nas.exits.joint._taps(prepared.model, prepared.network, [place], images[:8])
    head = new_head(prepared.network, place, 0).eval()
    whole = nas.exits.joint._WithExits(prepared.model, {place: head}, taps).eval()
    with torch.no_grad():
        early, last = whole(images)
        torch.testing.assert_close(early, head(prepared.network.between(0, place)(images)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(last, prepared.model(images))


class Written(nn.Module):
    """A place behind a call of a function, where no module ends."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.classifier = nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x))
        return self.classifier(self.relu(self.two(x)).mean((2, 3)))


def test_a_place_that_no_module_returns_is_refused_with_those_that_one_does(digits):
    torch.manual_seed(0)
    model = Written()
    places = analysed(model).spec.places
    assert [place.shape for place in places] == [(3, 8, 8), (8, 8, 8), (8,), (10,)]
    with pytest.raises(ConfigError, match=r"crosses at place 1, so that .* write that part as a module"):
        train_jointly(model, digits, (1,), CONFIG)


class Constant(nn.Module):
    """One class for all."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.answer), 10).float()


def test_accuracy_of_an_exit_is_the_share_of_labels_it_meets(prepared, digits):
    labels = np.array([3, 3, 3, 7, 5] * 60, np.int64)
    images = ImageSet(images=np.zeros((300, *SHAPE), np.uint8), labels=labels)
    found = exit_accuracies(prepared.network, {3: Constant(7), 1: Constant(3)}, images, digits)
    assert found[:2] == [60.0, 20.0]
    with pytest.raises(DataError, match="no images"):
        exit_accuracies(prepared.network, {}, ImageSet(images=images.images[:0], labels=labels[:0]), digits)


def test_weights_with_heads_survive_the_round_trip_and_serve_as_weights(prepared, tmp_path):
    path = tmp_path / "w.safetensors"
    heads = {place: new_head(prepared.network, place, 5) for place in (3, 1)}
    save_with_heads(prepared.model, heads, path)
    found = load_heads(path, prepared.network)
    assert list(found) == [1, 3]
    assert all(same(found[place], heads[place]) for place in found)
    model = Small()
    load_weights_(model, path)
    assert same(model, prepared.model)
    save_with_heads(prepared.model, {}, path)
    assert load_heads(path, prepared.network) == {}


@pytest.mark.parametrize("place", ["99", "0", "x", "5"])
def test_heads_that_fit_nowhere_are_refused(prepared, tmp_path, place):
    path = tmp_path / "w.safetensors"
    save_with_heads(prepared.model, {3: new_head(prepared.network, 3, 0)}, path)
    state = {key.replace("exits.3.", f"exits.{place}."): value for key, value in load_file(path).items()}
    save_file(state, path)
    with pytest.raises(DataError, match=f"exit at '{place}', which is no place"):
        load_heads(path, prepared.network)


@pytest.mark.parametrize("spoilt", [{"extra": torch.zeros(1)}, {"classifier.0.bias": torch.zeros(3)}])
def test_heads_of_another_shape_are_refused(prepared, tmp_path, spoilt):
    path = tmp_path / "w.safetensors"
    save_with_heads(prepared.model, {3: new_head(prepared.network, 3, 0)}, path)
    save_file(load_file(path) | {f"exits.3.{key}": value for key, value in spoilt.items()}, path)
    with pytest.raises(DataError, match="exit at 3 that does not fit"):
        load_heads(path, prepared.network)


def test_heads_that_are_no_numbers_are_refused(prepared, tmp_path):
    path = tmp_path / "w.safetensors"
    save_with_heads(prepared.model, {3: new_head(prepared.network, 3, 0)}, path)
    save_file(load_file(path) | {"exits.3.classifier.2.bias": torch.full((10,), torch.nan)}, path)
    with pytest.raises(DataError, match="not finite"):
        load_heads(path, prepared.network)


@pytest.mark.parametrize("data", [None, b"junk"])
def test_a_file_that_is_no_weights_file_is_refused(prepared, tmp_path, data):
    if data is not None:
        (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(DataError, match=r"w\.safetensors"):
        load_heads(tmp_path / "w.safetensors", prepared.network)


NETWORK = """
from torch import nn

def own():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 10),
    )
"""


def test_the_command_line_trains_exits_and_starts_from_what_it_wrote(nas, tmp_path):
    (tmp_path / "model.py").write_text(NETWORK)
    words = ("train", "--base", "model.py:own", "--image-size", 8, "--epochs", 1)
    status, told, _ = nas(*words, "--exits", "1", "--out", "one.safetensors")
    assert status == 0
    assert "exit at place 1 (after max_pool2d): " in told
    status, told, _ = nas(
        *words, "--exits", "1,2", "--from", "one.safetensors", "--lr", 1e-9, "--out", "two.safetensors"
    )
    assert status == 0
    assert told.count("exit at place") == 2
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(one["3.weight"], two["3.weight"], atol=1e-4, rtol=0)
    status, told, errors = nas(*words, "--exits", "9")
    assert (status, told) == (2, "")
    assert "legal are 1 (after max_pool2d)" in " ".join(errors)
