"""What this processor can do, against what a bundle's libraries need: asked before any of them is loaded.

A library of another processor ends a process with an illegal instruction, so a target says by its record (triple, cpu,
features) what it needs, and what it does not say clearly is refused.
"""

import importlib
import os
import platform
import struct
import sys
from pathlib import Path

from modeltree.errors import ConfigError, unknown
from modeltree.manifest import Manifest, TargetEntry

_X86_V2 = frozenset({"ssse3", "sse4_1", "sse4_2", "popcnt", "cx16"})
_X86_V3 = _X86_V2 | {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
_X86_V4 = _X86_V3 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_ARM_V8 = frozenset({"asimd"})
_ARM_V82 = _ARM_V8 | {"asimddp", "asimdhp"}
_CPUS: dict[str, frozenset[str]] = {
    "x86-64": frozenset(),
    "x86-64-v2": _X86_V2,
    **dict.fromkeys(("x86-64-v3", "haswell", "broadwell", "skylake", "znver1", "znver2", "znver3"), _X86_V3),
    **dict.fromkeys(("x86-64-v4", "skylake-avx512"), _X86_V4),
    **dict.fromkeys(("cascadelake", "icelake-server", "znver4"), _X86_V4 | {"avx512_vnni"}),
    **dict.fromkeys(("sapphirerapids", "znver5"), _X86_V4 | {"avx512_vnni", "avx512_bf16"}),
    **dict.fromkeys(("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"), _ARM_V8),
    **dict.fromkeys(("cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "neoverse-n1"), _ARM_V82),
    **dict.fromkeys(("cortex-a7", "cortex-a9", "cortex-a15"), frozenset({"neon"})),
}  # fmt: skip
"""Names that LLVM gives processors, and what its code for them needs; `generic` needs what its features say."""
_FEATURES = {
    "+neon": None, "+avx2": "avx2", "+fma": "fma", "+avx512vnni": "avx512_vnni", "+avx512bf16": "avx512_bf16",
    "+dotprod": "asimddp", "+fullfp16": "asimdhp", "+hwdiv": None, "+hwdiv-arm": "idiva",
}  # fmt: skip
_NUMPY = {
    "ssse3": "SSSE3", "sse4_1": "SSE41", "sse4_2": "SSE42", "popcnt": "POPCNT", "cx16": "CX16", "avx2": "AVX2",
    "fma": "FMA3", "bmi1": "BMI", "bmi2": "BMI2", "f16c": "F16C", "movbe": "MOVBE", "avx512f": "AVX512F",
    "avx512bw": "AVX512BW", "avx512vl": "AVX512VL", "avx512dq": "AVX512DQ", "avx512_vnni": "AVX512VNNI",
    "avx512_bf16": "AVX512BF16", "asimd": "ASIMD", "asimddp": "ASIMDDP", "asimdhp": "ASIMDHP", "neon": "NEON",
}  # fmt: skip
"""The kernel's name of a feature, and numpy's, which asks the processor itself."""


def chosen_target(manifest: Manifest, name: str | None = None) -> str:
    """The target named, or the one that runs here: made for the cloud alone first, then the widest vectors.

    Raises
    ------
    ConfigError : no such target, it does not run here, or none does.
    """
    if name is not None:
        check_runs_here(manifest, name)
        return name
    usable = [name for name, entry in manifest.targets.items() if not lacking(entry)]
    if not usable:
        raise ConfigError(
            f"none of the targets {', '.join(manifest.targets)} runs on this machine ({platform.machine()}): "
            "compile the run with --cloud-target host here, or name one with --target"
        )
    return min(usable, key=lambda name: _rank(name, manifest.targets[name]))


def check_runs_here(manifest: Manifest, name: str) -> None:
    """Refuse a target whose libraries this machine cannot run; called before any library is loaded.

    Raises
    ------
    ConfigError : no such target, or the machine lacks something; says what.
    """
    if name not in manifest.targets:
        raise unknown("target", name, manifest.targets)
    if missing := lacking(manifest.targets[name]):
        raise ConfigError(
            f"target {name} needs {', '.join(missing)}, which this machine ({platform.machine()}) has not: compile "
            "for a target that it has (nas compile --target), or name another of the bundle's"
        )


def lacking(
    entry: TargetEntry, *, machine: str | None = None, features: frozenset[str] | None = None,
    android: bool | None = None,
) -> list[str]:  # fmt: skip
    """What a target's libraries need and a machine has not, in words; empty where they run. By default, this machine.

    machine : as `platform.machine()` says. features : as the kernel names them.
    """
    record = entry.record
    triple, cpu, wanted = str(record.get("triple", "")), str(record.get("cpu", "")), record.get("features", ())
    machine = _machine() if machine is None else machine
    architecture = triple.partition("-")[0].replace("armv7a", "armv7l")
    if architecture != machine or "linux" not in triple:
        return [f"a {triple or 'nameless'} machine"]
    if ("android" in triple) != (_on_android() if android is None else android):
        return ["Android" if "android" in triple else "Linux other than Android"]
    have = processor_features() if features is None else features
    needed, strange = _needs(cpu, wanted)
    return strange + sorted(needed - have)


def _needs(cpu: str, wanted: object) -> tuple[set[str], list[str]]:
    """The features that a processor name and a list of features stand for, and those of them that are not known."""
    strange = [] if cpu == "generic" or cpu in _CPUS else [f"a processor of the unknown kind {cpu!r}"]
    needed = set(_CPUS.get(cpu, ()))
    for feature in wanted if isinstance(wanted, tuple | list) else ():
        if feature not in _FEATURES:
            strange.append(f"the unknown feature {feature!r}")
        elif (name := _FEATURES[feature]) is not None:
            needed.add(name)
    return needed, strange


def processor_features() -> frozenset[str]:
    """What this processor can do, by the kernel's names. Where numpy asked the processor itself, that counts."""
    features = _kernel_flags()
    for name, answer in _numpy_features().items():
        features = features | {name} if answer else features - {name}
    return features


def _kernel_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    named = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(named[0]) if named else frozenset()


def _numpy_features() -> dict[str, bool]:
    """The kernel's name -> whether the processor has it, for what this numpy knows of this architecture."""
    try:
        known = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return {}
    ours = "ASIMD" if _machine() in ("aarch64", "armv7l") else "SSE"
    if not known.get(ours, known.get("NEON", False)):  # a numpy that asks nothing here
        return {}
    foreign = {"asimd", "asimddp", "asimdhp", "neon"} if ours == "SSE" else set()
    return {name: bool(known[theirs]) for name, theirs in _NUMPY.items() if theirs in known and name not in foreign}


def _machine() -> str:
    """The architecture of this process: on a 64-bit kernel it may be the 32-bit one."""
    machine = platform.machine()
    return "armv7l" if machine == "aarch64" and struct.calcsize("P") == 4 else machine


def _on_android() -> bool:
    return hasattr(sys, "getandroidapilevel") or "ANDROID_ROOT" in os.environ


def _rank(name: str, entry: TargetEntry) -> tuple[bool, int, str]:
    width = entry.record.get("vector_bits", 0)
    return "device" in entry.roles, -width if isinstance(width, int) else 0, name
