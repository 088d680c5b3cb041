"""Programs of stages made by hand or from small networks, and the phases that bring them along."""

import numpy as np
from torch import nn

from compile.formats import format_of
from compile.graph.core_form import core_form
from compile.graph.fusing import folded, fused, pooled
from compile.graph.layouts import Placed
from compile.graph.placing import placed
from compile.graph.reading import read
from compile.graph.stages import Program
from compile.machine_code.memory_planning import joined, needs_kernel, planned
from compile.schedules import scheduled
from compile.targets import Target
from transforms import export

TARGET = Target(
    name="short", description="four lanes", triple="x86_64-unknown-linux-gnu", cpu="x86-64-v2", registers=16
)  # fmt: skip


def read_from(model: nn.Module, shape: tuple[int, ...], batch: int = 1) -> Program:
    """The stages of a network as they are read, nothing folded or fused."""
    return read(core_form(export(model.eval(), shape), batch))


def fused_from(model: nn.Module, shape: tuple[int, ...], batch: int = 1) -> Program:
    """Folded, fused and pooled."""
    return pooled(fused(folded(read_from(model, shape, batch))))


def placed_from(program: Program, lanes: int = 4) -> Placed:
    """With layouts for vectors of `lanes` numbers."""
    return placed(program, lanes, format_of("f32", TARGET))


def planned_from(program: Program):
    """(stages with layouts, kernels, plan) for `TARGET`."""
    stages = joined(placed_from(program, TARGET.lanes))
    kernels = [scheduled(s, stages.layouts, TARGET, "f32") for s in stages.stages if needs_kernel(s)]
    return stages, kernels, planned(stages, kernels, [kernel.tiles[0] for kernel in kernels])


def kinds(program: Program | Placed) -> list[str]:
    return [type(stage).__name__ for stage in program.stages]


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
