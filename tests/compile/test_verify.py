"""Comparing a library with torch finds what is wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from compile.pipeline import compile_block
from compile.targets import host
from compile.verify import TOLERANCES, VerificationError, verify_block
from modeltree.errors import NasError
from transforms import export


def network(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(54, 4))
    with torch.no_grad():
        model[3].weight.mul_(scale)
    return export(model, (3, 5, 5))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "block.so"
    path.write_bytes(compile_block(network(), host()).library)
    return path


def test_a_right_library_is_within_rounding(library):
    assert 0 <= verify_block(network(), library).largest < 1e-5


def test_real_inputs_are_used_in_whole_batches(library):
    images = np.random.default_rng(0).standard_normal((5, 3, 5, 5))
    assert verify_block(network(), library, inputs=images).largest < 1e-5


def test_another_blocks_library_is_found_out_and_named(library):
    with pytest.raises(VerificationError, match=r"block\.so is off by .*do not use it"):
        verify_block(network(1.1), library)
    assert issubclass(VerificationError, NasError)


def test_a_coarse_format_is_given_more_room(library):
    assert verify_block(network(1.01), library, weights="bf16").largest > 1e-4


def test_what_is_not_finite_is_found_out(library):
    images = np.full((1, 3, 5, 5), np.nan, np.float32)
    with pytest.raises(VerificationError):
        verify_block(network(), library, inputs=images)


def test_every_format_has_a_tolerance():
    from compile.formats import FORMATS

    assert set(TOLERANCES) == set(FORMATS)
    assert TOLERANCES["f32"] == min(TOLERANCES.values())
