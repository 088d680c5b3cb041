"""From exported programs to core operators, and from those to stages."""

import gc
import weakref

import numpy as np
import pytest
import torch
from operator_cases import Of
from stage_programs import kinds, read_from
from torch import nn

from compile.graph.core_form import core_form
from compile.graph.stages import (
    UNARY,
    Concat,
    Convolution,
    Elementwise,
    Flatten,
    Gather,
    Loops,
    Map,
    Pool,
    Product,
    Rows,
)
from modeltree.errors import GraphError
from transforms import export


def test_a_program_is_brought_into_core_form_for_one_batch_after_another():
    program = export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), (3, 5, 5))
    shapes = [tuple(core_form(program, batch).result.meta["val"].shape) for batch in (1, 3)]
    assert shapes == [(1, 36), (3, 36)]
    (entering,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    assert not isinstance(entering.meta["val"].shape[0], int)


def test_a_core_form_is_made_once_a_batch_and_goes_with_its_program():
    program = export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), (3, 5, 5))
    form = core_form(program, 1)
    assert core_form(program, 1) is form
    assert core_form(program, 2) is not form
    gone = weakref.ref(form)
    del program, form
    gc.collect()
    assert gone() is None


def test_a_convolution_is_read_with_all_its_numbers():
    layer = nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, bias=False)
    (stage,) = read_from(layer, (6, 9, 20)).stages
    assert isinstance(stage, Convolution)
    assert (stage.stride, stage.padding, stage.dilation, stage.groups) == ((2, 1), (1, 2, 1, 2), (1, 2), 2)
    assert torch.equal(torch.from_numpy(stage.weight), layer.weight)
    assert stage.conv_area == stage.out.area == (5, 16)
    assert stage.macs == 5 * 16 * 8 * 3 * 3 * 5


def test_a_dense_layer_is_a_convolution_of_one_number():
    layer = nn.Linear(6, 4, bias=False)
    (stage,) = read_from(layer, (6,)).stages
    assert isinstance(stage, Convolution)
    assert torch.equal(torch.from_numpy(stage.weight[:, :, 0, 0]), layer.weight)
    assert stage.macs == 24


def test_a_window_that_hangs_over_the_edge_becomes_padding():
    (stage,) = read_from(nn.MaxPool2d(3, 2, ceil_mode=True), (4, 10, 9)).stages
    assert isinstance(stage, Pool)
    assert stage.padding == (0, 0, 1, 0)
    assert stage.out.area == (5, 4)


@pytest.mark.parametrize("counts", [False, True])
def test_an_average_says_whether_padding_counts(counts):
    (stage,) = read_from(nn.AvgPool2d(3, 2, padding=1, count_include_pad=counts), (4, 9, 9)).stages
    assert isinstance(stage, Pool)
    assert (stage.kind, stage.counts_padding) == ("avg", counts)


def test_a_mean_over_the_map_is_one_window():
    stage, renamed = read_from(Of(lambda x: x.mean((2, 3))), (4, 5, 6)).stages
    assert isinstance(stage, Pool)
    assert (stage.kernel, renamed.out.shape) == ((5, 6), (1, 4))


def test_dropout_is_gone_and_batch_norm_is_arithmetic():
    program = read_from(nn.Sequential(nn.Dropout(), nn.BatchNorm2d(4), nn.Dropout()), (4, 3, 3))
    assert set(kinds(program)) == {"Elementwise"}
    assert {step.op for stage in program.stages for step in stage.steps} <= {"subtract", "multiply", "add"}


def test_a_split_and_a_new_order_are_one_movement_of_data():
    program = read_from(Of(lambda x: torch.cat(x.permute(0, 2, 1).chunk(2, 1)[::-1], 2)), (6, 4))
    (stage,) = program.stages
    assert isinstance(stage, Gather)
    assert (stage.out.shape, stage.table[0, 0].tolist()) == ((1, 2, 12), [2, 6, 10, 14, 18, 22, 0, 4, 8, 12, 16, 20])


def test_a_constant_is_held_once_however_many_tokens_read_it():
    def attention(x, a):
        return a(x, x, x, need_weights=False)[0]

    sizes = set()
    for tokens in (4, 64):
        program = read_from(Of(attention, a=lambda: nn.MultiheadAttention(16, 2, batch_first=True)), (tokens, 16))
        held = [getattr(stage, "y", getattr(stage, "weight", None)) for stage in program.stages]
        sizes.add(sum(array.nbytes for array in held if isinstance(array, np.ndarray)))
    assert sizes == {4 * (3 * 16 * 16 + 16 * 16)}


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x.flatten(1), Flatten), (lambda x: torch.relu(x), Elementwise), (lambda x: x / 4, Elementwise),
        (lambda x: torch.cat([x, x], 1), Concat), (lambda x: torch.cat([x, x], 2), Gather),
        (lambda x: x.flatten(2).softmax(2), Rows), (lambda x: x.mean(2), Map), (lambda x: x.amax(2), Loops),
        (lambda x: x * x.mean((2, 3), keepdim=True), Elementwise), (lambda x: x @ x.transpose(2, 3), Product),
    ],
)  # fmt: skip
def test_a_call_is_read_as_the_stage_that_knows_it(function, kind):
    assert isinstance(read_from(Of(function), (4, 6, 6)).stages[-1], kind)


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        (nn.ReLU(), "relu"), (nn.ReLU6(), "relu6"), (nn.Sigmoid(), "sigmoid"), (nn.Tanh(), "tanh"),
        (nn.GELU(), "gelu"), (nn.LeakyReLU(0.2), "leaky_relu"), (nn.Hardtanh(-2, 3), "clip"),
        (Of(lambda x: -x), "negative"),
    ],
)  # fmt: skip
def test_an_activation_is_read_as_a_step(layer, op):
    (stage,) = read_from(layer, (4, 3, 3)).stages
    assert op in UNARY
    assert op in {step.op for step in stage.steps} or (op == "relu6" and stage.steps[0].numbers == (0, 6))


def test_the_batch_is_the_one_asked_for():
    program = read_from(nn.Conv2d(3, 4, 3), (3, 5, 5), batch=7)
    assert program.input.shape == (7, 3, 5, 5)
    assert program.result.shape == (7, 4, 3, 3)


def test_a_program_of_another_fixed_batch_is_refused():
    fixed = torch.export.export(nn.ReLU(), (torch.zeros(2, 3),))
    with pytest.raises(GraphError, match="batches of 2, not 1"):
        core_form(fixed, 1)


def test_a_block_with_two_inputs_is_refused():
    both = torch.export.export(Of(lambda x: x[0] + x[1]), ((torch.zeros(2, 3), torch.zeros(2, 3)),))
    with pytest.raises(GraphError, match="2 inputs"):
        core_form(both, 2)


def test_a_block_that_ignores_its_input_is_refused():
    with pytest.raises(GraphError, match="depends on its input"):
        read_from(Of(lambda x: torch.ones(2, 3)), (3,))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x + torch.rand(4), "rand draws random numbers"),
        (lambda x: torch.nn.functional.conv2d(x, x[:1, :, :1, :1]), "weights that depend on the input"),
        (lambda x: x.half() * 2, "goes on in float16"), (lambda x: torch.special.i0(x), "i0 has no rule"),
        (lambda x: torch.cumsum(x, 1, dtype=torch.float64).float(), "float64"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_right_is_refused_with_what_to_write_instead(function, said):
    with pytest.raises(GraphError, match=f"layer .*: .*{said}.*: .+") as refused:
        read_from(Of(function), (3, 4, 4))
    assert not any(word in str(refused.value).lower() for word in ("tvm", "relax", "traceback"))
