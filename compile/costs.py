"""What a block costs on a target: in each number format, and kernel by kernel."""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import tvm
import tvm_ffi

from compile.estimate import estimated_ms
from compile.formats import FORMATS
from compile.machine_code.memory_planning import ENTRY
from compile.pipeline import Work, compiled_work
from compile.targets import Target
from compile.tuning import TuningCache, timed
from compile.verify import Deviation, verify_block
from compile.vouch import vouched
from modeltree.errors import ConfigError

ROUNDS = 9
SECONDS_A_ROUND = 0.03


class FormatCost(msgspec.Struct, frozen=True, kw_only=True):
    """One block in one number format on one target, batch 1.

    ms : of a call; None where nothing tells it. origin : `measured` here; `estimated` (`compile.estimate`); empty.
    library_bytes, weight_bytes, workspace_bytes : of the file, the packed weights in it, the maps while it runs.
    relative_error : of its output, root mean square over that of torch's. checked : what was run for it: `library`,
        its `twin`, or nothing.
    refused : why there is none of it, and then nothing else.
    """

    format: str
    target: str
    ms: float | None = None
    origin: str = ""
    library_bytes: int = 0
    weight_bytes: int = 0
    workspace_bytes: int = 0
    relative_error: float | None = None
    checked: str = ""
    refused: str = ""


class KernelTime(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel of a library, timed alone, its inputs in the cache. out : shape of what it makes."""

    name: str
    out: tuple[int, ...]
    ms: float
    macs: int


def format_costs(
    program: torch.export.ExportedProgram, target: Target, formats: Sequence[str] = FORMATS, *,
    inputs: np.ndarray | None = None, cache: TuningCache | None = None,
) -> list[FormatCost]:  # fmt: skip
    """What a block costs in each format.

    Where the target is this machine the libraries are timed in turns, on as many threads as it has (TVM_NUM_THREADS,
    read when TVM is loaded, must say so); elsewhere one thread is reckoned. Every library is compared with torch, or
    its twin is.

    Parameters
    ----------
    inputs : (n, ...) what its output is compared on; two normal random ones without it.

    Raises
    ------
    GraphError : an operator that is not known to be right. VerificationError : a library is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Work | str] = {name: _compiled(program, target, name, cache) for name in formats}
        costs = {
            name: FormatCost(format=name, target=target.name, refused=work) if isinstance(work, str)
            else _checked(program, target, name, work, Path(folder, f"{name}.so"), inputs)
            for name, work in made.items()
        }  # fmt: skip
        if target.runs_here:
            there = {name: Path(folder, f"{name}.so") for name, cost in costs.items() if not cost.refused}
            for name, ms in _in_turns(program, there).items():
                costs[name] = msgspec.structs.replace(costs[name], ms=ms, origin="measured")
    return list(costs.values())


def kernel_times(
    program: torch.export.ExportedProgram, target: Target, *, weights: str = "f32", cache: TuningCache | None = None
) -> list[KernelTime]:
    """How long each kernel of a block's library takes on this machine, in the order in which they run.

    Raises
    ------
    ConfigError : the target does not run here.
    """
    if not target.runs_here:
        raise ConfigError(f"kernels of {target.name} cannot be timed here: time those of host, or of a target like it")
    work = compiled_work(program, target, weights=weights, cache=cache)
    known: dict[Any, float] = {}
    for kernel, tile in zip(work.kernels, work.tiles):
        if (kernel.key, tile) not in known:
            known[kernel.key, tile] = timed(dataclasses.replace(kernel, tiles=(tile,)), target)[tile]
    return [
        KernelTime(name=kernel.name, out=kernel.out.shape, ms=1e3 * known[kernel.key, tile], macs=kernel.macs)
        for kernel, tile in zip(work.kernels, work.tiles)
    ]


def _compiled(
    program: torch.export.ExportedProgram, target: Target, weights: str, cache: TuningCache | None
) -> Work | str:
    """The library and its kernels; or why the target has none in this format. Elsewhere than here, for one thread."""
    try:
        there = target if target.runs_here else msgspec.structs.replace(target, threads=1)
        return compiled_work(program, there, weights=weights, cache=cache)
    except ConfigError as error:
        return str(error)


def _checked(
    program: torch.export.ExportedProgram, target: Target, weights: str, work: Work, path: Path,
    inputs: np.ndarray | None,
) -> FormatCost:  # fmt: skip
    assert work.plan
    path.write_bytes(work.library)
    deviation: Deviation | None
    if target.runs_here:
        deviation, checked = verify_block(program, path, weights=weights, inputs=inputs), "library"
        ms, origin = None, ""
    else:
        deviation, checked = vouched(program, target, batch=1, weights=weights), "twin"
        ms = estimated_ms(work.kernels, len(work.plan.weights), target)
        origin = "" if ms is None else "estimated"
    return FormatCost(
        format=weights, target=target.name, ms=ms, origin=origin, library_bytes=len(work.library),
        weight_bytes=len(work.plan.weights), workspace_bytes=work.plan.workspace_bytes,
        relative_error=None if deviation is None else deviation.relative, checked="" if deviation is None else checked,
    )  # fmt: skip


def _in_turns(program: torch.export.ExportedProgram, libraries: dict[str, Path]) -> dict[str, float]:
    """Milliseconds a call: medians over rounds in which every library has its turn."""
    shape = tuple(int(n) for n in _entering(program).shape[1:])
    x = tvm.runtime.tensor(np.random.default_rng(0).standard_normal((1, *shape), np.float32))
    leaving = next(node for node in program.graph.nodes if node.op == "output").args[0][0].meta["val"]
    y = tvm.runtime.empty((1, *(int(n) for n in leaving.shape[1:])))
    calls = {name: tvm_ffi.load_module(str(path))[ENTRY] for name, path in libraries.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call(x, y)
            spent: list[float] = []
            until = time.perf_counter() + SECONDS_A_ROUND
            while not spent or time.perf_counter() < until:
                began = time.perf_counter()
                call(x, y)
                spent.append(time.perf_counter() - began)
            times[name].append(float(np.median(spent)))
    return {name: 1e3 * float(np.median(many)) for name, many in times.items()}


def _entering(program: torch.export.ExportedProgram) -> Any:
    (node,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    return node.meta["val"]
