"""Calling a compiled block: one shared library, one function, numpy in and out. No torch, no TVM package.

The library shows `__tvm_ffi_run(x, y)` in tvm-ffi's calling convention and takes threads and workspace from a runtime
library that is loaded before it. Everything goes through ctypes, which lets go of the interpreter's lock during the
call; the package `tvm_ffi` is not imported, since its import pulls torch in where torch is installed.
"""

import _ctypes
import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError, NasError
from runtime.execution.native import Any_, available_cpus, open_runtime

ALIGNMENT_BYTES = 64
_TENSOR_POINTER = 7
_CPU = 1
_FLOAT, _FLOAT_BITS = 2, 32


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class Library:
    """A compiled block, ready to run. May be called from several threads at once.

    path : the block's library. runtime : the runtime library it was linked for, from its bundle; None takes TVM's of
    the installed package. shape_in, shape_out : of what goes in and comes out, batch first. threads : that a call uses,
    the caller's among them; None takes as many as this process has processors.

    Raises
    ------
    ConfigError : a shape or `threads` is off, or the runtime library is not there.
    DataError : there is no such file. FormatError : it cannot be loaded, or is not a block's library.
    """

    def __init__(
        self, path: Path | str, *, shape_in: Sequence[int], shape_out: Sequence[int],
        runtime: Path | str | None = None, threads: int | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self.shape_in, self.shape_out = _shape(shape_in), _shape(shape_out)
        self.threads = available_cpus() if threads is None else threads
        if not 1 <= self.threads <= 64:
            raise ConfigError(f"threads is {threads}: it must be within 1..64")
        self._runtime = open_runtime(None if runtime is None else Path(runtime))
        self._loaded: ctypes.CDLL | None
        self._function: Callable[..., int]
        self._loaded, self._function = _function(self.path)
        self._frames = threading.local()

    def run(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """What the block makes of `x`.

        Parameters
        ----------
        x : (batch, ...), `shape_in`, float32; any strides.
        out : `shape_out`, float32, to be written to and returned; a new array when None.

        Raises
        ------
        DataError : an array's shape or type is off. NasError : the block itself failed; carries its message.
        """
        frame = getattr(self._frames, "frame", None) or self._new_frame()
        if x.shape != self.shape_in or x.dtype != np.float32:
            raise self._refused("input", x, self.shape_in)
        if out is not None and (out.shape != self.shape_out or out.dtype != np.float32):
            raise self._refused("out", out, self.shape_out)
        frame.x[...] = x
        self._runtime.use_threads(self.threads)
        if self._function(None, frame.arguments, 2, frame.result):
            raise NasError(f"{self.path} failed: {self._runtime.last_error()}: compile the bundle again")
        if out is None:
            return frame.y.copy()
        out[...] = frame.y
        return out

    def close(self) -> None:
        """Unload it, once nobody is in `run` any more; `run` fails from now on. May be called again."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._function = _closed
            _ctypes.dlclose(loaded._handle)

    def _new_frame(self) -> "_Frame":
        self._frames.frame = _Frame(self.shape_in, self.shape_out)
        return self._frames.frame

    def _refused(self, what: str, array: np.ndarray, shape: tuple[int, ...]) -> DataError:
        return DataError(
            f"{what} of {self.path} is {array.dtype} {array.shape}: it must be float32 {shape}; "
            "convert it, or use the library of another batch size"
        )


class _Frame:
    """One calling thread's arguments: aligned arrays, and what describes them to the library, made once.

    Vector loads fault on addresses that numpy hands out, and describing an array costs more than copying one.
    """

    def __init__(self, shape_in: tuple[int, ...], shape_out: tuple[int, ...]) -> None:
        self.x, self.y = _aligned(shape_in), _aligned(shape_out)
        self._tensors = [_tensor(self.x), _tensor(self.y)]
        self._values = (Any_ * 2)(*[Any_(_TENSOR_POINTER, 0, ctypes.addressof(one)) for one in self._tensors])
        self._result = Any_()
        self.arguments, self.result = ctypes.addressof(self._values), ctypes.addressof(self._result)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    room = np.zeros(math.prod(shape) + ALIGNMENT_BYTES // 4, np.float32)
    skip = -room.ctypes.data % ALIGNMENT_BYTES // 4
    return room[skip : skip + math.prod(shape)].reshape(shape)


def _tensor(array: np.ndarray) -> _Tensor:
    numbers = ctypes.c_int64 * array.ndim
    strides = [stride // array.itemsize for stride in array.strides]
    return _Tensor(
        array.ctypes.data, _CPU, 0, array.ndim, _FLOAT, _FLOAT_BITS, 1, numbers(*array.shape), numbers(*strides), 0
    )


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(shape)
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"shape is {sizes}: every size must be 1 or more; take it from the manifest")
    return sizes


def _closed(*_: object) -> int:
    raise ConfigError("this library is closed: open it again")


def _function(path: Path) -> "tuple[ctypes.CDLL, ctypes._NamedFuncPointer]":
    """The library at `path`, and the block's entry in it."""
    if not path.exists():
        raise DataError(f"there is no library {path}: check the path")
    try:
        loaded = ctypes.CDLL(str(path.absolute()))
        run = loaded["__tvm_ffi_run"]
    except (OSError, AttributeError) as error:
        raise FormatError(
            f"{path} cannot be loaded: {error}: use a library made for this machine, with its runtime library"
        ) from error
    run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
    run.restype = ctypes.c_int
    return loaded, run
