"""ARM libraries run: not only linked, but loaded and right, under qemu's user emulation."""

import numpy as np
import pytest
import tiny_blocks
from qemu import needs_qemu, run_under_qemu

from compile.targets import TARGETS

pytestmark = needs_qemu
ARM = [TARGETS[name] for name in ("pi3", "pi4", "pi5", "phone")]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("target", ARM, ids=lambda target: target.name)
def test_a_block_gives_the_right_numbers(target, threads, rng):
    w = tiny_blocks.weights(threads)
    x = rng.standard_normal(tiny_blocks.SHAPE).astype(np.float32)
    y = run_under_qemu(target, tiny_blocks.library(target, w), x, tiny_blocks.SHAPE, threads=threads, repeats=50)
    np.testing.assert_allclose(y, tiny_blocks.expected(x, w), rtol=1e-6)


@pytest.mark.parametrize("target", ARM, ids=lambda target: target.name)
def test_a_block_that_calls_libm_gives_the_right_numbers(target, rng):
    w = tiny_blocks.weights()
    x = rng.standard_normal(tiny_blocks.SHAPE).astype(np.float32)
    y = run_under_qemu(target, tiny_blocks.library(target, w, wave=True), x, tiny_blocks.SHAPE)
    np.testing.assert_allclose(y, tiny_blocks.expected(x, w, wave=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ARM, ids=lambda target: target.name)
def test_a_wrong_shape_is_the_blocks_own_error_and_not_a_crash(target):
    x = np.zeros((1, tiny_blocks.SIZE + 1), np.float32)
    with pytest.raises(RuntimeError, match="shape"):
        run_under_qemu(target, tiny_blocks.library(target), x, tiny_blocks.SHAPE)


@pytest.fixture
def rng():
    return np.random.default_rng(7)
