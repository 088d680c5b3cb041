"""Blocks with every kind of kernel, on ARM under qemu, against torch."""

import numpy as np
import pytest
import torch
from operators import CASES
from qemu import needs_qemu, run_under_qemu
from torch import nn

from compile.pipeline import compile_block
from compile.targets import TARGETS
from compile.verify import TOLERANCES
from transforms import export

pytestmark = needs_qemu
ARM = pytest.mark.parametrize("name", ["pi3", "pi4", "pi5"])


class Digits(nn.Module):
    """8x8 digits: convolution, depthwise, residual, pools, a concatenation, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.depthwise, self.pointwise = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 10, 1)
        self.hidden, self.last = nn.Linear(22 * 4, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.max_pool2d(torch.relu(x + self.one(x)), 2)
        x = torch.cat([torch.sigmoid(self.pointwise(self.depthwise(x))), x], 1)
        x = nn.functional.avg_pool2d(x, 3, 2, padding=1)
        return self.last(nn.functional.gelu(self.hidden(x.flatten(1))))


def assert_agrees(model, shape, target, *, weights="f32", batch=1):
    program = export(model, shape)
    block = compile_block(program, target, weights=weights, batch=batch)
    x = np.random.default_rng(0).standard_normal((batch, *shape), np.float32)
    found = run_under_qemu(target, block.library, x, block.output_shape, repeats=2)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCES[weights] * np.abs(wanted).max())


@ARM
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("weights", ["f32", "bf16", "int8"])
def test_a_small_network_agrees_with_torch(name, weights, batch):
    torch.manual_seed(0)
    assert_agrees(Digits().eval(), (3, 8, 8), TARGETS[name], weights=weights, batch=batch)


def test_dot_products_agree_with_torch():
    torch.manual_seed(0)
    assert_agrees(Digits().eval(), (3, 8, 8), TARGETS["pi5"], weights="int8-dot")


@ARM
@pytest.mark.parametrize(
    "case",
    ["30 groups of 2 and 3", "depthwise with stride 2", "squeeze and excitation", "attention", "tanh", "softmax"],
)
def test_an_operator_agrees_with_torch(name, case):
    assert_agrees(CASES[case].network(case), CASES[case].shape, TARGETS[name])
