"""Timing compiled stacks: on this machine in a process of its own, or on a device over TVM RPC.

Both answer the same calls: `add` compiles and loads a program, `burst` says how long a call takes just now.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from modeltree.errors import ConfigError, NasError
from nas.jobs.progress import Progress, silent

DRIFT = 0.05
"""A reference that has become slower or faster by more was throttled, or shared its machine."""
_WARM_S = 0.01


class Timer(Protocol):
    """Something that compiles and times programs."""

    def add(self, program: bytes) -> int:
        """Compile and load an exported program (`.pt2`); its number."""

    def burst(self, number: int, seconds: float) -> float:
        """Mean seconds of a call, over calls back to back for about so long."""


class LocalTimer:
    """This machine. Make it in a process with TVM_NUM_THREADS set, so that tiles are tuned as they are used."""

    def __init__(self, target: Any, threads: int, tiles: Path | None, weights: str = "f32") -> None:
        self._threads, self._compiler = threads, _Compiler(target, tiles, weights)
        self._calls: list[Callable[[], object]] = []

    def add(self, program: bytes) -> int:
        from runtime.execution.library import Library

        made = self._compiler.compiled(program)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "block.so")
            path.write_bytes(made.library)
            library = Library(path, shape_in=made.input_shape, shape_out=made.output_shape, threads=self._threads)
        x = np.random.default_rng(0).standard_normal(made.input_shape, np.float32)
        self._calls.append(lambda: library.run(x))
        return len(self._calls) - 1

    def burst(self, number: int, seconds: float) -> float:
        call = self._calls[number]
        until = time.perf_counter() + _WARM_S
        while time.perf_counter() < until:
            call()
        calls, began = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - began < seconds:
            call()
            calls += 1
        return (time.perf_counter() - began) / calls


class RemoteTimer:
    """A device that runs `python -m tvm.exec.rpc_server`, with a runtime of our version.

    Raises
    ------
    ConfigError : nobody answers, or the target has no TVM runtime.
    """

    def __init__(self, address: str, target: Any, threads: int, weights: str = "f32") -> None:
        from tvm import rpc

        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"address is {address!r}: it must be host:port, where tvm.exec.rpc_server listens")
        if target.runtime != "tvm":
            raise ConfigError(f"{target.name} has no TVM runtime, which RPC needs: name a target that has")
        try:
            self._session = rpc.connect(host, int(port), session_timeout=3600)
        except Exception as error:  # TVM raises its own types
            raise ConfigError(
                f"no RPC server answers at {address}: start python -m tvm.exec.rpc_server there"
            ) from error
        self._compiler = _Compiler(target, None, weights)
        self._session.get_function("runtime.config_threadpool")(1, threads)
        self._calls: list[tuple[Any, list[Any]]] = []

    def add(self, program: bytes) -> int:
        import tvm

        made = self._compiler.compiled(program)
        name = f"nas_{len(self._calls)}.so"
        self._session.upload(bytearray(made.library), target=name)
        device = self._session.cpu()
        x = np.random.default_rng(0).standard_normal(made.input_shape, np.float32)
        tensors = [tvm.runtime.tensor(x, device), tvm.runtime.empty(made.output_shape, "float32", device)]
        self._calls.append((self._session.load_module(name), tensors))
        return len(self._calls) - 1

    def burst(self, number: int, seconds: float) -> float:
        module, tensors = self._calls[number]
        milliseconds = max(1, int(1e3 * seconds))
        timed = module.time_evaluator("run", self._session.cpu(), number=1, repeat=1, min_repeat_ms=milliseconds)
        return float(timed(*tensors).mean)


class _Compiler:
    def __init__(self, target: Any, tiles: Path | None, weights: str) -> None:
        from compile.tuning import TuningCache

        self.weights = weights
        self.target, self.tiles = target, TuningCache(tiles)

    def compiled(self, program: bytes) -> Any:

        from compile.pipeline import compile_block
        from compile.program_file import read_program

        made = compile_block(read_program(program), self.target, weights=self.weights, cache=self.tiles)
        self.tiles.save()
        return made


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Median of the bursts, and the 95 % confidence interval of that median (bootstrap)."""

    ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, kw_only=True)
class Timings:
    """timings : per program. drift : of the reference, largest round over smallest, less one."""

    timings: tuple[Timing, ...]
    drift: float

    @property
    def throttled(self) -> bool:
        """Whether the machine changed its speed meanwhile."""
        return self.drift > DRIFT


def timed(
    timer: Timer, numbers: Sequence[int], *, rounds: int, burst_s: float, rng: np.random.Generator,
    progress: Progress = silent,
) -> Timings:  # fmt: skip
    """Every program in rounds over all of them, in a fresh order, so that a disturbance hits each a little.

    The first is the reference: it is timed again several times a round.
    """
    if not numbers:
        raise NasError("there is nothing to time")
    found: dict[int, list[float]] = {number: [] for number in numbers}
    reference: list[float] = []
    for done in range(rounds):
        progress(done, rounds, "timing")
        for position, number in enumerate(map(int, rng.permutation(list(numbers)))):
            if position % _REFERENCE_EVERY == 0:
                reference.append(timer.burst(numbers[0], burst_s))
            found[number].append(timer.burst(number, burst_s))
    progress(rounds, rounds, "timing")
    return Timings(timings=tuple(_timing(found[n], rng) for n in numbers), drift=_drift(reference))


_REFERENCE_EVERY = 16


def _drift(seconds: list[float]) -> float:
    """Largest of the running medians of three over the smallest, less one: a single disturbed burst is no drift."""
    smooth = [float(np.median(seconds[max(0, i - 1) : i + 2])) for i in range(len(seconds))]
    return max(smooth) / min(smooth) - 1


def _timing(seconds: list[float], rng: np.random.Generator, draws: int = 1000) -> Timing:
    values = np.array(seconds) * 1e3
    medians = np.median(rng.choice(values, (draws, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Timing(ms=float(np.median(values)), low_ms=float(low), high_ms=float(high))
