"""A block small enough to check by hand: y = f(x * w0) * w1 over 64 numbers, in two parallel kernels with workspace."""

import functools

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from compile.machine_code.linking import link
from compile.targets import Target

SIZE = 64
SHAPE = (1, SIZE)
LANES = 16
WORKSPACE = 1 << 16


def weights(seed: int = 0) -> np.ndarray:
    """w0 and w1."""
    return np.random.default_rng(seed).standard_normal((2, SIZE)).astype(np.float32)


def expected(x: np.ndarray, w: np.ndarray, *, wave: bool = False) -> np.ndarray:
    first = x * w[0]
    return (np.sin(first) if wave else first) * w[1]


def library(target: Target, w: np.ndarray | None = None, *, wave: bool = False) -> bytes:
    """The block linked for `target`. wave : f is the sine, which comes from libm; else the identity."""
    return link(object_code(target, wave=wave), (weights() if w is None else w).tobytes(), target)


@functools.cache
def object_code(target: Target, *, wave: bool = False) -> bytes:
    """What TVM makes of it; the constants are still to be linked in."""
    import tempfile
    from pathlib import Path

    names = [tvm.ir.GlobalVar(name) for name in ("first", "second", "run")]
    module = tvm.IRModule(dict(zip(names, [_kernel(wave), _kernel(False), _entry(*names[:2])])))
    built = tvm.tirx.build(module, target=tvm.target.Target(target.llvm()))
    with tempfile.TemporaryDirectory() as folder:
        built.write_to_file(f"{folder}/code.o", "o")
        return Path(folder, "code.o").read_bytes()


def _kernel(wave: bool) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(private=True):
        pointers = [T.arg(name, T.handle("float32")) for name in "xwy"]
        T.func_attr({"tirx.noalias": True})
        T.func_ret(tvm.ir.PrimType("int32"))
        x, w, y = (T.decl_buffer((SIZE,), "float32", data=pointer) for pointer in pointers)
        with T.parallel(SIZE // LANES) as part:
            if wave:
                with T.serial(LANES) as i:
                    at = part * LANES + i
                    T.buffer_store(y, _sinf(x[at] * w[at]), [at])
            else:
                index = tirx.Ramp(part * LANES, 1, LANES)
                T.buffer_store(y, x[index] * w[index], [index])
        T.Return(T.int32(0))
    return builder.get()


def _sinf(x: tvm.ir.Expr) -> tvm.ir.Expr:
    return tvm.ir.Call("tirx.call_extern", [tvm.ir.StringImm("sinf"), x], ret_ty="float32")


def _entry(first: tvm.ir.GlobalVar, second: tvm.ir.GlobalVar) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func():
        T.func_name("run")
        x, y = (T.arg(name, T.buffer(SHAPE, "float32")) for name in "xy")
        pointer = T.ptr("float32")
        call = tvm.ir.Call("tirx.call_extern", [tvm.ir.StringImm("nas_weights")], ret_ty=pointer.ty)
        w = T.decl_buffer((2 * SIZE,), "float32", data=T.Bind(call, var=pointer))
        room = T.alloc_buffer((WORKSPACE,), "float32")
        for end in (0, WORKSPACE - 1):  # else CompactBufferAllocation shrinks it to what address_of names
            T.evaluate(T.address_of(room[end]))
        middle = T.address_of(room[WORKSPACE // 2])
        T.evaluate(tvm.ir.Call(first, [x.data, T.address_of(w[0]), middle], ret_ty="int32"))
        T.evaluate(tvm.ir.Call(second, [middle, T.address_of(w[SIZE]), y.data], ret_ty="int32"))
    return builder.get()
