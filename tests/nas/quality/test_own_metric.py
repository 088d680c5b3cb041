"""A measure of the user's own."""

import pickle

import numpy as np
import pytest
import torch

from modeltree.errors import ConfigError, DataError
from modeltree.outputs import Output
from nas.quality.own_metric import own_metric

FILE = """
import numpy as np

def overlap(outputs, targets):
    assert set(outputs) == {"mask", "box"}
    return -float(np.abs(outputs["box"] - targets["box"]).mean())

overlap.range, overlap.unit = (-10.0, 0.0), "box error in pixels"

def labels(outputs, targets):
    return float((outputs["mask"].argmax(1) == targets).mean())

labels.range, labels.unit = (0, 1), "share"

def counted(outputs, targets):
    return float(sum(len(one) for one in targets) / 100)

counted.range, counted.unit = (0, 1), "boxes"

def boundless(outputs, targets):
    return 0.0

def nameless(outputs, targets):
    return 0.0

nameless.range = (0, 1)

def wild(outputs, targets):
    return 7.0

wild.range, wild.unit = (0, 1), "x"

def broken(outputs, targets):
    raise KeyError("masks")

broken.range, broken.unit = (0, 1), "x"
"""
OUTPUTS = (Output(name="mask", shape=(2,)), Output(name="box", shape=(1,)))


@pytest.fixture
def metric(tmp_path):
    path = tmp_path / "measures.py"
    path.write_text(FILE)
    return lambda name, **told: own_metric(f"{path}:{name}", OUTPUTS, **({"from_base": False} | told))


def test_its_range_becomes_0_to_1_and_worker_processes_find_it(metric):
    measure = pickle.loads(pickle.dumps(metric("overlap", from_base=True)))  # noqa: S301 our own bytes
    answers = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 9.0]])
    targets = np.array([[9.0, 9.0, 4.0], [9.0, 9.0, 5.0]], np.float32)  # boxes are off by 1 and 4: -2.5 of -10..0
    assert measure.scores(answers, targets).tolist() == [0.75, 0.75]
    assert measure.name == "box error in pixels"


def test_targets_come_as_the_data_has_them(metric):
    answers = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 9.0]])
    assert metric("labels").scores(answers, np.array([0, 0])).tolist() == [0.5, 0.5]
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros((3, 4)), np.zeros((5, 4))]
    assert metric("counted").scores(answers, ragged)[0] == pytest.approx(0.08)
    named = np.empty(2, object)
    named[:] = [{"box": np.float32([4.0])}, {"box": np.float32([5.0])}]
    assert metric("overlap").scores(answers, named).tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("boundless", r"has no range: write boundless.range = \(low, high\)"), ("nameless", "has no unit"),
        ("absent", "defines no function 'absent'"),
    ],
)  # fmt: skip
def test_one_without_a_range_or_unit_is_refused(metric, name, why):
    with pytest.raises(ConfigError, match=why):
        metric(name)


def test_what_it_does_wrong_is_told(metric, tmp_path):
    with pytest.raises(DataError, match=r"gives 7: it must be within its range, 0\.\.1"):
        metric("wild").scores(torch.zeros(1, 3), np.array([0]))
    with pytest.raises(DataError, match="failed with KeyError: 'masks'"):
        metric("broken").scores(torch.zeros(1, 3), np.array([0]))
    with pytest.raises(ConfigError, match="there is no file"):
        own_metric(f"{tmp_path}/none.py:x", OUTPUTS, from_base=False)
