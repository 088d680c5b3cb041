"""Which of a bundle's targets this machine serves with."""

import platform
from pathlib import Path

from modeltree.errors import ConfigError, unknown
from modeltree.manifest import Manifest, TargetEntry

_CPU_FLAGS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "x86-64-v3": {"avx2", "fma"},
}
_FEATURE_FLAGS = {"+avx512vnni": "avx512_vnni", "+avx512bf16": "avx512_bf16", "+dotprod": "asimddp"}
_ANDROID = "android"


def chosen_target(manifest: Manifest, name: str | None = None) -> str:
    """The target named, or the one that runs here: made for the cloud alone first, then the widest vectors.

    Raises
    ------
    ConfigError : no such target, or none that runs here.
    """
    if name is not None:
        if name not in manifest.targets:
            raise unknown("target", name, manifest.targets)
        return name
    machine, flags = platform.machine(), cpu_flags()
    found = [name for name, entry in manifest.targets.items() if runs_on(entry, machine, flags)]
    if not found:
        raise ConfigError(
            f"none of the targets {', '.join(manifest.targets)} runs on this machine ({machine}): "
            "compile the run with --cloud-target host here, or name one with --target"
        )
    return min(found, key=lambda name: _rank(name, manifest.targets[name]))


def runs_on(entry: TargetEntry, machine: str, flags: set[str]) -> bool:
    """Whether a Linux machine of this kind, with these processor flags, can run a target's libraries."""
    record = entry.record
    triple, features = str(record.get("triple", "")), record.get("features", ())
    architecture = triple.split("-")[0].replace("armv7a", "armv7l")
    needed = set(_CPU_FLAGS.get(str(record.get("cpu")), ()))
    if isinstance(features, tuple | list):
        needed |= {_FEATURE_FLAGS[one] for one in features if one in _FEATURE_FLAGS}
    return architecture == machine and "linux" in triple and _ANDROID not in triple and needed <= flags


def cpu_flags() -> set[str]:
    """What the kernel says that this processor can do; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    named = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return set(named[0]) if named else set()


def _rank(name: str, entry: TargetEntry) -> tuple[bool, int, str]:
    width = entry.record.get("vector_bits", 0)
    return "device" in entry.roles, -width if isinstance(width, int) else 0, name
