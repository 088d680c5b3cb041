"""Agreement with the base network, by kind of output: by hand."""

import numpy as np
import pytest
import torch

from modeltree.outputs import Output
from nas.quality.agreement import Agreement, agreement, usual_kind


def scored(kind, shape, given, wanted, variance=1.0):
    measure = Agreement(outputs=(Output(name="y", shape=shape, kind=kind),), variances=(variance,))
    return measure.scores(torch.tensor(given), np.array(wanted, np.float32)).tolist()


def test_classes_agree_where_the_highest_logit_is_the_same():
    assert scored("classes", (3,), [[0.1, 0.9, 0.2], [3.0, 1.0, 2.0]], [[1, 5, 2], [0, 1, 0]]) == [1.0, 0.0]
    assert scored("classes", (2, 2), [[[0.0, 1.0], [0.0, 1.0]]], [[[0, 1], [1, 0]]]) == [0.5]


def test_pixels_agree_by_their_share():
    given = [[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]]]  # says 0 1 / 1 1
    wanted = [[[[1, 1], [1, 0]], [[0, 0], [0, 1]]]]  # 0 0 / 0 1
    assert scored("pixels", (2, 2, 2), given, wanted) == [0.5]
    assert scored("pixels", (1, 1, 2), [[[[2.0, -1.0]]]], [[[[0.5, 3]]]]) == [0.5]


def test_an_embedding_agrees_by_its_angle_alone():
    assert scored("embedding", (2,), [[10.0, 0.0], [1.0, 1.0], [-1.0, 0.0]], [[1, 0], [1, 0], [1, 0]]) == pytest.approx(
        [1.0, 0.5**0.5, 0.0]
    )


def test_numbers_lose_by_their_squared_error_over_the_variance():
    assert scored("numbers", (2,), [[1.0, 2.0], [1.0, 4.0], [99.0, 2.0]], [[1, 2]] * 3, variance=8.0) == pytest.approx(
        [1.0, 0.75, 0.0]
    )


def test_the_base_network_agrees_with_itself_and_the_mean_answer_with_chance(monkeypatch):
    rng = np.random.default_rng(0)
    outputs = (Output(name="kind", shape=(4,), kind="classes"), Output(name="box", shape=(2, 2), kind="numbers"))
    answers = rng.standard_normal((500, 8)).astype(np.float32)
    answers[:, 0] += 5 * (np.arange(500) % 2)  # half of all are surely class 0
    measure = agreement(outputs, answers)
    assert measure.scores(torch.from_numpy(answers), answers).tolist() == [1.0] * 500
    assert measure.variances[1] == pytest.approx(1.0, abs=0.1)
    # the mean answer says class 0 always: right on a half, and a quarter of the rest; of the boxes it knows little
    assert 100 * 0.62 / 2 < measure.chance < 100 * (0.62 / 2 + 0.2)


def test_shapes_tell_pixels_from_the_rest():
    image = (3, 64, 96)
    assert usual_kind((5, 64, 96), image) == usual_kind((2, 16, 24), image) == "pixels"
    for shape in ((10,), (1, 64, 96), (5, 8, 12), (100, 4)):
        assert usual_kind(shape, image) == "numbers"
