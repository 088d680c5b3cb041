"""What students learn from: nothing to learn where they agree, and the old loss for classes."""

import pytest
import torch

from modeltree.outputs import Output
from nas.quality.losses import distillation_loss

OUTPUTS = (
    Output(name="kind", shape=(4,), kind="classes"), Output(name="map", shape=(3, 2, 2), kind="pixels"),
    Output(name="code", shape=(5,), kind="embedding"), Output(name="box", shape=(4,), kind="numbers"),
    Output(name="mask", shape=(1, 2, 2), kind="pixels"),
)  # fmt: skip


def test_equal_answers_lose_nothing_and_others_learn_to_be_equal():
    torch.manual_seed(0)
    teacher = torch.randn(8, sum(one.size for one in OUTPUTS))
    loss = distillation_loss(OUTPUTS, 4.0)
    assert float(loss(teacher, teacher)) == pytest.approx(0.0, abs=1e-5)
    student = torch.randn_like(teacher).requires_grad_()
    before = float(loss(student, teacher).detach())
    optimiser = torch.optim.Adam([student], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        loss(student, teacher).backward()
        optimiser.step()
    assert float(loss(student, teacher).detach()) < before / 20


def test_pixels_count_as_classes_of_every_pixel():
    teacher, student = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    pixels = distillation_loss((Output(name="map", shape=(3, 2, 2), kind="pixels"),), 4.0)(student, teacher)
    rows = [x.permute(0, 2, 3, 1).reshape(8, 3) for x in (student, teacher)]
    torch.testing.assert_close(pixels, distillation_loss((), 4.0)(*rows))
