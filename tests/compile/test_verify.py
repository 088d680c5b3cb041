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


class Amplified(nn.Module):
    """A convolution whose answer is what is left of numbers 300 times as large: its rounding is, too."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(64, 8, 3)
        with torch.no_grad():
            self.conv.weight.mul_(scale)

    def forward(self, x):
        return self.conv(x + 300.0) - self.conv(torch.full_like(x, 300.0))


def test_a_block_that_rounds_badly_in_torch_too_is_given_as_much_room_and_no_more(tmp_path):
    path = tmp_path / "block.so"
    path.write_bytes(compile_block(export(Amplified(), (64, 6, 6)), host(), tune=False).library)
    images = np.random.default_rng(0).standard_normal((1, 64, 6, 6), np.float32)
    with torch.no_grad():
        largest = float(Amplified()(torch.from_numpy(images)).abs().max())
    assert verify_block(export(Amplified(), (64, 6, 6)), path, inputs=images).largest > TOLERANCES["f32"] * largest
    with pytest.raises(VerificationError):
        verify_block(export(Amplified(1.002), (64, 6, 6)), path)


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
