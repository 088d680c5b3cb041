"""Running ARM libraries on this machine, under qemu's user emulation, with a C driver and our own runtime library."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from compile.machine_code.linking import shim_library
from compile.targets import TARGETS, Target
from modeltree.manifest import SHIM_NAME

HOW_TO_GET_IT = (
    "apt-get install qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross "
    "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
)
_PREFIX = {"aarch64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf"}
_EMULATOR = {"aarch64": "qemu-aarch64-static", "arm": "qemu-arm-static"}
_THERE = all(shutil.which(name) for name in [*_EMULATOR.values(), *(f"{prefix}-gcc" for prefix in _PREFIX.values())])

needs_qemu = [pytest.mark.qemu, pytest.mark.skipif(not _THERE, reason=HOW_TO_GET_IT)]
"""For `pytestmark`: the marker, and the skip that says how to get what it names."""


def run_under_qemu(
    target: Target, library: bytes, x: np.ndarray, out_shape: tuple[int, ...], *, threads: int = 2, repeats: int = 1
) -> np.ndarray:
    """What a block's library for an ARM target makes of `x` (float32), run `repeats` times.

    It runs with our runtime library whichever it was linked for, and on a Debian C library also when it is Android's.

    Raises
    ------
    RuntimeError : it cannot be loaded, or fails; carries the driver's or the block's message.
    """
    machine = target.architecture
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in [("driver", _driver(machine)), (SHIM_NAME, _shim(machine)), ("block.so", library)]:
            (folder / file).write_bytes(content)
        (folder / "driver").chmod(0o755)
        for file, content in _android_names(machine).items() if "android" in target.triple else ():
            (folder / file).write_bytes(content)
        np.ascontiguousarray(x, np.float32).tofile(folder / "x")
        shapes = [",".join(map(str, shape)) for shape in (x.shape, out_shape)]
        command = [
            _EMULATOR[machine], "-cpu", "max", "-L", f"/usr/{_PREFIX[machine]}", "-E", "LD_LIBRARY_PATH=.",
            "./driver", f"./{SHIM_NAME}", "./block.so", "x", "y", str(threads), str(repeats), *shapes,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
        if done.returncode:
            raise RuntimeError(f"{target.name} under qemu, status {done.returncode}: {done.stderr.strip()}")
        return np.fromfile(folder / "y", np.float32).reshape(out_shape)


@functools.cache
def _driver(machine: str) -> bytes:
    return _built(machine, "driver", str(Path(__file__).with_name("driver.c")), "-O1", "-Wall", "-Werror", "-ldl")


@functools.cache
def _shim(machine: str) -> bytes:
    """Our runtime library under TVM's names as well, for Debian's C library."""
    return shim_library(TARGETS["pi3" if machine == "arm" else "pi4"], tvm_names=True)


@functools.cache
def _android_names(machine: str) -> dict[str, bytes]:
    """Libraries that go by Android's names for the C library and lead on to Debian's."""
    flags = ["-shared", "-nostartfiles", "-Wl,--no-as-needed"]
    return {
        f"lib{name}.so": _built(machine, f"lib{name}.so", *flags, f"-Wl,-soname,lib{name}.so", f"-l{name}")
        for name in ("m", "c")
    }


def _built(machine: str, out: str, *arguments: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{_PREFIX[machine]}-gcc", *arguments, "-o", f"{folder}/{out}"], check=True)
        return Path(folder, out).read_bytes()
