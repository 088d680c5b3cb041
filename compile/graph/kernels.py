"""A kernel: one stage as code for one target, in as many shapes of tile as are worth timing.

A rule (`compile.schedules`) makes kernels; tuning picks a tile; planning gives its tensors a place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.ir import PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from compile.graph.stages import Value

Tile = tuple[tuple[str, int], ...]
"""Named choices of a schedule, e.g. (("vectors", 2), ("rows", 1), ("columns", 8), ("parallel", 1))."""


@dataclass(frozen=True)
class Constant:
    """Numbers that are packed into the library: C-contiguous, as the kernel reads them."""

    array: np.ndarray


@dataclass(frozen=True)
class Buffer:
    """What a kernel's parameter points to: `shape` numbers of `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One stage on one target.

    key : what its speed depends on, in plain data: kernels with equal keys are the same code.
    tiles : worth timing, the one to take unseen first.
    buffers : its parameters in order, the output last. arguments : what is passed for all but the output.
    body : emits the code with TVM's IR builder, given the tile and one TIR buffer a parameter.
    cycles : of a thread with the first tile, as the schedule reckons; 0 where it does not.
    scratch : numbers of float32 that a tile needs while it runs; where that is not 0, a buffer of them comes last.
    """

    name: str
    key: tuple[Any, ...]
    tiles: tuple[Tile, ...]
    buffers: tuple[Buffer, ...]
    arguments: tuple[Value | Constant, ...]
    out: Value
    body: Callable[[dict[str, int], list[Any]], None]
    macs: int = 0
    cycles: float = 0.0
    scratch: Callable[[dict[str, int]], int] = lambda tile: 0

    def parameters(self, tile: Tile) -> tuple[Buffer, ...]:
        """The buffers of a tile's function: the kernel's own, then its scratch."""
        numbers = self.scratch(dict(tile))
        return (*self.buffers, Buffer("scratch", (numbers,))) if numbers else self.buffers

    def function(self, tile: Tile, *, private: bool = True, name: str = "") -> Any:
        """The kernel as a TIR function: on raw pointers for an entry to call, or packed, to be timed alone."""
        parameters = self.parameters(tile)
        with IRBuilder() as builder, T.prim_func(private=private):
            if private:
                pointers = [T.arg(buffer.name, T.handle(buffer.dtype)) for buffer in parameters]
                T.func_ret(PrimType("int32"))
            else:
                T.func_name(name or self.name)
                buffers = [T.arg(b.name, T.buffer(b.shape, b.dtype)) for b in parameters]
            T.func_attr({"tirx.noalias": True})
            if private:
                buffers = [T.decl_buffer(b.shape, b.dtype, data=p) for b, p in zip(parameters, pointers)]
            self.body(dict(tile), buffers)
            if private:
                T.Return(T.int32(0))
        return builder.get()
