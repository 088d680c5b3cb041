"""Batch-norm statistics after training: those of the weights as they are, whatever momentum the layers have."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from nas.data import load_dataset
from nas.training.statistics import calibration_batches, recalibrate_
from nas.training.train import TrainConfig, accuracy, train

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", image_size=8)


def slow_statistics():
    """Running averages that a few steps leave where they began, far from what small weights give."""
    torch.manual_seed(0)
    layers = []
    for c_in, c_out in ((3, 16), (16, 16), (16, 16)):
        convolution = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        nn.init.normal_(convolution.weight, std=0.01)
        layers += [convolution, nn.BatchNorm2d(c_out, momentum=1e-3), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * 16, 10))


def test_a_network_with_slow_running_averages_answers_as_well_as_it_learnt(digits, monkeypatch):
    config = TrainConfig(epochs=3, batch_size=64, lr=0.05, crop=False)
    assert accuracy(train(slow_statistics(), digits, config), digits.test, digits) > 90
    monkeypatch.setattr("nas.training.train.recalibrate_", lambda *_: 0)
    stale = train(slow_statistics(), digits, config)
    assert accuracy(stale, digits.test, digits) < 60, "else this test would not notice stale statistics"


def test_statistics_are_the_mean_and_variance_of_what_flows_through_without_dropout():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 4, 4, generator=rng) * 5 + 2
    model = nn.Sequential(
        nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.01), nn.BatchNorm2d(3, track_running_stats=False)
    )
    assert recalibrate_(model, images.split(32)) == 1
    flows = [part.transpose(0, 1).flatten(1) for part in images.split(32)]
    assert torch.allclose(model[1].running_mean, torch.stack([x.mean(1) for x in flows]).mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var, torch.stack([x.var(1) for x in flows]).mean(0), atol=1e-4)
    assert model[1].momentum == 0.01
    assert all(module.training for module in model.modules())


def test_a_network_without_batch_norm_is_not_run():
    def batches():
        raise AssertionError("asked for images")
        yield

    assert recalibrate_(nn.Linear(3, 4), batches()) == 0


def test_modes_come_back_where_the_network_fails():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(5, 5)).eval()
    with pytest.raises(RuntimeError):
        recalibrate_(model, [torch.zeros(2, 3, 4, 4)])
    assert not any(module.training for module in model.modules())
    assert model[0].momentum == 0.1


def test_calibration_sees_training_images_once_in_batches_of_at_least_two(digits):
    few = np.arange(129)
    part = dataclasses.replace(digits.fit, images=digits.fit.images[few], labels=digits.fit.labels[few])
    batches = list(calibration_batches(dataclasses.replace(digits, fit=part), CPU, 0))
    assert [len(batch) for batch in batches] == [65, 64]
    rows = {row.numpy().tobytes() for batch in batches for row in batch}
    assert rows == {row.numpy().tobytes() for row in digits.normalise(part.images)}
