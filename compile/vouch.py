"""A library for a machine that is not here, vouched for: the same stages as a library that runs here, against torch.

The twin has the target's vector width, registers and threads, and takes the same tiles: the same loops, in this
machine's instructions. What it cannot show is a fault of LLVM's code for the other machine, nor of its dot products.
"""

import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compile.targets import Target, host

if TYPE_CHECKING:
    from compile.verify import Deviation


def twin_of(target: Target) -> Target | None:
    """The target with this machine's instructions; None where they have no vectors as wide."""
    here = host()
    if platform.machine() != "x86_64" or target.vector_bits > here.vector_bits:
        return None
    return msgspec.structs.replace(
        here, name=f"twin-of-{target.name}", vector_bits=target.vector_bits, registers=target.registers, dot=(),
        features=(), threads=target.threads, cache_bytes=target.cache_bytes,
    )  # fmt: skip


def vouched(program: Any, target: Target, *, batch: int, weights: str) -> "Deviation | None":
    """How far the target's stages, run here, are from torch; None where this machine cannot run them.

    The relative part of `int8-dot`, whose twin is `int8`, is that of torch with layers rounded as the format does it.

    Raises
    ------
    VerificationError : it is beyond the tolerance: the target's library would be as wrong.
    """
    from compile.pipeline import compile_block
    from compile.verify import simulated_error, verify_block

    twin = twin_of(target)
    if twin is None:
        return None
    plain = weights.removesuffix("-dot")
    made = compile_block(program, twin, batch=batch, weights=plain, tune=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{twin.name}.so")
        path.write_bytes(made.library)
        deviation = verify_block(program, path, batch=batch, weights=plain)
    if weights != "int8-dot":
        return deviation
    return deviation._replace(relative=simulated_error(program, weights, signed="sdot" in target.dot))
