"""Whether the compiler takes a program, asked without scheduling, timing or compiling anything."""

import torch

from compile.pipeline import PHASES, Work
from compile.targets import host
from compile.tuning import TuningCache


def check_accepted(program: torch.export.ExportedProgram) -> None:
    """Read a program for batches of one as `compile_block` does, up to the stages that are to be scheduled.

    Raises
    ------
    GraphError : an operator that has no rule, or whatever else keeps it from being compiled for a batch of one.
    """
    work = Work(
        program=program, target=host(), batch=1, weights="f32", cache=TuningCache(None), listing=False
    )  # fmt: skip
    for name, phase in PHASES:
        phase(work)
        if name == "read":
            return
