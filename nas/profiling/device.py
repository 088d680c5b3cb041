"""Where a profile is measured: this machine, in a process of its own, or a device over RPC; and how that is told."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from compile.targets import Target
from modeltree.errors import ConfigError
from nas.bench.processes import Child
from nas.jobs.machine import load_average, processor, today, versions
from nas.profiling.timing import LocalTimer, RemoteTimer, Timer

_PACKAGES = ("apache-tvm", "apache-tvm-ffi")


class _Elsewhere:
    """A timer in another process."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def add(self, program: bytes) -> int:
        return int(self._child.call("add", program))

    def burst(self, number: int, seconds: float) -> float:
        return float(self._child.call("burst", number, seconds))


@contextlib.contextmanager
def open_timer(
    target: Target, threads: int, *, rpc: str | None = None, tiles: Path | None = None, weights: str = "f32"
) -> Iterator[Timer]:  # fmt: skip
    """A timer for a target. tiles : file with tuned tiles, for this machine. weights : number format of all it times.

    Raises
    ------
    ConfigError : the target does not run here and no device is named, or nobody answers there.
    """
    if rpc is not None:
        yield RemoteTimer(rpc, target, threads, weights)
        return
    if not target.runs_here:
        raise ConfigError(f"{target.name} does not run on this machine: pass --rpc host:port of one, or --target host")
    environment = {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0", "OMP_NUM_THREADS": str(threads)}
    with Child(LocalTimer, target, threads, tiles, weights, environment=environment) as child:
        yield _Elsewhere(child)


def provenance(target: Target, threads: int, *, rpc: str | None, rounds: int) -> str:
    """What a profile's `origin` says."""
    where = f"the device at {rpc} (target {target.name})" if rpc else processor()
    said = ", ".join(f"{name} {version}" for name, version in versions(_PACKAGES).items())
    jpeg = "; JPEG measured on the machine that asked" if rpc else ""
    return (
        f"Measured by nas profile on {where}, threads: {threads}, {today()}, {said}: stacks of layers through our own "
        f"compiled kernels, median of {rounds} rounds, load average {load_average():.1f} before; fitted by non-"
        f"negative least squares on relative error{jpeg}"
    )
