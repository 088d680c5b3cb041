"""The compiler and the linker that are at hand for a target: those within ziglang, or this machine's own.

`zig clang` and `zig ld.lld` are plain clang and lld: no cache, no C library, every target, 30 ms to start. Nothing is
linked against a C library's own files: what a library asks of it is known by name, and an empty library of the same
name stands in for it. So no version of it is asked for either, and no sysroot is needed.
"""

import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from compile.targets import Target
from modeltree.errors import ConfigError

_EMULATION = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux", "arm": "armelf_linux_eabi"}
_SONAMES = {"m": "libm.so.6", "c": "libc.so.6", "pthread": "libpthread.so.0"}
_ANDROID_SONAMES = {"m": "libm.so", "c": "libc.so", "pthread": "libc.so"}
_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Command lines of a compiler and a linker. driver : whether the linker is called through the compiler (`-Wl,`)."""

    compiler: tuple[str, ...]
    linker: tuple[str, ...]
    sonames: Mapping[str, str]
    driver: bool

    def compile(self, source: str, out: str, *flags: str, folder: Path) -> None:
        """Compile a C file, or one for the assembler, to an object file."""
        _call([*self.compiler, "-fPIC", *flags, "-c", source, "-o", out], folder)

    def link(
        self, objects: Iterable[str], out: str, *, exports: str, uses: Mapping[str, Iterable[str]],
        soname: str | None = None, folder: Path,
    ) -> None:  # fmt: skip
        """Link a shared library that shows `exports` (a pattern) only. uses : by library (m, c, pthread), the names."""
        (folder / "exports.map").write_text(f"{{ global: {exports}; local: *; }};\n")
        flags = [
            "--version-script=exports.map", "--gc-sections", "--strip-all", "--build-id=none", "--hash-style=gnu",
            "-z", "relro", "-z", "now", "-z", "noexecstack", "-z", "text", *(["-soname", soname] if soname else []),
        ]  # fmt: skip
        if self.driver:
            flags = [f"-Wl,{flag}" for flag in [*flags, "--as-needed"]]
            libraries = [f"-l{name}" for name in uses]
        else:
            libraries = [self._stand_in(self.sonames[name], names, folder) for name, names in uses.items() if names]
        _call([*self.linker, "-shared", *flags, *objects, *libraries, "-o", out], folder)

    def _stand_in(self, soname: str, names: Iterable[str], folder: Path) -> str:
        """An empty shared library with these names."""
        lines = [f".globl {name}\n.type {name}, %function\n{name}:\n" for name in sorted(names)]
        (folder / f"{soname}.S").write_text("".join([*lines, '.section .note.GNU-stack, "", %progbits\n']))
        self.compile(f"{soname}.S", f"{soname}.o", folder=folder)
        _call([*self.linker, "-shared", "-soname", soname, f"{soname}.o", "-o", soname], folder)
        return soname


def toolchain(target: Target) -> Toolchain:
    """What compiles and links for `target`.

    Raises
    ------
    ConfigError : there is nothing that could; says what to install.
    """
    sonames = _ANDROID_SONAMES if "android" in target.triple else _SONAMES
    zig = _zig()
    if target.linker == "lld" and zig and target.architecture in _EMULATION:
        return Toolchain(
            compiler=(zig, "clang", f"--target={target.triple}", "-Wno-unused-command-line-argument"),
            linker=(zig, "ld.lld", "-m", _EMULATION[target.architecture]), sonames=sonames, driver=False,
        )  # fmt: skip
    own = platform.system() == "Linux" and platform.machine() == target.architecture and "android" not in target.triple
    cc = shutil.which("cc") or shutil.which("gcc")
    if own and cc:
        return Toolchain(compiler=(cc,), linker=(cc, "-nostartfiles"), sonames=sonames, driver=True)
    if target.linker == "lld":
        raise ConfigError(f"nothing here links for {target.name}: run pip install ziglang (it is in the extra compile)")
    problem = "is not installed: install gcc" if own else "makes libraries for this machine only"
    raise ConfigError(f"{target.name} is to be linked by cc, which {problem}, or set its linker to lld")


def _zig() -> str | None:
    """The program within the package ziglang."""
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "zig"
    return str(program) if program.exists() else None


def _call(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{Path(command[0]).name} could not be run: {error}: reinstall ziglang or gcc") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:10])
        raise ConfigError(
            f"{' '.join([Path(command[0]).name, *command[1:2]])} failed with status {done.returncode}: {said}: "
            "check triple and cpu of the target"
        )
