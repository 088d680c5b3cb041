"""The runtime library under the compiled blocks: where their threads come from and their errors go.

    TVM's   libtvm_runtime.so   one pool for every calling thread; its size is fixed when that thread first uses it
    ours    libnas_runtime.so   one pool for the process (runtime/execution/shim/shim.c)

A process holds one of each at most, however many blocks it loads: a second copy of TVM's would register everything
twice and abort. So what is loaded already is used, whatever path it came from.
"""

import ctypes
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from modeltree.errors import ConfigError, FormatError
from modeltree.manifest import SHIM_NAME, TVM_NAME

TVM_FFI_NAME = "libtvm_ffi.so"
_SPIN, _SPINS = "TVM_THREAD_POOL_SPIN_COUNT", 1000
"""How often a thread of TVM's pool yields the processor before it sleeps, which it also does before it ends.

TVM's own 300 000 take 0.1 s on an idle processor. Where others wait for it, a yield lasts milliseconds, and the process
could not end for minutes.
"""
_INT = 1
_ERROR_HEADER_BYTES = 24
_MESSAGE_BYTES = 1024


class Runtime(Protocol):
    """A loaded runtime library."""

    def use_threads(self, threads: int) -> None:
        """Have the calls that this thread makes next use so many threads, its own among them."""

    def last_error(self) -> str:
        """What the call that failed last had to say."""


class Any_(ctypes.Structure):
    """TVMFFIAny: a type index and eight bytes."""

    _fields_ = (("type_index", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", ctypes.c_uint64))


class _Bytes(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_runtime(path: Path | None) -> Runtime:
    """Load the runtime library at `path` (None: TVM's, from the installed package), or use the one loaded already.

    Raises
    ------
    ConfigError : it or tvm-ffi is not there. FormatError : it cannot be loaded.
    """
    return _shim(path) if path is not None and path.name == SHIM_NAME else _tvm(path)


def _shim(path: Path) -> Runtime:
    return ShimRuntime(_load(SHIM_NAME, path))


def _tvm(path: Path | None) -> Runtime:
    os.environ.setdefault(_SPIN, str(_SPINS))
    _load(TVM_FFI_NAME, _packaged("tvm_ffi", TVM_FFI_NAME), "run pip install apache-tvm-ffi")
    _load(TVM_NAME, path or _packaged("tvm", TVM_NAME))
    return _loaded_tvm()


@functools.cache
def _loaded_tvm() -> Runtime:
    """One for the process: it knows what every calling thread's pool was last told."""
    return TvmRuntime(_load(TVM_FFI_NAME, None), _load(TVM_NAME, None))


class ShimRuntime:
    """Ours."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._set_threads = library.nas_set_threads
        self._set_threads.argtypes = (ctypes.c_int,)
        self._last_error = library.nas_last_error
        self._last_error.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        self._last_error.restype = None

    def use_threads(self, threads: int) -> None:
        self._set_threads(threads)

    def last_error(self) -> str:
        text = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._last_error(text, _MESSAGE_BYTES)
        return text.value.decode(errors="replace")


class TvmRuntime:
    """TVM's. Every thread that calls gets a pool of its own, made here for as many threads as there are processors.

    By itself TVM would use half of them on x86, and bind its threads, the caller's too, to the first processors. How
    many a call uses is decided twice: by the pool (`config_threadpool`, which forgets the other) and by a number that
    TVM keeps for every calling thread (`SetMaxConcurrency`); with 1 the pool is not asked at all.
    """

    def __init__(self, ffi: ctypes.CDLL, library: ctypes.CDLL) -> None:
        self._ffi = ffi
        self._ffi.TVMFFIFunctionCall.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
        self._ffi.TVMFFIErrorMoveFromRaised.argtypes = (ctypes.c_void_p,)
        self._ffi.TVMFFIErrorMoveFromRaised.restype = None
        self._ffi.TVMFFIObjectDecRef.argtypes = (ctypes.c_void_p,)
        self._configure = self._function("runtime.config_threadpool")
        self._count = self._function("runtime.NumThreads")
        self._set_most = library["_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"]
        self._set_most.argtypes, self._set_most.restype = (ctypes.c_int,), None
        self._lock = threading.Lock()
        self._here = threading.local()
        self._orphaned = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """In the child of a fork: note whether this thread's pool has lost its threads, and could only wait for them.

        It could not even be parted with: new threads get the stacks of those that are gone, and with them their names.
        """
        self._lock = threading.Lock()
        self._orphaned |= (getattr(self._here, "threads", None) or 1) > 1

    def use_threads(self, threads: int) -> None:
        """See `Runtime`.

        Raises
        ------
        ConfigError : this thread has used TVM before, with fewer; or a parent of this process has, with several.
        """
        if self._orphaned:
            raise ConfigError(
                "this process was forked from one that had run blocks on several threads, which do not survive a fork: "
                "open sessions only after it, start processes by spawn or forkserver, or open the parent's with "
                "threads=1"
            )
        if getattr(self._here, "threads", None) == threads:
            return
        pooled = self._sized_pool(threads) if threads > 1 else 1
        if pooled != threads:
            raise ConfigError(
                f"TVM has {pooled} threads for this thread of ours, which used it before: {threads} are wanted; "
                "call from another thread, or set TVM_NUM_THREADS at the start"
            )
        self._set_most(threads)
        self._here.threads = threads

    def _sized_pool(self, threads: int) -> int:
        """Have this thread's pool use so many; how many it uses then."""
        with self._lock, _environment(TVM_BIND_THREADS="0"):
            self._set_most(max(threads, available_cpus()))
            self._call(self._count)
            self._call(self._configure, 1, threads)
            return self._call(self._count)

    def last_error(self) -> str:
        error = ctypes.c_void_p()
        self._ffi.TVMFFIErrorMoveFromRaised(ctypes.byref(error))
        if not error.value:
            return "no message"
        cell = (_Bytes * 2).from_address(error.value + _ERROR_HEADER_BYTES)
        text = ": ".join(ctypes.string_at(part.data, part.size).decode(errors="replace") for part in cell)
        self._ffi.TVMFFIObjectDecRef(error)
        return text

    def _function(self, name: str) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        wanted = _Bytes(name.encode(), len(name))
        if self._ffi.TVMFFIFunctionGetGlobal(ctypes.byref(wanted), ctypes.byref(handle)) or not handle.value:
            raise FormatError(f"{TVM_NAME} has no function {name}: use the one that this project pins")
        return handle

    def _call(self, function: ctypes.c_void_p, *numbers: int) -> int:
        arguments = (Any_ * max(len(numbers), 1))(*[Any_(_INT, 0, number) for number in numbers])
        result = Any_()
        if self._ffi.TVMFFIFunctionCall(function, arguments, len(numbers), ctypes.byref(result)):
            raise ConfigError(f"TVM's thread pool: {self.last_error()}: pass fewer threads")
        return int(result.value)


def _load(name: str, path: Path | None, hint: str = "pass the one in the bundle") -> ctypes.CDLL:
    """The library of this name that is loaded already, else the one at `path`; its symbols are there for all."""
    try:
        return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_GLOBAL)
    except OSError:
        pass
    if path is None or not path.exists():
        raise ConfigError(f"there is no {path or name}: {hint}")
    try:
        return ctypes.CDLL(str(path.absolute()), mode=os.RTLD_GLOBAL)
    except OSError as error:
        raise FormatError(f"{path} cannot be loaded: {error}: use the one made for this machine") from error


def _packaged(package: str, name: str) -> Path | None:
    """A library within an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / "lib" / name if spec is not None and spec.origin else None


@contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    """Environment variables for a moment."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
