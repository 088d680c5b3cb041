"""A format's numerics in torch are those of its libraries."""

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn

from compile.numerics import Numerics
from compile.pipeline import compile_block
from compile.targets import host
from modeltree.errors import ConfigError
from transforms import export


class Mixed(nn.Module):
    """Convolutions plain, depthwise and grouped, with batch norm, a residual sum, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish())
        self.second, self.grouped = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, groups=2, padding=1)
        self.linear, self.last = nn.Linear(32, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.depthwise(self.first(x)))
        x = torch.relu(x + self.grouped(x))
        return self.last(torch.relu(self.linear(x.mean((2, 3)))))


def network():
    torch.manual_seed(0)
    model = Mixed()
    model(torch.randn(32, 3, 8, 8))
    return model.eval()


@pytest.mark.parametrize("weights", ["int8", "int8-dot"])
def test_what_torch_computes_in_a_format_is_what_its_library_does(weights, tmp_path):
    if weights == "int8-dot" and "vnni" not in host().dot:
        pytest.skip("this processor has no 8-bit dot products: run it on one with AVX512-VNNI")
    model, path = network(), tmp_path / "block.so"
    program = export(model, (3, 8, 8))
    path.write_bytes(compile_block(program, host(), weights=weights, tune=False, batch=2).library)
    x = torch.randn(2, 3, 8, 8)
    y = tvm.runtime.tensor(np.zeros((2, 10), np.float32))
    tvm_ffi.load_module(str(path))["run"](tvm.runtime.tensor(x.numpy()), y)
    with torch.no_grad():
        plain = model(x)
        for module in (model, program.module()):
            with Numerics(weights, entering=x):
                rounded = module(x)
            np.testing.assert_allclose(y.numpy(), rounded.numpy(), rtol=0, atol=2e-6 * float(plain.abs().max()))
    assert (rounded - plain).abs().max() > 1e-4 * plain.abs().max()


def test_gradients_pass_the_rounding_as_if_it_were_not_there():
    layer, x = nn.Linear(4, 3), torch.randn(5, 4, requires_grad=True)
    with Numerics("int8-dot"):
        layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(5, 4), rtol=0.02, atol=0.01)
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 5.0))


def test_a_format_whose_rounding_is_not_known_in_full_is_refused():
    with pytest.raises(ConfigError, match=r"unknown number format 'bf16-dot'.*int8-dot"):
        Numerics("bf16-dot")
