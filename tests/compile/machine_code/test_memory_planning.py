"""A place for every tensor and constant."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import Of, cat, conv1, conv3
from operators import CASES
from stage_programs import fused_from, kinds, planned_from
from torch import nn

from compile.graph.kernels import Constant
from compile.graph.layouts import inputs_of
from compile.graph.stages import Concat
from compile.machine_code.memory_planning import ALIGNMENT, _constants, _packed, needs_kernel

LIVES = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=24)


@given(LIVES)
def test_no_two_tensors_that_live_at_once_share_memory(lives):
    size = {f"t{i}": size for i, (size, _, _) in enumerate(lives)}
    born = {f"t{i}": min(a, b) for i, (_, a, b) in enumerate(lives)}
    dies = {f"t{i}": max(a, b) for i, (_, a, b) in enumerate(lives)}
    offsets, total = _packed(size, born, dies)
    assert all(offset % ALIGNMENT == 0 and offset + size[name] <= total for name, offset in offsets.items())
    for one, other in itertools.combinations(size, 2):
        if born[one] <= dies[other] and born[other] <= dies[one]:
            assert offsets[one] + size[one] <= offsets[other] or offsets[other] + size[other] <= offsets[one]


def test_tensors_that_never_meet_share_memory():
    size = {"a": 100, "b": 100, "c": 100}
    offsets, total = _packed(size, {"a": 0, "b": 1, "c": 2}, {"a": 1, "b": 2, "c": 3})
    assert offsets["a"] == offsets["c"] != offsets["b"]
    assert total == 128 + 100


CHOSEN = [
    "residual chain", "concatenation of a part in two wholes", "nested concatenation", "concatenation of unlike halos",
    "squeeze and excitation", "attention", "channels into the batch", "features before the batch", "linears",
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CHOSEN)
def test_a_kernel_writes_over_nothing_that_is_read_later(name, batch):
    """Follow every byte of the workspace: what a kernel reads is what its maker wrote last."""
    stages, kernels, plan = planned_from(fused_from(CASES[name].network(name), CASES[name].shape, batch))
    wrote: dict[str, np.ndarray] = {where: np.full(1 << 20, -1) for where in ("input", "output", "workspace")}

    def region(value):
        where, offset = plan.tensors[value.name]
        layout = stages.layouts.get(value.name)
        numbers = layout.numbers(value.shape[0]) if layout else int(np.prod(value.shape))
        return wrote[where][offset : offset + 4 * numbers]

    written = {stages.program.input.name: [-1]}
    for moment, stage in enumerate(stages.stages):
        makers = sorted({maker for value in inputs_of(stage) for maker in written[value.name]})
        if needs_kernel(stage):
            for value in inputs_of(stage):
                assert set(region(value)) <= set(written[value.name])
            region(stage.out)[:] = moment
        written[stage.out.name] = [moment] if needs_kernel(stage) else makers
    assert len(kernels) == sum(map(needs_kernel, stages.stages))
    assert plan.workspace_bytes < 1 << 20


def test_parts_of_a_concatenation_lie_next_to_each_other_and_are_not_copied():
    model = Of(lambda x, a, b, c: c(cat(a(x), b(x))), a=conv1(20, 3), b=conv1(20, 5), c=conv1(8, 4))
    stages, kernels, plan = planned_from(fused_from(model, (20, 6, 6)))
    whole = next(stage for stage in stages.stages if isinstance(stage, Concat))
    first, second = (plan.tensors[part.name] for part in whole.parts)
    assert plan.tensors[whole.out.name] == first
    assert second == (first[0], first[1] + 4 * 36 * 4)  # after one block of 4 numbers on 36 places
    assert [kernel.name for kernel in kernels] == ["conv1x1", "conv1x1", "conv1x1", "relayout"]


def test_a_part_of_two_wholes_is_copied_once():
    model = Of(lambda x, a, b: cat(cat(y := a(x), b(x)).relu(), y), a=conv1(20, 4), b=conv1(20, 4))
    _, kernels, _ = planned_from(fused_from(model, (20, 6, 6)))
    assert len([kernel for kernel in kernels if "_in_" in kernel.out.name]) == 1


def test_several_images_are_concatenated_by_a_kernel():
    model = Of(lambda x, a, b: cat(a(x), b(x)), a=conv1(20, 3), b=conv1(20, 5))
    _, kernels, _ = planned_from(fused_from(model, (20, 6, 6), batch=2))
    assert "concatenation" in [kernel.name for kernel in kernels]


@pytest.mark.parametrize("model", [nn.Identity(), nn.Flatten()])
def test_a_result_that_is_the_input_is_copied(model):
    stages, kernels, plan = planned_from(fused_from(model, (20, 3, 3)))
    assert kinds(stages)[-1] == "Relayout"
    assert len(kernels) == 1
    assert plan.tensors[stages.result.name] == ("output", 0)


def test_a_result_that_lies_inside_another_tensor_is_copied():
    stages, _, plan = planned_from(fused_from(Of(lambda x, a: cat(a(x), a(x)), a=conv3(20, 4)), (20, 1, 1)))
    assert plan.tensors[stages.result.name] == ("output", 0)
    assert kinds(stages)[-1] == "Relayout"


class Passing:
    """Stands for a kernel: only its arguments matter."""

    def __init__(self, *arrays):
        self.arguments = tuple(Constant(array) for array in arrays)


def test_alike_constants_are_stored_once_and_all_are_aligned():
    ones, others = np.ones(7, np.float32), np.arange(40, dtype=np.float32)
    kernels = [Passing(ones, others), Passing(others.copy(), ones.copy())]
    offsets, data = _constants(kernels)
    places = [[offsets[id(constant)] for constant in kernel.arguments] for kernel in kernels]
    assert places == [[0, 64], [64, 0]]
    assert len(data) == 64 + 192
    assert data[64 : 64 + 160] == others.tobytes()


def test_alike_layers_share_weights_and_code():
    layer = nn.Conv2d(8, 8, 3, padding=1)
    _, kernels, plan = planned_from(
        fused_from(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU()), (8, 6, 6))
    )
    keys = [kernel.key for kernel in kernels if kernel.name == "conv3x3"]
    assert len(keys) == 3
    assert len({*keys}) < 3
    assert len(plan.weights) < 2 * 8 * 8 * 9 * 4
