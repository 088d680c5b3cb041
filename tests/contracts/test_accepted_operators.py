"""What the compiler accepts, it computes as torch does: every operator, many arguments, none wrong."""

import functools
import platform

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from accepted import SHAPE, Together, groups
from short_target import SHORT
from torch import nn
from truths import TruthProgram

import compile.pipeline as pipeline
from compile.graph.core_form import core_form
from compile.pipeline import compile_block
from compile.targets import host
from transforms import export

GROUPS = groups()
pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="targets of x86 code: run it on an x86-64 machine"),
    pytest.mark.filterwarnings("ignore"),
]


@functools.cache
def program(group):
    model = Together(GROUPS[group]).eval()
    return model, export(model, SHAPE)


@functools.cache
def form(group):
    return core_form(program(group)[1], 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("compile.tuning.timed", lambda kernel, target: {kernel.tiles[-1]: 0.0})


@pytest.mark.parametrize("group", GROUPS)
def test_every_accepted_operator_computes_what_torch_does(group, tmp_path, monkeypatch):
    model, exported = program(group)
    monkeypatch.setattr(pipeline, "core_form", lambda *_: form(group))
    path = tmp_path / "block.so"
    path.write_bytes(compile_block(exported, SHORT).library)
    x = np.random.default_rng(1).standard_normal((1, *SHAPE), np.float32)
    with torch.no_grad():
        wanted = {name: result.numpy() for name, result in model.results(torch.from_numpy(x)).items()}
    y = tvm.runtime.tensor(np.full((1, sum(one.size for one in wanted.values())), np.nan, np.float32))
    tvm_ffi.load_module(str(path))["run"](tvm.runtime.tensor(x), y)
    ends = np.cumsum([one.size for one in wanted.values()])[:-1]
    wrong = []
    for (name, right), given in zip(wanted.items(), np.split(y.numpy(), ends, axis=1)):
        atol = 1e-4 * np.abs(right[np.isfinite(right)]).max(initial=0)
        if not np.allclose(given, right, rtol=1e-4, atol=atol, equal_nan=True):
            wrong.append(f"{name}: off by {np.abs(given - right).max():.3g}")
    assert not wrong


@pytest.mark.parametrize("shape", [(1, 1, 1), (3,), (2, 5), (6, 5, 7)])
@pytest.mark.parametrize("seed", range(2))
def test_truths_pass_from_stage_to_stage_also_where_scratch_memory_is_little(shape, seed, tmp_path):
    model, path = TruthProgram(10 * len(shape) + seed).eval(), tmp_path / "block.so"
    path.write_bytes(compile_block(export(model, shape), SHORT).library)
    x = np.random.default_rng(seed).standard_normal((1, *shape), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    y = tvm.runtime.tensor(np.full(wanted.shape, np.nan, np.float32))
    run = tvm_ffi.load_module(str(path))["run"]
    for shown in (np.full_like(x, -7.0), x):  # what the first leaves behind is nothing to the second
        run(tvm.runtime.tensor(shown), y)
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", ["f32", "int8-dot"])
def test_a_nan_of_the_image_reaches_what_torch_says_it_reaches(weights, tmp_path):
    if weights == "int8-dot" and "vnni" not in host().dot:
        pytest.skip("this processor has no 8-bit dot products: run it on one with AVX512-VNNI")
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6()]
    model, path = nn.Sequential(*layers).eval(), tmp_path / "block.so"
    target = host() if weights == "int8-dot" else SHORT
    path.write_bytes(compile_block(export(model, (3, 12, 12)), target, weights=weights).library)
    x = np.random.default_rng(1).standard_normal((1, 3, 12, 12), np.float32)
    x[0, 1, 5, 6] = np.nan
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    y = tvm.runtime.tensor(np.zeros(wanted.shape, np.float32))
    tvm_ffi.load_module(str(path))["run"](tvm.runtime.tensor(x), y)
    lost = np.isnan(wanted) if weights == "f32" else np.ones_like(wanted, bool)  # codes have no NaN: the whole image
    np.testing.assert_array_equal(np.isnan(y.numpy()), lost)
    np.testing.assert_allclose(y.numpy()[~lost], wanted[~lost], rtol=1e-4, atol=1e-5)


def test_there_are_many_cases():
    assert sum(map(len, GROUPS.values())) >= 250
