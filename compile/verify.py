"""A compiled block against the torch block it came from.

Tolerances are relative to the largest number of torch's answer. f32: our sums run in another order than torch's, over
up to 10^5 products, and each rounding is 2^-24: 1e-4 is a hundred times what we have seen and a hundredth of what a
wrong tile does. A block that amplifies rounding (deep, its weights random) is far from what float64 would say in torch
too: then eight times that distance is allowed, up to a tenth of what a wrong tile does. bf16 keeps 8 bits of a weight
(relative error 2^-9 each, partly cancelling over a sum, growing with depth), int8 7 bits of a channel's largest: there
the numbers only tell a wrong kernel from a coarse weight, and what the format costs is measured in accuracy.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tvm
import tvm_ffi

from compile.machine_code.memory_planning import ENTRY
from compile.numerics import Numerics
from modeltree.errors import NasError

TOLERANCES = {"f32": 1e-4, "bf16": 0.05, "int8": 0.15, "bf16-dot": 0.05, "int8-dot": 0.15}
"""Largest difference, as a share of the largest number in torch's answer."""

_OWN_TIMES, _OWN_MOST = 8.0, 1e-3
"""What is allowed of a block that rounds badly in torch too: times torch's own error, as a share up to the second."""


class VerificationError(NasError):
    """A library does not compute what its block does."""


class Deviation(NamedTuple):
    """How far answers are from torch's: the largest difference, and the root of the mean square over that of torch's
    numbers, 0 where those are all 0."""

    largest: float
    relative: float


def verify_block(
    program: torch.export.ExportedProgram,
    path: Path,
    *,
    batch: int = 1,
    weights: str = "f32",
    inputs: np.ndarray | None = None,
) -> Deviation:
    """Run a library and torch on the same inputs and compare.

    Parameters
    ----------
    path : of the library; it must be of this machine's kind.
    inputs : (n, ...) float32 images or feature maps; normal random ones without it. Whole batches are run.

    Returns
    -------
    Deviation : from torch's answers.

    Raises
    ------
    VerificationError : it is beyond the tolerance of the weight format, or something is not finite.
    """
    shape = _input_shape(program, batch)
    if inputs is None:
        inputs = np.random.default_rng(0).standard_normal((2 * batch, *shape[1:]), np.float32)
    module, call = program.module(), tvm_ffi.load_module(str(path))[ENTRY]
    worst, largest, squares, total = 0.0, 0.0, 0.0, 0.0
    for start in range(0, len(inputs) - batch + 1, batch):
        images = np.ascontiguousarray(inputs[start : start + batch], np.float32)
        with torch.no_grad():
            wanted = module(torch.from_numpy(images)).numpy()
        found = tvm.runtime.empty(wanted.shape)
        call(tvm.runtime.tensor(images), found)
        difference = np.abs(found.numpy() - wanted).max() if wanted.size else 0.0
        worst = max(worst, float(difference) if np.isfinite(difference) else np.inf)
        largest = max(largest, float(np.abs(wanted).max()))
        squares += float(np.square(found.numpy() - wanted, dtype=np.float64).sum())
        total += float(np.square(wanted, dtype=np.float64).sum())
    allowed = TOLERANCES[weights] * largest
    if weights == "f32" and allowed < worst <= _OWN_MOST * largest:
        own = _own_error(module, np.asarray(inputs, np.float32), batch)
        allowed = max(allowed, min(_OWN_TIMES * own, _OWN_MOST * largest))
    if not worst <= allowed:
        raise VerificationError(
            f"{path.name} is off by {worst:.3g} where torch's largest number is {largest:.3g}: rounding makes at most "
            f"{allowed:.3g}; do not use it, and report the block"
        )
    return Deviation(worst, (squares / total) ** 0.5 if total else 0.0)


def _own_error(module: torch.nn.Module, inputs: np.ndarray, batch: int) -> float:
    """The largest difference between torch's answers in float32 and in float64; 0 where it has none in float64."""
    held = itertools.chain(module.named_parameters(), module.named_buffers())
    precise = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in held}
    worst = 0.0
    for start in range(0, len(inputs) - batch + 1, batch):
        images = torch.from_numpy(np.ascontiguousarray(inputs[start : start + batch]))
        with torch.no_grad():
            try:
                exact = torch.func.functional_call(module, precise, (images.double(),))
            except RuntimeError:  # a dtype that is written into the block
                return 0.0
            worst = max(worst, float((module(images).double() - exact).abs().max()))
    return worst


def simulated_error(
    program: torch.export.ExportedProgram, weights: str, *, signed: bool = False, inputs: np.ndarray | None = None
) -> float:
    """The relative deviation of a block whose layers are rounded as the format does it, computed by torch.

    Parameters
    ----------
    signed : as in `Numerics`. inputs : (n, ...) as in `verify_block`.
    """
    shape = _input_shape(program, 1)
    if inputs is None:
        inputs = np.random.default_rng(0).standard_normal((2, *shape[1:]), np.float32)
    module, squares, total = program.module(), 0.0, 0.0
    for image in torch.from_numpy(np.ascontiguousarray(inputs, np.float32)).split(1):
        with torch.no_grad():
            wanted = module(image).double()
            with Numerics(weights, signed=signed, entering=image):
                squares += float((module(image).double() - wanted).square().sum())
            total += float(wanted.square().sum())
    return (squares / total) ** 0.5 if total else 0.0


def _input_shape(program: torch.export.ExportedProgram, batch: int) -> tuple[int, ...]:
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.name == name)
    return (batch, *(int(side) for side in node.meta["val"].shape[1:]))
