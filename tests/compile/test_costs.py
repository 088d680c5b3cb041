"""What a block costs in every format, measured where it runs and reckoned where it does not."""

import msgspec
import pytest
import torch
from torch import nn

from compile.costs import format_costs, kernel_times
from compile.targets import TARGETS, host
from modeltree.errors import ConfigError
from transforms import export


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)]
    return export(nn.Sequential(*layers).eval(), (3, 6, 6))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("compile.tuning.timed", lambda kernel, target: {kernel.tiles[-1]: 0.0})


def test_formats_that_run_here_are_timed_and_compared_with_torch(program, monkeypatch):
    monkeypatch.setattr("compile.costs.ROUNDS", 1)
    f32, bf16, int8 = format_costs(program, msgspec.structs.replace(host(), threads=1), ["f32", "bf16", "int8"])
    assert {(one.origin, one.checked) for one in (f32, bf16, int8)} == {("measured", "library")}
    assert all(one.ms > 0 for one in (f32, bf16, int8))
    assert f32.weight_bytes > bf16.weight_bytes > int8.weight_bytes
    assert f32.relative_error < 1e-5 < bf16.relative_error < int8.relative_error < 0.05


def test_formats_of_another_machine_are_reckoned_and_vouched_for(program):
    f32, dot = format_costs(program, TARGETS["pi5"], ["f32", "int8-dot"])
    assert {(one.origin, one.checked) for one in (f32, dot)} == {("estimated", "twin")}
    assert 0 < dot.ms < f32.ms
    assert f32.relative_error < 1e-5 < 1e-3 < dot.relative_error < 0.05


def test_a_format_that_a_target_lacks_says_so_and_a_target_without_a_known_core_has_no_time(program):
    board = msgspec.structs.replace(TARGETS["pi4"], name="my_board")
    f32, dot = format_costs(program, board, ["f32", "int8-dot"])
    assert (f32.ms, f32.origin, f32.checked) == (None, "", "twin")
    assert "no dot products" in dot.refused
    assert dot.library_bytes == 0


def test_every_kernel_of_a_library_is_timed_in_its_order(program, monkeypatch):
    monkeypatch.setattr("compile.costs.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.002))
    times = kernel_times(program, host())
    with_weights = [kernel for kernel in times if kernel.macs]
    assert [kernel.macs for kernel in with_weights] == [16 * 32 * 27, 4 * 32 * 288, 1280]
    assert [kernel.ms for kernel in times] == [2.0] * len(times)
    with pytest.raises(ConfigError, match="cannot be timed here"):
        kernel_times(program, TARGETS["pi4"])
