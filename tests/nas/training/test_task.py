"""What a network is there for, by what it answers; a newcomer's odd networks work or are refused in one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from modeltree.errors import ConfigError, DataError
from nas.config import SearchConfig
from nas.data import load_dataset
from nas.quality.measure import TOP1
from nas.training.task import judged, outputs_of, task_fault

METRIC = """
def error(outputs, targets):
    return -float(abs(outputs["box"] - (targets["box"] if isinstance(targets, dict) else targets[:, None])).mean())

error.range, error.unit = (-100.0, 0.0), "error"
"""


class Net(nn.Module):
    """Pools a picture and answers as it is told."""

    def __init__(self, answer, width=10):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.answer = nn.Linear(3, width), answer

    def forward(self, x):
        return self.answer(x, self.head(x.mean((2, 3))))


def config(**told):
    return SearchConfig(**({"image_size": 8, "base": "net.py:build"} | told))


@pytest.mark.parametrize("wrapped", [lambda y: y, lambda y: {"logits": y}, lambda y: (y,), lambda y: [y, None]])
def test_one_vector_of_the_data_s_classes_is_a_classifier_in_any_wrapping(wrapped):
    network = Net(lambda x, y: wrapped(y))
    outputs, whole = outputs_of(network, config(), 10)
    assert outputs == ()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(whole(images), network.head(images.mean((2, 3))))


def test_anything_else_is_another_task_judged_by_its_shapes_unless_said():
    network = Net(lambda x, y: {"map": x, "box": y[:, :4]})
    outputs, whole = outputs_of(network, config(), 10)
    assert [(one.name, one.kind) for one in outputs] == [("map", "pixels"), ("box", "numbers")]
    assert whole(torch.randn(5, 3, 8, 8)).shape == (5, 3 * 64 + 4)
    said, _ = outputs_of(network, config(outputs=("box=classes",)), 10)
    assert [one.kind for one in said] == ["pixels", "classes"]
    lone, _ = outputs_of(Net(lambda x, y: y, width=7), config(outputs=("output=embedding",)), 10)
    assert (lone[0].shape, lone[0].kind) == ((7,), "embedding")


@pytest.mark.parametrize(
    ("answer", "told", "why"),
    [
        (lambda x, y: y[:, :7], {}, r"gives \(2, 7\) for two images but must give \(2, 10\): fit it to"),
        (lambda x, y: y.half(), {}, "'output' is float16: it must be float32, call .float()"),
        (lambda x, y: y.argmax(1), {}, "'output' is int64: it must be float32, return what is in front of argmax"),
        (lambda x, y: {"y": y, "loss": y.mean()}, {}, r"'loss' has shape \(\) for 2 images: .* leave it out"),
        (lambda x, y: (y, x), {"outputs": ("mask=pixels",)}, r"outputs names 'mask': the network gives output_0 "),
        (lambda x, y: (y, x), {"outputs": ("output_0=pixels",)}, "pixels are .channels, height, width."),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_in_words(answer, told, why):
    with pytest.raises(ConfigError, match=why):
        outputs_of(Net(answer), config(**told), 10)


def data():
    digits = load_dataset("digits", image_size=8)
    return replace(digits, search=digits.search.take(np.arange(60)), test=digits.test.take(np.arange(40)))


def task(answer, **told):
    network = Net(answer).eval()
    settings = config(**told)
    outputs, whole = outputs_of(network, settings, 10)
    return (*judged(data(), whole, settings, outputs, 10), whole)


def test_targets_are_the_base_network_s_answers_to_the_images_of_each_part():
    dataset, measure, whole = task(lambda x, y: {"map": x, "box": y[:, :4]})
    assert dataset.search.targets.shape == (60, 3 * 64 + 4)
    answers = whole(dataset.normalise(dataset.test.images))
    assert measure.scores(answers.detach(), dataset.test.truth).min() > 1 - 1e-6
    assert 0 < measure.chance < 80


def test_a_classifier_keeps_right_classes(tmp_path):
    dataset, measure, _ = task(lambda x, y: y)
    assert measure is TOP1
    assert dataset.search.truth is dataset.search.labels


def test_a_measure_of_ones_own_sees_the_labels_or_the_base_network_s_answers(tmp_path):
    (tmp_path / "m.py").write_text(METRIC)
    dataset, measure, whole = task(lambda x, y: {"box": y[:, :1]}, metric=f"{tmp_path}/m.py:error")
    assert dataset.search.truth.dtype == np.int64
    assert not measure.from_base
    unlabelled = replace(data(), classes=())
    settings = config(metric=f"{tmp_path}/m.py:error")
    outputs, whole = outputs_of(Net(lambda x, y: {"box": y[:, :1]}), settings, 0)
    told, measure = judged(unlabelled, whole, settings, outputs, 0)
    answers = whole(told.normalise(told.search.images)).detach()
    assert measure.scores(answers, told.search.truth)[0] == pytest.approx(1.0, abs=1e-6)


def test_a_network_that_says_the_same_to_all_or_no_numbers_is_not_worth_a_search():
    for answer, why in (
        (lambda x, y: {"box": 0 * y[:, :4] + 3, "more": 0 * y}, "answers the same to all of 60 images"),
        (lambda x, y: {"box": y[:, :4], "more": y}, None),
    ):
        dataset, measure, whole = task(answer)
        fault = task_fault(whole, dataset, measure)
        assert fault == why or (why is not None and why in fault)
    dataset, measure, whole = task(lambda x, y: {"box": y[:, :4], "more": y})
    with torch.no_grad():
        whole.network.head.bias[0] = torch.inf
    with pytest.raises(DataError, match="not finite"):
        task_fault(whole, dataset, measure)
