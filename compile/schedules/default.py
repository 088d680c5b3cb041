"""The default for what no other rule knows: TVM's own loops for the operator, in plain layout, outer loops in parallel.

Correct for whatever Relax can legalise, and not fast: a report that shows one asks for a rule.
"""

from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir, tirx

from compile.graph.kernels import Buffer, Constant, Kernel
from compile.graph.layouts import Layout
from compile.graph.stages import Other, Value
from compile.schedules.pooling import PARALLEL_NUMBERS
from compile.targets import Target
from modeltree.errors import GraphError

_CPU = 1
_LOWERING = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.LowerOpaqueBlock(),
)


def default(stage: Other, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """One call of Relax, legalised.

    Raises
    ------
    GraphError : TVM has no loops for it, or it makes several tensors.
    """
    function, arguments = _legalised(stage, target)
    parameters = list(function.params)
    buffers = tuple(Buffer(f"p{i}", tuple(int(s) for s in p.shape), str(p.dtype)) for i, p in enumerate(parameters))
    if len(arguments) + 1 != len(parameters):
        raise GraphError(
            f"{stage.name} becomes a loop with {len(parameters)} tensors: it must be one a tensor it reads"
        )
    return _Lowered(
        name=stage.name, key=("default", stage.name, tvm.ir.save_json(function)), tiles=((),), out=stage.out,
        buffers=buffers, arguments=tuple(arguments), body=_nothing, lowered=function,
    )  # fmt: skip


def _nothing(tile: dict[str, int], given: list[Any]) -> None:
    raise AssertionError("a legalised function has its body already")


class _Lowered(Kernel):
    """A kernel whose function TVM wrote."""

    def __init__(self, *, lowered: Any, **fields: Any) -> None:
        super().__init__(**fields)
        object.__setattr__(self, "lowered", lowered)

    def function(self, tile: Any, *, private: bool = True, name: str = "") -> Any:
        lowered: Any = self.lowered  # type: ignore[attr-defined]
        if not private:
            return lowered.with_attr("global_symbol", name or self.name)
        types = [tvm.ir.PointerType(tvm.ir.PrimType(buffer.dtype)) for buffer in self.buffers]
        pointers = [tirx.Var(f"p{i}", pointer) for i, pointer in enumerate(types)]
        body = lowered.body
        for key, value in (("device_id", 0), ("device_type", _CPU)):  # for the workspace of its temporaries
            body = tirx.AttrStmt(tvm.ir.StringImm(self.name), key, tirx.IntImm("int32", value), body)
        declared = [tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(lowered.params, pointers)]
        finish = tirx.Return(tirx.IntImm("int32", 0))
        return tirx.PrimFunc(
            pointers, tirx.SeqStmt([*declared, body, finish]), ret_type=tvm.ir.PrimType("int32"),
            attrs=tvm.ir.make_node("ir.DictAttrs", **{"tirx.noalias": True}),
        )  # fmt: skip


def _legalised(stage: Other, target: Target) -> tuple[Any, list[Value | Constant]]:
    """The lowered function, and what it reads, in its order."""
    free = list(stage.operands)
    builder = relax.BlockBuilder()
    try:
        with builder.function("main", free):
            with builder.dataflow():
                out = builder.emit_output(builder.emit(stage.call))
            builder.emit_func_output(out)
        module = relax.transform.LegalizeOps()(builder.get())
    except Exception as error:  # TVM raises many unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(f"TVM has no loops for {stage.name}: {reason}: rewrite it with other operators") from error
    functions = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    if len(functions) != 1:
        raise GraphError(f"TVM lowers {stage.name} to {len(functions)} functions: rewrite it with simpler operators")
    bindings = [b.value for block in module["main"].body.blocks for b in block.bindings]
    call = next(v for v in bindings if isinstance(v, relax.Call) and v.op == tvm.ir.Op.get("relax.call_tir"))
    known = {_name(variable): value for variable, value in zip(free, stage.inputs)}
    arguments: list[Value | Constant] = []
    for argument in call.args[1].fields:
        if isinstance(argument, tvm.ir.GenericConst):
            arguments.append(Constant(np.ascontiguousarray(argument.value.numpy())))
        else:
            arguments.append(known[_name(argument)])
    return _scheduled(functions[0], target), arguments


def _name(variable: Any) -> str:
    return str(variable.name_hint if hasattr(variable, "name_hint") else variable.name)


def _scheduled(function: Any, target: Target) -> Any:
    """Spatial loops of every large block fused and in parallel, then TIR without blocks."""
    schedule = s_tir.Schedule(tvm.IRModule({"main": function}))
    root = schedule.get_sblock("root", "main")
    for block in schedule.get_child_blocks(root):
        loops = schedule.get_loops(block)
        kinds = [iterator.iter_type for iterator in schedule.get(block).iter_vars]
        spatial = 0
        while spatial < len(loops) and spatial < len(kinds) and kinds[spatial] == 0:
            spatial += 1
        extents = [int(schedule.get(loop).extent) for loop in loops[:spatial]]
        if spatial and np.prod(extents) >= PARALLEL_NUMBERS and target.threads > 1 and len(loops) == len(kinds):
            schedule.parallel(schedule.fuse(*loops[:spatial]))
    return tvm.transform.Sequential(_LOWERING)(schedule.mod)["main"].without_attr("global_symbol")
