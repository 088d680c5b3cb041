"""From TVM's object code and packed constants to a block's shared library, and the runtime library that goes with it.

object code ─┐
constants ───┼─ lld ─▶ a library that shows `__tvm_ffi_run` only, holds its constants in .rodata (mapped from the
block.S ─────┘         file, shared between processes) and takes threads and workspace from the runtime library
"""

import importlib.metadata
import importlib.resources
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compile.machine_code.elf import read_elf
from compile.machine_code.toolchain import toolchain
from compile.targets import Target
from modeltree.errors import ConfigError, FormatError
from modeltree.files import written_whole
from modeltree.manifest import SHIM_NAME, TVM_NAME

EXPORTED = "__tvm_ffi_run"
WEIGHTS = "nas_weights"

RUNTIME_POINTERS = frozenset({"__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace"})
RUNTIME_SYMBOLS = frozenset({"TVMFFIErrorSetRaisedFromCStr", "TVMFFIErrorSetRaisedFromCStrParts"})
"""What object code may ask of the runtime library: through pointers that it defines weakly, and by name."""

_BLOCK_SYMBOLS = frozenset({WEIGHTS, "__aeabi_unwind_cpp_pr0", "__aeabi_unwind_cpp_pr1"})
_C_SYMBOLS = frozenset(
    {"memset", "memcpy", "memmove", "__aeabi_memcpy", "__aeabi_memmove", "__aeabi_memset", "__aeabi_memclr"}
)
_M_FUNCTIONS = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh", "erf",
    "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "hypot", "ldexp", "log", "log10",
    "log1p", "log2", "nearbyint", "pow", "rint", "round", "roundeven", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
_M_SYMBOLS = frozenset([*_M_FUNCTIONS, *(f"{name}f" for name in _M_FUNCTIONS)])

_SHIM_USES = {
    "pthread": ("pthread_create",),
    "c": ("posix_memalign", "free", "syscall", "sched_yield", "clock_gettime", "__register_atfork", "memset"),
}


def link(object_code: bytes, weights: bytes, target: Target) -> bytes:
    """A block's shared library; the same arguments give the same bytes.

    object_code : of functions for `target`, with one named `__tvm_ffi_run`; it finds its constants by calling
    `const void *nas_weights(void)`. weights : the constants, which lie at a multiple of 64 bytes when loaded.

    Raises
    ------
    FormatError : `object_code` is not for this target, or calls what nothing on a device provides.
    ConfigError : there is no linker for this target, or it fails; carries its message.
    """
    uses = _uses(object_code, target)
    with _folder() as folder:
        (folder / "code.o").write_bytes(object_code)
        (folder / "weights.bin").write_bytes(weights)
        (folder / "block.S").write_text(
            importlib.resources.files("compile.machine_code").joinpath("block.S").read_text()
        )
        tools = toolchain(target)
        flags = ['-DNAS_WEIGHTS="weights.bin"', *(["-DNAS_SHIM"] if target.runtime == "shim" else [])]
        tools.compile("block.S", "block.o", *flags, folder=folder)
        tools.link(["code.o", "block.o"], "out.so", exports=EXPORTED, uses=uses, folder=folder)
        return (folder / "out.so").read_bytes()


def _uses(object_code: bytes, target: Target) -> dict[str, frozenset[str]]:
    """What the object code asks of the C library, by library."""
    code = read_elf(object_code)
    if code.machine != target.architecture:
        raise FormatError(
            f"object code is for {code.machine}, target {target.name} is {target.architecture}: build it so"
        )
    if EXPORTED not in code.exported:
        raise FormatError(f"object code has no {EXPORTED}: name the entry function run")
    asked = code.undefined - RUNTIME_SYMBOLS - _BLOCK_SYMBOLS
    unset = {name for name in code.exported if name.startswith("__TVM")} - RUNTIME_POINTERS
    if strange := (asked - _C_SYMBOLS - _M_SYMBOLS) | unset:
        raise FormatError(
            f"object code calls {', '.join(sorted(strange))}, which nothing on a device provides: it may call libm, "
            f"{', '.join(sorted(_C_SYMBOLS))}, {WEIGHTS} and {', '.join(sorted(RUNTIME_SYMBOLS | RUNTIME_POINTERS))}"
        )
    return {"m": asked & _M_SYMBOLS, "c": asked & _C_SYMBOLS}


def runtime_library(target: Target) -> tuple[str, bytes]:
    """Name and content of the runtime library that a bundle carries for `target`: TVM's, or ours.

    TVM's own comes from the installed package, or for another machine from its wheel, which pip downloads once
    into `$NAS_CACHE` (else `~/.cache/nas`).

    Raises
    ------
    ConfigError : TVM is not installed, the wheel cannot be had, or nothing here compiles ours.
    """
    if target.runtime == "shim":
        return SHIM_NAME, shim_library(target)
    if "linux" not in target.triple or "android" in target.triple or target.architecture not in ("x86_64", "aarch64"):
        raise ConfigError(f"TVM has no wheel for {target.name} ({target.triple}): set its runtime to shim")
    if platform.machine() == target.architecture:
        return TVM_NAME, _installed_runtime()
    return TVM_NAME, _downloaded_runtime(target.architecture)


def shim_library(target: Target, *, tvm_names: bool = False) -> bytes:
    """Our runtime library (`runtime/execution/shim/shim.c`) for any target; the same bytes every time.

    tvm_names : whether libraries linked for TVM's runtime shall run with it too. It must then not share a process
    with TVM, whose own code would take its functions for TVM's.

    Raises
    ------
    ConfigError : nothing here compiles for this target.
    """
    with _folder() as folder:
        (folder / "shim.c").write_text(
            importlib.resources.files("runtime.execution").joinpath("shim/shim.c").read_text()
        )
        tools = toolchain(target)
        flags = ["-O2", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-fvisibility=hidden", "-fno-stack-protector",
                 "-fno-asynchronous-unwind-tables"]  # fmt: skip
        if target.architecture == "aarch64":
            flags.append("-mno-outline-atomics")
        if tvm_names:
            flags.append("-DNAS_TVM_NAMES")
        tools.compile("shim.c", "shim.o", *flags, folder=folder)
        tools.link(
            ["shim.o"],
            "out.so",
            exports="nas_*; TVM*" if tvm_names else "nas_*",
            uses=_SHIM_USES,
            soname=SHIM_NAME,
            folder=folder,
        )
        return (folder / "out.so").read_bytes()


def _installed_runtime() -> bytes:
    """The file of the installed TVM, which comes stripped."""
    found = importlib.util.find_spec("tvm")
    path = Path(found.origin).parent / "lib" / TVM_NAME if found and found.origin else None
    if path is None or not path.exists():
        raise ConfigError(f"TVM's {TVM_NAME} is not installed: run pip install 'nas-modeltree[compile]'")
    return path.read_bytes()


def _downloaded_runtime(machine: str) -> bytes:
    """The file out of the wheel of the same version for another machine."""
    wanted = f"apache-tvm=={importlib.metadata.version('apache-tvm')}"
    cache = Path(os.environ.get("NAS_CACHE", Path.home() / ".cache" / "nas")) / "runtime"
    kept = cache / f"{wanted.replace('==', '-')}-{machine}-{TVM_NAME}"
    if not kept.exists():
        with _folder() as folder:
            wheel = _download(wanted, machine, folder)
            with zipfile.ZipFile(wheel) as opened, written_whole(kept) as temporary:
                temporary.write_bytes(opened.read(f"tvm/lib/{TVM_NAME}"))
    return kept.read_bytes()


def _download(wanted: str, machine: str, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        f"--platform=manylinux_2_28_{machine}", f"--dest={folder}", wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ConfigError(
            f"cannot download the {machine} wheel of {wanted} for its {TVM_NAME}: {said}: go online once, "
            "or set the target's runtime to shim"
        )
    return wheels[0]


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the linker's files. Commands run in it with bare names, so that no path reaches the output."""
    with tempfile.TemporaryDirectory(prefix="nas-link-") as folder:
        yield Path(folder)
