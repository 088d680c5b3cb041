"""The compiler: an exported block in, one self-contained shared library out.

Read `PHASES` top to bottom: torch's core operators, where little can be misread; then stages, which say what our
schedules know; then memory, code and a library. `dump` writes what each phase leaves behind.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compile.formats import format_of
from compile.graph.core_form import CoreForm, core_form
from compile.graph.fusing import folded, fused, pooled
from compile.graph.kernels import Kernel, Tile
from compile.graph.layouts import Placed
from compile.graph.placing import placed
from compile.graph.reading import read
from compile.graph.repeated import indexed
from compile.graph.stages import Program
from compile.machine_code.codegen import generated
from compile.machine_code.linking import link
from compile.machine_code.memory_planning import Plan, entered, joined, needs_kernel, planned
from compile.remote import RemoteDevice
from compile.schedules import scheduled
from compile.targets import Target
from compile.tuning import TuningCache, tuned
from modeltree.errors import ConfigError
from modeltree.files import write_text


@dataclass(kw_only=True)
class Work:
    """What the phases pass on. Each fills in what is its own."""

    program: torch.export.ExportedProgram
    target: Target
    batch: int
    weights: str
    cache: TuningCache
    listing: bool
    device: RemoteDevice | None = None
    tune: bool = True
    core: CoreForm | None = None
    stages: Program | None = None
    placed: Placed | None = None
    kernels: list[Kernel] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    plan: Plan | None = None
    tir: Any = None
    object_code: bytes = b""
    library: bytes = b""


@dataclass(frozen=True, kw_only=True)
class CompiledBlock:
    """A library and what is known about it. Shapes with the batch in front; `seconds` is what compiling took."""

    library: bytes
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_bytes: int
    workspace_bytes: int
    macs: int
    seconds: float
    kernels: tuple[str, ...] = ()


def _simplify(work: Work) -> str:
    """torch's core operators on known shapes, constants computed."""
    work.core = core_form(work.program, work.batch)
    return work.core.text()


def _read(work: Work) -> str:
    """Stages in place of operators."""
    assert work.core
    work.stages = read(work.core)
    return work.stages.text()


def _fold(work: Work) -> str:
    """Scales and shifts (batch norm, bias) into weights."""
    assert work.stages
    work.stages = folded(work.stages)
    return work.stages.text()


def _fuse(work: Work) -> str:
    """Activations and residual additions into epilogues."""
    assert work.stages
    work.stages = fused(work.stages)
    return work.stages.text()


def _pool(work: Work) -> str:
    """2x2 maximum pooling into the convolution in front."""
    assert work.stages
    work.stages = pooled(work.stages)
    return work.stages.text()


def _index(work: Work) -> str:
    """Constants whose numbers come again, as tables and places in them."""
    assert work.stages
    work.stages = indexed(work.stages)
    return work.stages.text()


def _place(work: Work) -> str:
    """Channel blocks and halos, kept from stage to stage and undone at the block's edges."""
    assert work.stages
    work.placed = joined(placed(work.stages, work.target.lanes, format_of(work.weights, work.target)))
    return work.placed.text()


def _schedule(work: Work) -> str:
    """A kernel a stage; weights packed as it reads them."""
    assert work.placed
    work.kernels = [
        scheduled(stage, work.placed.layouts, work.target, work.weights)
        for stage in work.placed.stages
        if needs_kernel(stage)
    ]
    return "".join(f"{kernel.out.name} = {kernel.name} {kernel.key[:6]}\n" for kernel in work.kernels)


def _tune(work: Work) -> str:
    """A tile a kernel: timed where the target is here (or over RPC), reckoned elsewhere."""
    work.tiles = [
        tuned(kernel, work.target, work.cache, work.device) if work.tune else kernel.tiles[0] for kernel in work.kernels
    ]
    pairs = zip(work.kernels, work.tiles)
    return "".join(f"{kernel.out.name} = {kernel.name} {dict(tile)}\n" for kernel, tile in pairs)


def _plan(work: Work) -> str:
    """Tensors that do not live at once share memory."""
    assert work.placed
    work.plan = planned(work.placed, work.kernels, work.tiles)
    lines = [f"{name}: {where} + {offset}" for name, (where, offset) in work.plan.tensors.items()]
    return "\n".join([*lines, f"workspace {work.plan.workspace_bytes} bytes, weights {len(work.plan.weights)}"]) + "\n"


def _enter(work: Work) -> str:
    """All kernels and the one function that calls them."""
    assert work.placed
    assert work.plan
    work.tir = entered(work.placed, work.kernels, work.tiles, work.plan, work.target)
    return str(work.tir.script())


def _generate(work: Work) -> str:
    """Machine code, by LLVM."""
    work.object_code, assembly = generated(work.tir, work.target, listing=work.listing)
    return assembly


def _link(work: Work) -> str:
    """A shared library with the weights inside."""
    assert work.plan
    work.library = link(work.object_code, work.plan.weights, work.target)
    return f"{len(work.library)} bytes\n"


PHASES: tuple[tuple[str, Callable[[Work], str]], ...] = (
    ("simplify", _simplify),
    ("read", _read),
    ("fold", _fold),
    ("fuse", _fuse),
    ("pool", _pool),
    ("index", _index),
    ("place", _place),
    ("schedule", _schedule),
    ("tune", _tune),
    ("plan", _plan),
    ("enter", _enter),
    ("generate", _generate),
    ("link", _link),
)
"""The whole compiler, in order. A phase answers with text for the dump."""


def compile_block(
    program: torch.export.ExportedProgram,
    target: Target,
    *,
    batch: int = 1,
    weights: str = "f32",
    cache: TuningCache | None = None,
    dump: Path | None = None,
    device: RemoteDevice | None = None,
    tune: bool = True,
) -> CompiledBlock:
    """One exported block as a shared library for one target.

    Parameters
    ----------
    program : one float32 tensor in, one out, batch in front (dynamic, or equal to `batch`).
    weights : how numbers are held: `f32`; `bf16` or `int8` weights (one scale an output channel), widened in registers;
        `bf16-dot` or `int8-dot`, which multiply in the narrow type where the target has the instructions.
    cache : tiles that were timed before; without one, they are timed again.
    dump : folder for what each phase leaves behind, `NN-phase.txt`.
    device : times tiles in place of this machine. tune : whether tiles are timed at all; else they are reckoned.

    Raises
    ------
    GraphError : an operator that is not known to be right; the error names its layer.
    ConfigError : an unknown weight format, one that the target cannot run, or a batch below 1.
    """
    started = time.perf_counter()
    work = compiled_work(
        program, target, batch=batch, weights=weights, cache=cache, dump=dump, device=device, tune=tune
    )  # fmt: skip
    return _as_block(work, time.perf_counter() - started)


def compiled_work(
    program: torch.export.ExportedProgram, target: Target, *, batch: int = 1, weights: str = "f32",
    cache: TuningCache | None = None, dump: Path | None = None, device: RemoteDevice | None = None, tune: bool = True,
) -> Work:  # fmt: skip
    """What all phases leave behind; arguments as those of `compile_block`."""
    format_of(weights, target)
    if batch < 1:
        raise ConfigError(f"batch is {batch}: it must be at least 1")
    work = Work(
        program=program, target=target, batch=batch, weights=weights, cache=cache or TuningCache(None),
        listing=dump is not None, device=device, tune=tune,
    )  # fmt: skip
    for number, (name, phase) in enumerate(PHASES):
        text = phase(work)
        if dump is not None:
            write_text(dump / f"{number:02}-{name}.txt", text)
    return work


def _as_block(work: Work, seconds: float) -> CompiledBlock:
    assert work.plan
    assert work.placed
    return CompiledBlock(
        library=work.library, input_shape=work.placed.program.input.shape, output_shape=work.placed.result.shape,
        weight_bytes=len(work.plan.weights), workspace_bytes=work.plan.workspace_bytes,
        macs=sum(kernel.macs for kernel in work.kernels), seconds=seconds,
        kernels=tuple(kernel.name for kernel in work.kernels),
    )  # fmt: skip
