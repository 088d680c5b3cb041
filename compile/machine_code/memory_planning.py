"""A place for every tensor and every constant, and the one function that runs the kernels in order.

Tensors that are never alive at the same time share memory. A reshape lies where its tensor lies; the parts of a
concatenation lie next to each other inside the whole, so neither is copied. The result is written where the caller
wants it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from compile.graph.kernels import Constant, Kernel, Tile
from compile.graph.layouts import Layout, Placed, Placement, Relayout, inputs_of, plain
from compile.graph.stages import Concat, Flatten, Stage, Value
from compile.targets import Target

ALIGNMENT = 64
_LEAST_ROOM_BYTES = 2048
"""TVM puts up to 1024 bytes on the stack, and LLVM takes stores of one kernel there as not read by the next."""
ENTRY = "run"
_SCRATCH = "scratch"
WEIGHTS = "nas_weights"
_BYTES = {"float32": 4, "int32": 4, "int64": 8, "bool": 1, "int8": 1, "uint8": 1, "uint16": 2, "float64": 8}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where things lie: (`input` | `output` | `workspace`, byte offset) a tensor, and the bytes of all constants.

    scratch : offset in the workspace of what the kernel that makes a tensor needs while it runs.
    """

    tensors: dict[str, tuple[str, int]]
    scratch: dict[str, int]
    workspace_bytes: int
    constants: dict[int, int]
    weights: bytes


def joined(placed: Placed) -> Placed:
    """Copies where parts of a concatenation cannot lie inside the whole, or the result is no kernel's output."""
    made = {stage.out.name for stage in placed.stages if needs_kernel(stage)}
    taken: set[str] = set()
    layouts = dict(placed.layouts)
    stages: list[Stage | Placement] = []
    for stage in placed.stages:
        if isinstance(stage, Concat):
            parts: list[Value] = []
            for part in stage.parts:
                if part.name not in made or part.name in taken or part == placed.result:
                    copy = Value(f"{part.name}_in_{stage.out.name}_{len(parts)}", part.shape)
                    layouts[copy.name] = layouts[part.name]
                    stages.append(Relayout(x=part, out=copy))
                    part = copy
                taken.add(part.name)
                parts.append(part)
            stage = Concat(parts=tuple(parts), out=stage.out)
        stages.append(stage)
    result = placed.result
    if not _ends_in_a_kernel(result, stages):
        result = Value("result", result.shape, result.dtype)
        layouts[result.name] = layouts.get(placed.result.name, plain(result))
        stages.append(Relayout(x=placed.result, out=result))
    return Placed(program=placed.program, stages=tuple(stages), result=result, layouts=layouts)


def _ends_in_a_kernel(result: Value, stages: Sequence[Stage | Placement]) -> bool:
    """Whether a kernel makes the result, perhaps reshaped, and nothing else keeps it."""
    by_name = {stage.out.name: stage for stage in stages}
    stage = by_name.get(result.name)
    while isinstance(stage, Flatten):
        stage = by_name.get(stage.x.name)
    inside = {part.name for s in stages if isinstance(s, Concat) and not needs_kernel(s) for part in s.parts}
    return stage is not None and needs_kernel(stage) and stage.out.name not in inside


def planned(placed: Placed, kernels: Sequence[Kernel], tiles: Sequence[Tile]) -> Plan:
    """Offsets of tensors and of kernels' scratch (64-byte aligned), packed and alike constants once."""
    alias, size = _aliases(placed)

    def root(name: str) -> tuple[str, int]:
        offset = 0
        while name in alias:
            name, more = alias[name]
            offset += more
        return name, offset

    entered, left = root(placed.program.input.name)[0], root(placed.result.name)[0]
    born: dict[str, int] = {}
    dies: dict[str, int] = {}
    for moment, stage in enumerate(placed.stages):
        for value in (*inputs_of(stage), stage.out):
            name = root(value.name)[0]
            born.setdefault(name, moment)
            dies[name] = moment
    rooms = {name: size[name] for name in born if name not in (entered, left)}
    made_at = {stage.out.name: moment for moment, stage in enumerate(placed.stages)}
    for kernel, tile in zip(kernels, tiles):
        if numbers := kernel.scratch(dict(tile)):
            name = f"{kernel.out.name} {_SCRATCH}"
            rooms[name] = numbers * _BYTES["float32"]
            born[name] = dies[name] = made_at[kernel.out.name]
    offsets, total = _packed(rooms, born, dies)
    scratch = {name.removesuffix(f" {_SCRATCH}"): at for name, at in offsets.items() if name.endswith(f" {_SCRATCH}")}
    tensors: dict[str, tuple[str, int]] = {}
    for name in size:
        base, offset = root(name)
        if base == entered:
            tensors[name] = ("input", offset)
        elif base == left:
            tensors[name] = ("output", offset)
        elif base in offsets:
            tensors[name] = ("workspace", offsets[base] + offset)
    constants, weights = _constants(kernels)
    return Plan(tensors=tensors, scratch=scratch, workspace_bytes=total, constants=constants, weights=weights)


def _bytes(value: Value, layout: Layout | None) -> int:
    if layout:
        return layout.numbers(value.shape[0]) * _BYTES[layout.dtype]
    return math.prod(value.shape) * _BYTES[value.dtype]


def _aliases(placed: Placed) -> tuple[dict[str, tuple[str, int]], dict[str, int]]:
    """name -> (the tensor it lies in, at which byte); and every tensor's size in bytes."""
    program = placed.program
    size = {program.input.name: _bytes(program.input, placed.layouts.get(program.input.name))}
    alias: dict[str, tuple[str, int]] = {}
    for stage in placed.stages:
        size[stage.out.name] = _bytes(stage.out, placed.layouts.get(stage.out.name))
        if isinstance(stage, Flatten):
            alias[stage.out.name] = (stage.x.name, 0)
        elif isinstance(stage, Concat) and not needs_kernel(stage):
            offset = 0
            for part in stage.parts:
                alias[part.name] = (stage.out.name, offset)
                offset += size[part.name]
    return alias, size


def _packed(size: dict[str, int], born: dict[str, int], dies: dict[str, int]) -> tuple[dict[str, int], int]:
    """Largest first, each at the lowest offset where it meets nobody who lives at the same time."""
    offsets: dict[str, int] = {}
    for name in sorted(size, key=lambda n: (-size[n], born[n], n)):
        busy = sorted(
            (offsets[other], offsets[other] + size[other])
            for other in offsets
            if born[other] <= dies[name] and born[name] <= dies[other]
        )
        at = 0
        for start, stop in busy:
            if at + size[name] <= start:
                break
            at = max(at, -(-stop // ALIGNMENT) * ALIGNMENT)
        offsets[name] = at
    return offsets, max((offsets[name] + size[name] for name in offsets), default=0)


def _constants(kernels: Sequence[Kernel]) -> tuple[dict[int, int], bytes]:
    """Offset of every constant by identity, and all of them in one piece; equal ones are there once."""
    offsets: dict[int, int] = {}
    by_content: dict[bytes, int] = {}
    pieces: list[bytes] = []
    total = 0
    for kernel in kernels:
        for constant in kernel.arguments:
            if not isinstance(constant, Constant):
                continue
            data = np.ascontiguousarray(constant.array).tobytes()
            if data not in by_content:
                by_content[data] = total
                padding = -len(data) % ALIGNMENT
                pieces.append(data + bytes(padding))
                total += len(data) + padding
            offsets[id(constant)] = by_content[data]
    return offsets, b"".join(pieces) or bytes(ALIGNMENT)


def entered(placed: Placed, kernels: Sequence[Kernel], tiles: Sequence[Tile], plan: Plan, target: Target) -> Any:
    """All kernels, each kind once, and the entry `run(x, y)` that calls them in order, as a TIR module."""
    functions: dict[Any, Any] = {}
    names: dict[tuple[Any, ...], Any] = {}
    for kernel, tile in zip(kernels, tiles):
        if (kernel.key, tile) not in names:
            variable = tvm.ir.GlobalVar(f"{kernel.name}_{len(names)}")
            names[kernel.key, tile] = variable
            functions[variable] = kernel.function(tile)
    program, result = placed.program, placed.result
    with IRBuilder() as builder, T.prim_func():
        T.func_name(ENTRY)
        x = T.arg("x", T.buffer(program.input.shape, program.input.dtype, align=4))
        y = T.arg("y", T.buffer(result.shape, result.dtype, align=4))
        T.func_attr({"tirx.noalias": True})
        pointer = T.ptr("uint8")
        call = tvm.ir.Call("tirx.call_extern", [tvm.ir.StringImm(WEIGHTS)], ret_ty=pointer.ty)
        weights = T.decl_buffer((len(plan.weights),), "uint8", data=T.Bind(call, var=pointer))
        room = T.alloc_buffer((max(plan.workspace_bytes, _LEAST_ROOM_BYTES),), "uint8")

        def address(argument: Value | Constant) -> Any:
            if isinstance(argument, Constant):
                return T.address_of(weights[plan.constants[id(argument)]])
            where, offset = plan.tensors[argument.name]
            if where == "workspace":
                return T.address_of(room[offset])
            buffer = x if where == "input" else y
            assert offset == 0, "inputs and outputs begin at their first byte"
            return buffer.data

        for kernel, tile in zip(kernels, tiles):
            passed = [address(argument) for argument in (*kernel.arguments, kernel.out)]
            if kernel.out.name in plan.scratch:
                passed.append(T.address_of(room[plan.scratch[kernel.out.name]]))
            T.evaluate(tvm.ir.Call(names[kernel.key, tile], passed, ret_ty="int32"))
    functions[tvm.ir.GlobalVar(ENTRY)] = builder.get()
    return tvm.IRModule(functions)


def needs_kernel(stage: Stage | Placement) -> bool:
    """Whether a stage is work: reshapes, and concatenations of one image's maps, are only a way to see memory."""
    if isinstance(stage, Concat):
        return stage.out.shape[0] > 1
    return not isinstance(stage, Flatten)
