"""Targets: the machines that libraries are made for, each a small record.

A schedule asks a target for its vector width and its registers, never for its name; the linker asks for its triple.
"""

import platform
from pathlib import Path

import msgspec

from modeltree.errors import ConfigError, DataError, FormatError, unknown

FLOAT_BITS = 32


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine to compile for.

    triple, cpu, features : as LLVM names them (`-march` and friends); features are `+name` or `-name`.
    linker : `lld` (ziglang's, for any target) or `cc` (this machine's own compiler, for libraries of its own kind).
    vector_bits : width of a vector register. registers : how many there are.
    threads : that the library is laid out for; the runtime may use fewer.
    cache_bytes : that a thread has of the last cache which is fast: its own, or its share of one for several.
    dot : dot-product instructions that may be used: `vnni`, `bf16` (x86), `sdot` (ARM).
    runtime : which runtime library goes with it: `tvm` (the wheel's) or `shim` (ours, where there is no wheel).

    Raises
    ------
    ConfigError : a number is out of its range.
    """

    name: str
    description: str
    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    linker: str = "lld"
    vector_bits: int = 128
    registers: int = 32
    threads: int = 1
    cache_bytes: int = 256_000
    dot: tuple[str, ...] = ()
    runtime: str = "tvm"

    def __post_init__(self) -> None:
        if self.vector_bits not in (128, 256, 512):
            raise ConfigError(f"vector_bits of {self.name} is {self.vector_bits}: it must be 128, 256 or 512")
        if not 8 <= self.registers <= 64:
            raise ConfigError(f"registers of {self.name} is {self.registers}: it must be within 8..64")
        if not 1 <= self.threads <= 256:
            raise ConfigError(f"threads of {self.name} is {self.threads}: it must be within 1..256")
        if not 16_000 <= self.cache_bytes <= 1_000_000_000:
            raise ConfigError(f"cache_bytes of {self.name} is {self.cache_bytes}: it must be within 16000..1000000000")
        if known := set(self.dot) - {"vnni", "bf16", "sdot"}:
            raise ConfigError(f"dot of {self.name} has {sorted(known)}: known are bf16, sdot, vnni")
        if self.linker not in ("lld", "cc"):
            raise ConfigError(f"linker of {self.name} is {self.linker!r}: it must be lld or cc")
        if self.runtime not in ("tvm", "shim"):
            raise ConfigError(f"runtime of {self.name} is {self.runtime!r}: it must be tvm or shim")

    @property
    def lanes(self) -> int:
        """float32 numbers in a vector register."""
        return self.vector_bits // FLOAT_BITS

    @property
    def architecture(self) -> str:
        """x86_64, aarch64 or arm."""
        return self.triple.split("-")[0].replace("armv7l", "arm").replace("armv7a", "arm")

    @property
    def runs_here(self) -> bool:
        """Whether a library for it can be loaded on this machine."""
        same = platform.system() == "Linux" and platform.machine() == self.architecture
        return same and self.runtime == "tvm" and _missing(self) == set()

    def llvm(self) -> dict[str, object]:
        """The target as TVM takes it."""
        options: dict[str, object] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu, "opt-level": 3}
        if self.features:
            options["mattr"] = list(self.features)
        if self.architecture == "arm":
            options["mfloat-abi"] = "hard"
        return options


_AARCH64 = "aarch64-unknown-linux-gnu"
_X86 = "x86_64-unknown-linux-gnu"

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="pi3", description="Raspberry Pi 2 and 3 with 32-bit Linux: Cortex-A53 or A7, NEON",
            # cortex-a9: for a7 and a53 LLVM multiplies and adds apart and spills, 450 instructions for 96 products
            triple="armv7l-unknown-linux-gnueabihf", cpu="cortex-a9",
            features=("+neon", "+hwdiv-arm", "+hwdiv"),
            vector_bits=128, registers=16, threads=4, cache_bytes=128_000, runtime="shim",
        ),
        Target(
            name="pi4", description="Raspberry Pi 4 with 64-bit Linux: Cortex-A72",
            triple=_AARCH64, cpu="cortex-a72", features=("+neon",),
            vector_bits=128, registers=32, threads=4,
        ),
        Target(
            name="pi5", description="Raspberry Pi 5: Cortex-A76 with dot products",
            triple=_AARCH64, cpu="cortex-a76", features=("+neon", "+dotprod", "+fullfp16"),
            vector_bits=128, registers=32, threads=4, cache_bytes=512_000, dot=("sdot",),
        ),
        Target(
            name="phone", description="Android phones of 2018 and later: arm64 with dot products",
            triple="aarch64-unknown-linux-android", cpu="cortex-a76", features=("+neon", "+dotprod", "+fullfp16"),
            vector_bits=128, registers=32, threads=4, dot=("sdot",), runtime="shim",
        ),
        Target(
            name="x86-64-v3", description="x86-64 with AVX2 and FMA (2013 and later)",
            triple=_X86, cpu="x86-64-v3", vector_bits=256, registers=16, threads=2, cache_bytes=256_000,
        ),
        Target(
            name="x86-64-v4", description="x86-64 with AVX-512 (servers of 2017 and later, Zen 4)",
            triple=_X86, cpu="x86-64-v4", vector_bits=512, registers=32, threads=2, cache_bytes=1_000_000,
        ),
    )
}  # fmt: skip
"""The targets that need no file; `host` is made by `host()`."""

_X86_CPUS = {512: "x86-64-v4", 256: "x86-64-v3", 128: "x86-64-v2"}
_NEEDED = {"x86-64-v4": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}, "x86-64-v3": {"avx2", "fma"}}
_DOT_FLAGS = {"avx512_vnni": ("vnni", "+avx512vnni"), "avx512_bf16": ("bf16", "+avx512bf16")}


def target_names() -> list[str]:
    """Names that `load_target` knows."""
    return ["host", *TARGETS]


def host() -> Target:
    """This machine, as the kernel describes it."""
    import os

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = _cpu_flags()
    if platform.machine() == "aarch64":
        dot = ("sdot",) if "asimddp" in flags else ()
        features = ("+neon", "+dotprod") if dot else ("+neon",)
        return Target(
            name="host", description="this machine", triple=_AARCH64, cpu="generic", features=features,
            threads=threads, dot=dot,
        )  # fmt: skip
    if platform.machine() != "x86_64":
        raise ConfigError(
            f"this machine is a {platform.machine()}: host is known for x86_64 and aarch64; name a target"
        )
    bits = 512 if flags >= _NEEDED["x86-64-v4"] else 256 if flags >= _NEEDED["x86-64-v3"] else 128
    found = [_DOT_FLAGS[flag] for flag in _DOT_FLAGS if flag in flags and bits == 512]
    return Target(
        name="host", description="this machine", triple=_X86, cpu=_X86_CPUS[bits],
        features=tuple(feature for _, feature in found), vector_bits=bits,
        registers=32 if bits == 512 else 16, threads=threads, cache_bytes=_cache_bytes(),
        dot=tuple(dot for dot, _ in found),
    )  # fmt: skip


def _cache_bytes() -> int:
    """Of the second level, as the kernel says; the default where it does not."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return min(max(int(text.removesuffix("K")) * 1024, 128_000), 4_000_000)
    except (OSError, ValueError):
        return 256_000


def load_target(name_or_path: str) -> Target:
    """A known target by name, `host`, or a JSON file with the fields of `Target`.

    Raises
    ------
    ConfigError : an unknown name. DataError : the file cannot be read. FormatError : it is not a target.
    """
    if name_or_path == "host":
        return host()
    if name_or_path in TARGETS:
        return TARGETS[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".json":
        raise unknown("target", name_or_path, [*target_names(), "a file.json"])
    try:
        return msgspec.json.decode(path.read_bytes(), type=Target)
    except OSError as error:
        raise DataError(f"cannot read target {path}: {error.strerror or error}: check the path") from error
    except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not a target: {error}: its fields are those of compile.targets.Target") from error


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    named = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return set(named[0]) if named else set()


def _missing(target: Target) -> set[str]:
    return _NEEDED.get(target.cpu, set()) - _cpu_flags()
