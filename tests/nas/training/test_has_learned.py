"""Networks that have learnt nothing are told from those that have learnt a little."""

import numpy as np
import pytest
import torch
from torch import nn

from modeltree.errors import DataError
from nas.bases import save_weights
from nas.config import SearchConfig
from nas.data import Dataset, ImageSet
from nas.search import search
from nas.training.has_learned import doubt, fault

CLASSES = 4


def pictures(labels, answers):
    """Images that carry the answer a network of `Answering` gives in their first pixel."""
    images = np.zeros((len(labels), 3, 2, 2), np.uint8)
    images[:, 0, 0, 0] = answers
    return ImageSet(images=images, labels=np.asarray(labels, np.int64))


def dataset(part):
    return Dataset(
        name="x", classes=tuple("abcd"), mean=(0.0,) * 3, std=(1.0,) * 3, fit=part, search=part, test=part, flip=False
    )


class Answering(nn.Module):
    def __init__(self, unit=1.0, classes=CLASSES):
        super().__init__()
        self.unit, self.classes = unit, classes

    def forward(self, x):
        assert not self.training
        return self.unit * nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), self.classes).float()


def judged(labels, answers):
    part = pictures(labels, answers)
    return fault(Answering(), dataset(part), part)


LABELS = np.repeat(np.arange(CLASSES), 50)


def test_a_network_that_says_one_class_is_named_with_the_class():
    assert "answers 'c' to all of 200 images of 4 classes" in judged(LABELS, np.full(200, 2))


def test_a_network_that_guesses_is_within_chance_and_one_that_knows_a_little_is_not():
    answers = np.random.default_rng(0).integers(0, CLASSES, 200)
    assert "where a guess is on 25.0 %" in judged(LABELS, answers)
    better = np.where(np.arange(200) % 4 == 0, LABELS, answers)  # a quarter known, the rest guessed
    assert judged(LABELS, better) is None


def test_nine_in_ten_of_one_class_do_not_make_a_guess_look_learnt():
    labels = np.where(np.arange(200) < 180, 0, 1 + np.arange(200) % 3)
    always = np.zeros(200, int)
    always[7] = 1  # so that it is not one class alone
    assert "of 200 images" in judged(labels, always)
    assert judged(labels, labels) is None


def test_few_images_are_never_reason_to_doubt_one_that_is_mostly_right():
    labels = np.arange(8) % CLASSES
    assert judged(labels, np.where(np.arange(8) < 6, labels, (labels + 1) % CLASSES)) is None
    assert doubt(labels) == 0.375


def test_doubt_is_three_standard_deviations_of_a_guess():
    assert doubt(LABELS) == pytest.approx(3 * (0.25 * 0.75 / 200) ** 0.5)


def test_images_of_a_single_class_say_nothing():
    assert judged(np.zeros(10), np.ones(10)) is None


@pytest.mark.parametrize("unit", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_refused(unit):
    part = pictures(LABELS, LABELS)
    with pytest.raises(DataError, match="not finite"):
        fault(Answering(unit), dataset(part), part)


def test_a_network_of_another_number_of_classes_is_refused():
    part = pictures(LABELS, LABELS)
    with pytest.raises(DataError, match=r"\(125, 7\).*\(125, 4\).*4 classes"):
        fault(Answering(classes=7), dataset(part), part)


NETWORK = """
from torch import nn


def made():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
"""


def test_a_search_stops_at_weights_that_know_nothing_and_says_how_to_go_on(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        model[4].weight.zero_()
        model[4].bias.copy_(torch.eye(10)[3])
    save_weights(model, tmp_path / "w.safetensors")
    config = SearchConfig(
        base=f"{tmp_path / 'net.py'}:made", weights=str(tmp_path / "w.safetensors"), image_size=16, N=2, workers=1,
        executor="serial", methods=("surgery",), techniques=("svd",), finetune_steps=0,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"answers '3' to all of 71 images.*--weights.*--allow-chance") as refused:
        search(config, tmp_path / "run", cache=tmp_path / "cache")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "cache" / "library").exists()
