"""From TIR to machine code: TVM's lowering passes, the ones that our code needs, in their order."""

import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from compile.targets import Target

_LOWERING = (
    tirx.transform.StmtSimplify(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    tirx.transform.VectorizeLoop(True),
    tirx.transform.UnrollLoop(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
    tirx.transform.CommonSubexprElim(),
    tirx.transform.AnnotateEntryFunc(),
    tirx.transform.SplitHostDevice(),
    tirx.transform.MakePackedAPI(),
    tirx.transform.LowerTVMBuiltin(),
    tirx.transform.LowerIntrin(),
)


def built(module: tvm.IRModule, target: Target) -> Any:
    """A TIR module as a TVM runtime module: called here where the target is this machine, written as an object file."""
    llvm = tvm.target.Target(target.llvm())
    bound = tirx.transform.BindTarget(llvm.with_host(llvm))(module)
    lowered = tvm.transform.Sequential(_LOWERING)(bound)
    return tvm.get_global_func("target.build.llvm")(lowered, llvm)


def generated(module: tvm.IRModule, target: Target, *, listing: bool) -> tuple[bytes, str]:
    """Object code of a TIR module, and its assembly if it is asked for."""
    library = built(module, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.o"
        library.write_to_file(str(path), "o")
        return path.read_bytes(), str(library.inspect_source("s")) if listing else ""
