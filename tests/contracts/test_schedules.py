"""What compiled code promises, run over operators x layouts x vector widths: torch's numbers, from any memory."""

import functools
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from operators import CASES, CONVOLUTIONS, DENSE, GROUPED, SEVERAL

import compile.pipeline as pipeline
from compile.pipeline import compile_block
from compile.targets import TARGETS, Target, host
from compile.verify import TOLERANCES
from transforms import export

SHORT = Target(
    name="x86-64-v2", description="as short as ARM's vectors", triple="x86_64-unknown-linux-gnu", cpu="x86-64-v2",
    vector_bits=128, registers=16, threads=2,
)  # fmt: skip
HERE = [target for target in (host(), TARGETS["x86-64-v3"], SHORT) if target.runs_here]
WITH_WEIGHTS = [*CONVOLUTIONS, *GROUPED, *DENSE]


def name_of(target):
    return target.name


@functools.cache
def program(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
        return export(CASES[name].network(name), CASES[name].shape)


REAL_IMPORT, REAL_SIMPLIFY = pipeline.imported, pipeline.simplified


@functools.cache
def imported(exported, batch):
    return REAL_IMPORT(exported, batch)


@functools.cache
def simplified(module):
    return REAL_SIMPLIFY(module)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Each program goes into Relax once for all targets; instead of the fastest tile, any, so that all get their turn."""

    def any_of(kernel, target):
        return {kernel.tiles[zlib.crc32(repr(kernel.key).encode()) % len(kernel.tiles)]: 0.0}

    monkeypatch.setattr("compile.tuning.timed", any_of)
    monkeypatch.setattr(pipeline, "imported", imported)
    monkeypatch.setattr(pipeline, "simplified", simplified)


def assert_agrees(
    name: str, target: Target, folder: Path, *, batch: int = 1, weights: str = "f32", tolerance: float = TOLERANCES["f32"]
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


@pytest.mark.parametrize("target", [target for target in HERE if target.name != "x86-64-v3"], ids=name_of)
@pytest.mark.parametrize("name", CASES)
def test_every_operator_computes_what_torch_does(name, target, tmp_path):
    assert_agrees(name, target, tmp_path)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_layers_with_weights_do_so_at_every_width_of_vectors(name, tmp_path):
    for target in HERE:
        if target.name == "x86-64-v3":
            assert_agrees(name, target, tmp_path)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_images_are_as_good_as_one(name, tmp_path):
    assert_agrees(name, HERE[-1], tmp_path, batch=3)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_that_a_format_holds_exactly_cost_nothing(name, weights, tmp_path):
    assert_agrees(name, HERE[0], tmp_path, weights=weights)


@pytest.mark.parametrize("weights", ["bf16-dot", "int8-dot"])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_dot_products_are_within_the_tolerance_of_their_format(name, weights, tmp_path):
    if HERE[0].vector_bits != 512 or {"bf16-dot": "bf16", "int8-dot": "vnni"}[weights] not in HERE[0].dot:
        pytest.skip("this machine has no such instructions: run it on one with AVX-512 VNNI and BF16")
    assert_agrees(name, HERE[0], tmp_path, weights=weights, tolerance=TOLERANCES[weights] / 4)
