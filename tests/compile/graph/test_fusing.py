"""Stages that vanish into the one before."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operator_cases import Of, conv1, conv3, exact
from stage_programs import fused_from, kinds, read_from
from torch import nn

from compile.graph.fusing import folded, fused
from compile.graph.stages import Convolution, Value


def test_batch_norm_folds_into_the_convolution_exactly():
    torch.manual_seed(0)
    model = exact(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))).eval()
    (stage,) = folded(read_from(model, (3, 5, 5))).stages
    assert isinstance(stage, Convolution)
    assert [step.op for step in stage.steps] == ["add"]
    x = torch.randn(2, 3, 5, 5)
    bias = torch.from_numpy(np.asarray(stage.steps[0].operand))
    found = F.conv2d(x, torch.from_numpy(stage.weight), bias, padding=1)
    torch.testing.assert_close(found, model(x), rtol=1e-5, atol=1e-5)


def test_scales_and_shifts_in_any_order_fold_into_one_shift():
    (stage,) = folded(read_from(Of(lambda x, a: (a(x) * 2 - 3) / 4 + 1, a=conv3(2, 2, bias=False)), (2, 4, 4))).stages
    assert [step.op for step in stage.steps] == ["add"]
    np.testing.assert_allclose(stage.steps[0].operand, [0.25, 0.25])  # -3 / 4 + 1


def test_a_batch_norm_behind_an_activation_does_not_fold_over_it():
    program = fused_from(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)), (3, 5, 5))
    (stage,) = program.stages
    assert [step.op for step in stage.steps][:2] == ["add", "relu"]
    assert len(stage.steps) > 2


@pytest.mark.parametrize("function", [lambda x, a: x + a(x), lambda x, a: a(x) + x])
def test_a_residual_sum_is_taken_by_the_convolution_in_either_order(function):
    (stage,) = fused_from(Of(lambda x, a: torch.relu(function(x, a)), a=conv3()), (20, 4, 4)).stages
    assert [step.op for step in stage.steps] == ["add", "add", "relu"]
    assert stage.steps[1].operand == Value("input", (1, 20, 4, 4))


def test_a_difference_is_turned_round_with_its_sign():
    (stage,) = fused_from(Of(lambda x, a: x - a(x), a=conv3()), (20, 4, 4)).stages
    assert [step.op for step in stage.steps] == ["add", "subtract_from"]
    assert stage.steps[1].operand == Value("input", (1, 20, 4, 4))


def test_of_two_convolutions_the_later_takes_the_sum():
    program = fused_from(Of(lambda x, a, b: a(x) + b(x), a=conv3(), b=conv1()), (20, 4, 4))
    assert kinds(program) == ["Convolution", "Convolution"]
    first, second = program.stages
    assert second.steps[-1].operand == first.out
    assert second.out == program.result


def test_what_others_read_too_stays_as_it_is():
    program = fused_from(Of(lambda x, a: torch.relu(y := a(x)) * y, a=conv3()), (20, 4, 4))
    assert kinds(program) == ["Convolution", "Elementwise"]
    assert [step.op for step in program.stages[0].steps] == ["add"]


def test_the_square_of_a_tensor_is_no_step_of_its_maker():
    assert kinds(fused_from(Of(lambda x, a: a(x) * a(x), a=conv3()), (20, 4, 4))) == ["Convolution", "Elementwise"]


@pytest.mark.parametrize(
    ("pool", "side", "inside"),
    [
        (nn.MaxPool2d(2), 6, True), (nn.MaxPool2d(2), 7, False), (nn.MaxPool2d(2, ceil_mode=True), 7, False),
        (nn.MaxPool2d(2, 1), 6, False), (nn.MaxPool2d(3, 3), 6, False), (nn.MaxPool2d(2, padding=1), 6, False),
        (nn.AvgPool2d(2), 6, False),
    ],
)  # fmt: skip
def test_a_pool_is_inside_the_convolution_only_where_windows_are_whole(pool, side, inside):
    program = fused_from(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), pool), (3, side, side))
    assert kinds(program) == (["Convolution"] if inside else ["Convolution", "Pool"])
    assert program.stages[0].pool == (2 if inside else 1)


def test_a_pool_stays_outside_where_depthwise_or_a_sum_is_in_front():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.MaxPool2d(2))
    assert kinds(fused_from(depthwise, (8, 6, 6))) == ["Convolution", "Pool"]
    total = Of(lambda x, a: F.max_pool2d(x + a(x), 2), a=conv3())
    assert kinds(fused_from(total, (20, 6, 6))) == ["Convolution", "Pool"]


def test_the_result_of_a_program_is_never_fused_away():
    program = read_from(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 5, 5))
    through = fused(folded(program))
    assert through.result == program.result
    assert through.result in [stage.out for stage in through.stages]
