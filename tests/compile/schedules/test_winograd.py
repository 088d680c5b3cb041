"""Convolutions in Winograd's basis against torch: every vector width, edges, strips, images, pooling, formats."""

import platform

import msgspec
import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from short_target import SHORT
from stage_programs import fused_from, planned_from
from torch import nn

from compile.pipeline import compile_block
from compile.targets import TARGETS, host
from compile.verify import TOLERANCES
from transforms import export

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="targets of x86 code: run it on an x86-64 machine"
)


class Convolution(nn.Module):
    """1x1 in front, so that the 3x3 reads channels in blocks; then relu, and pooling or the input again."""

    def __init__(self, channels: int, out: int, *, padding: int = 1, pool: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.conv = nn.Conv2d(channels, out, 3, padding=padding)
        self.last = nn.MaxPool2d(2) if pool else nn.Identity()
        self.residual = channels == out and padding == 1

    def forward(self, x):
        x = self.first(x)
        y = self.conv(x)
        return self.last(torch.relu(y + x if self.residual else y))


CASES = {
    "whole tiles": (Convolution(16, 32), 8, 1),
    "edges on both sides, three images": (Convolution(32, 32), 11, 3),
    "no padding, odd": (Convolution(24, 20, padding=0), 11, 1),
    "pooled, edges": (Convolution(32, 16, pool=True), 10, 2),
    "the smallest map": (Convolution(16, 16), 4, 1),
    "padding of two": (Convolution(16, 8, padding=2), 6, 1),
}


def only_winograd(kernel, target):
    """Its first tile where it has one, as if it were the fastest."""
    fast = [tile for tile in kernel.tiles if "winograd" in dict(tile)]
    return {(fast or list(kernel.tiles))[0]: 0.0}


@pytest.mark.parametrize("target", [SHORT, TARGETS["x86-64-v3"], host()], ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_tiles_in_another_basis_add_up_to_what_torch_says(name, target, monkeypatch, tmp_path):
    if not target.runs_here:
        pytest.skip(f"{target.name} is not run by this processor")
    taken = []

    def noted(kernel, target):
        answer = only_winograd(kernel, target)
        taken.extend(tile for tile in answer if kernel.name == "conv3x3")
        return answer

    monkeypatch.setattr("compile.tuning.timed", noted)
    monkeypatch.setattr("compile.schedules.winograd.LEAST_STRIP", 2)
    target = msgspec.structs.replace(target, cache_bytes=27_000)  # several strips on these small maps
    network, side, batch = CASES[name]
    channels = network.first.in_channels
    block = compile_block(export(network.eval(), (channels, side, side)), target, batch=batch)
    path = tmp_path / "block.so"
    path.write_bytes(block.library)
    images = np.random.default_rng(0).standard_normal((batch, channels, side, side), np.float32)
    answer = tvm.runtime.tensor(np.full(block.output_shape, np.nan, np.float32))
    tvm_ffi.load_module(str(path))["run"](tvm.runtime.tensor(images), answer)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert any(kernel.startswith("conv3x3") for kernel in block.kernels)
    assert "winograd" in dict(taken[-1]), "it was a direct convolution"
    np.testing.assert_allclose(answer.numpy(), expected, rtol=0, atol=TOLERANCES["f32"] / 5 * np.abs(expected).max())


def test_the_library_keeps_the_weights_as_they_are(monkeypatch):
    """Transformed ones would be four times as large."""
    monkeypatch.setattr("compile.tuning.timed", only_winograd)
    network = nn.Sequential(nn.Conv2d(16, 128, 1), nn.Conv2d(128, 128, 3, padding=1)).eval()
    block = compile_block(export(network, (16, 12, 12)), host())
    assert len(block.library) < 1.25 * 4 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_weights_that_are_held_narrow_are_widened_before(weights, monkeypatch, tmp_path):
    """Weights that the format holds exactly: what differs is the order of sums."""
    monkeypatch.setattr("compile.tuning.timed", only_winograd)
    network = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 16, 3, padding=1)).eval()
    with torch.no_grad():
        for layer in network:
            layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape) / 128)
            layer.weight[:, 0] = 127 / 128  # every channel's largest, which int8 scales by
    block = compile_block(export(network, (16, 8, 8)), host(), weights=weights)
    path = tmp_path / "block.so"
    path.write_bytes(block.library)
    images = np.random.default_rng(1).standard_normal((1, 16, 8, 8), np.float32)
    answer = tvm.runtime.tensor(np.empty(block.output_shape, np.float32))
    tvm_ffi.load_module(str(path))["run"](tvm.runtime.tensor(images), answer)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(answer.numpy(), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_what_does_not_fit_the_basis_stays_direct():
    """Stride, dilation, groups, other kernels, few channels, maps below a tile, windows across tiles."""
    networks = [
        (nn.Conv2d(16, 16, 3, padding=1, stride=2), 8), (nn.Conv2d(16, 16, 3, padding=2, dilation=2), 8),
        (nn.Conv2d(16, 16, 3, padding=1, groups=2), 8), (nn.Conv2d(16, 16, 5, padding=2), 8),
        (nn.Conv2d(16, 16, 3, padding=1), 3), (Convolution(16, 16, pool=True).conv, 3),
    ]  # fmt: skip
    for network, side in networks:
        _, kernels, _ = planned_from(fused_from(nn.Sequential(nn.Conv2d(16, 16, 1), network), (16, side, side)))
        assert not any("winograd" in dict(tile) for kernel in kernels for tile in kernel.tiles)


def test_what_fits_has_tiles_of_both_kinds():
    _, kernels, _ = planned_from(fused_from(CASES["whole tiles"][0], (16, 8, 8)))
    kinds = {"winograd" in dict(tile) for kernel in kernels if kernel.name == "conv3x3" for tile in kernel.tiles}
    assert kinds == {True, False}
