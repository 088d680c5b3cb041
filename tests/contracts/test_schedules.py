"""What compiled code promises, run over operators x layouts x vector widths: torch's numbers, from any memory."""

import functools
import platform
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from operators import CASES, CONVOLUTIONS, DENSE, GROUPED, SEVERAL, SHAPES
from short_target import SHORT

import compile.pipeline as pipeline
from compile.pipeline import compile_block
from compile.targets import TARGETS, Target, host
from compile.verify import TOLERANCES
from transforms import export

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="targets of x86 code: run it on an x86-64 machine"
)
HOST, MIDDLE = host(), TARGETS["x86-64-v3"]
WITH_WEIGHTS = [*CONVOLUTIONS, *GROUPED, *DENSE]
CHOSEN = [
    "1x1", "1x1 on a map of 1x1", "3x3 on an image", "3x3 after 1x1", "3x3 with stride 2", "7x7 with stride 4", "1x7",
    "4x4 same", "one output channel", "one input channel", "30 groups of 2 and 3", "30 groups after 1x1",
    "multiplier 2", "4 groups on a map of 1x1", "depthwise after 1x1", "depthwise with stride 2", "linear", "linears",
    "linear on maps with padding channels", "linear plus its input",
]  # fmt: skip
"""What every weight format is tried on."""


@functools.cache
def program(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
        return export(CASES[name].network(name), CASES[name].shape)


REAL_CORE_FORM = pipeline.core_form


@functools.cache
def core_form(exported, batch):
    return REAL_CORE_FORM(exported, batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Each program is read once for all targets; any tile is taken, not the fastest: all get their turn."""

    def any_of(kernel, target):
        return {kernel.tiles[zlib.crc32(repr(kernel.key).encode()) % len(kernel.tiles)]: 0.0}

    monkeypatch.setattr("compile.tuning.timed", any_of)
    monkeypatch.setattr(pipeline, "core_form", core_form)


def assert_agrees(
    name: str,
    target: Target,
    folder: Path,
    *,
    batch: int = 1,
    weights: str = "f32",
    tolerance: float = TOLERANCES["f32"],
) -> None:
    """Compile and run, from memory full of NaN, and compare with torch."""
    case = CASES[name]
    block = compile_block(program(name), target, batch=batch, weights=weights)
    path = folder / "block.so"
    path.write_bytes(block.library)
    run = tvm_ffi.load_module(str(path))["run"]
    x = np.random.default_rng(0).standard_normal((batch, *case.shape), np.float32) * np.float32(case.reach)
    with torch.no_grad():
        wanted = program(name).module()(torch.from_numpy(x)).numpy()
    assert block.output_shape == wanted.shape
    y = tvm.runtime.tensor(np.full(wanted.shape, np.nan, np.float32))
    run(tvm.runtime.tensor(np.full_like(x, np.nan)), y)  # what a kernel forgets to write stays NaN
    run(tvm.runtime.tensor(x), y)
    np.testing.assert_allclose(y.numpy(), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_every_operator_computes_what_torch_does_on_short_vectors(name, tmp_path):
    assert_agrees(name, SHORT, tmp_path)


@pytest.mark.parametrize("name", [*WITH_WEIGHTS, *SHAPES])
def test_operators_compute_what_torch_does_on_this_machines_vectors(name, tmp_path):
    assert_agrees(name, HOST, tmp_path)


@pytest.mark.skipif(not MIDDLE.runs_here, reason="needs AVX2: run it on an x86-64-v3 machine")
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *GROUPED])
def test_convolutions_compute_what_torch_does_on_avx2(name, tmp_path):
    assert_agrees(name, MIDDLE, tmp_path)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_images_are_as_good_as_one(name, tmp_path):
    assert_agrees(name, SHORT, tmp_path, batch=3)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
@pytest.mark.parametrize("name", CHOSEN)
def test_weights_that_a_format_holds_exactly_cost_nothing(name, weights, tmp_path):
    assert_agrees(name, HOST, tmp_path, weights=weights)


@pytest.mark.parametrize("weights", ["bf16-dot", "int8-dot"])
@pytest.mark.parametrize("name", CHOSEN)
def test_dot_products_are_within_the_tolerance_of_their_format(name, weights, tmp_path):
    if HOST.vector_bits != 512 or {"bf16-dot": "bf16", "int8-dot": "vnni"}[weights] not in HOST.dot:
        pytest.skip("this machine has no such instructions: run it on one with AVX-512 VNNI and BF16")
    assert_agrees(name, HOST, tmp_path, weights=weights, tolerance=TOLERANCES[weights] / 4)
