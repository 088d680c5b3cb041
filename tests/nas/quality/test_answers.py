"""Networks that answer in any wrapping, as one tensor and taken apart again."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from modeltree.errors import ConfigError, FormatError
from modeltree.outputs import Output, answer_shape, check_outputs, taken_apart
from nas.quality.answers import OneTensor, named_tensors, shapes_of
from transforms import export

A, B = torch.arange(6.0).reshape(2, 3), torch.arange(16.0).reshape(2, 2, 2, 2)


@dataclasses.dataclass
class Found:
    boxes: torch.Tensor
    scores: torch.Tensor | None = None


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (A, ["output"]), ([A], ["output"]), ((A, B), ["output_0", "output_1"]),
        ({"x": A, "y": (B, A)}, ["x", "y.0", "y.1"]),
        (Found(A), ["boxes"]), (Found(A, B), ["boxes", "scores"]), (Pair(A, B), ["left", "right"]),
        ({"a": Found(A, B), "none": None}, ["a.boxes", "a.scores"]),
    ],
)  # fmt: skip
def test_tensors_are_named_by_what_holds_them(answer, names):
    assert [name for name, _ in named_tensors(answer)] == names
    assert list(shapes_of(answer, 2)) == names


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"label": A.long()}, "'label' is int64: it must be float32, return what is in front of argmax"),
        (A.double(), "'output' is float64"), ((), "returns no tensor"), ("words", "holds a str"),
        ({"n": 3}, r"holds a int \(n\)"), (A[:1], r"has shape \(1, 3\) for 2 images"), (A.sum(), "has shape"),
        ({"a": {"b": A}, "a.b": A}, "two outputs are called 'a.b'"), (A[:, :0], "is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_in_words(answer, why):
    with pytest.raises(ConfigError, match=why):
        shapes_of(answer, 2)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        pooled = x.mean((2, 3))
        return Found(boxes=self.head(pooled), scores=x), {"sum": pooled.sum(1)}


def test_several_outputs_leave_as_one_tensor_and_come_back():
    network, images = Heads().eval(), torch.randn(3, 3, 4, 6)
    found, rest = network(images)
    shapes = shapes_of(network(images), 3)
    assert shapes == {"output_0.boxes": (5,), "output_0.scores": (4, 4, 6), "output_1.sum": (1,)}
    outputs = [Output(name=name, shape=shape) for name, shape in shapes.items()]
    with torch.no_grad():
        packed = export(OneTensor(network), (3, 4, 6)).module()(images)
    assert packed.shape == (3, *answer_shape(outputs)) == (3, 5 + 96 + 1)
    for one, wanted in zip(taken_apart(packed.numpy(), outputs).values(), (found.boxes, found.scores, rest["sum"])):
        np.testing.assert_allclose(one.reshape(wanted.shape), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert taken_apart(packed[0].numpy(), outputs)[list(shapes)[1]].shape == (4, 4, 6)


def test_an_answer_of_another_shape_is_not_taken_apart():
    with pytest.raises(FormatError, match="must end in"):
        taken_apart(np.zeros((2, 9), np.float32), [Output(name="a", shape=(4,)), Output(name="b", shape=(6,))])
    with pytest.raises(FormatError, match="a name of its own"):
        check_outputs([Output(name="a", shape=(4,)), Output(name="a", shape=(6,))])
