"""A tile for every kernel: timed where the target's code runs, reckoned where it does not.

Timing takes the few tiles that the schedule thinks best, each built alone and run on random numbers; what was found is
kept by the kernel's key, the target and the versions.
"""

import hashlib
import os
import time
from pathlib import Path

import msgspec
import numpy as np
import tvm

from compile.graph.kernels import Buffer, Constant, Kernel, Tile
from compile.machine_code.codegen import built, generated
from compile.machine_code.linking import link
from compile.machine_code.memory_planning import ENTRY
from compile.remote import RemoteDevice
from compile.targets import Target
from modeltree.files import write_bytes

ROUNDS = 5
SECONDS_A_ROUND = 0.006
_RECIPE = 9
"""Raise when kernels of the same key change their code."""


class TuningCache:
    """Tiles found before, in one JSON file (in memory only without a path). Damaged files count as empty."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.tiles: dict[str, dict[str, int]] = {}
        self._stored = 0
        if path is not None and path.exists():
            try:
                self.tiles = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, int]])
            except (msgspec.MsgspecError, UnicodeDecodeError, OSError):
                self.tiles = {}
        self._stored = len(self.tiles)

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if self.path is not None and len(self.tiles) > self._stored:
            write_bytes(self.path, msgspec.json.format(msgspec.json.encode(self.tiles, order="sorted"), indent=1))
            self._stored = len(self.tiles)


def tuned(kernel: Kernel, target: Target, cache: TuningCache, device: RemoteDevice | None = None) -> Tile:
    """The fastest of the kernel's tiles: as timed before, timed now (here or on `device`), or else the first."""
    if len(kernel.tiles) == 1:
        return kernel.tiles[0]
    key = _key(kernel, target)
    known = next((tile for tile in kernel.tiles if dict(tile) == cache.tiles.get(key)), None)
    if known is not None:
        return known
    if device is None and not target.runs_here:
        return kernel.tiles[0]
    seconds = timed(kernel, target) if device is None else timed_there(kernel, device)
    best = min(seconds.items(), key=lambda found: found[1])[0]
    cache.tiles[key] = dict(best)
    return best


def timed(kernel: Kernel, target: Target) -> dict[Tile, float]:
    """Seconds a call of every tile: the least of several rounds, in turns."""
    for name, value in (("TVM_NUM_THREADS", str(target.threads)), ("TVM_BIND_THREADS", "0")):
        os.environ.setdefault(name, value)  # read when TVM's pool starts; it would take half of the processors
    functions = {}
    for i, tile in enumerate(kernel.tiles):
        functions[tvm.ir.GlobalVar(f"f{i}")] = kernel.function(tile, private=False, name=f"f{i}")
    library = built(tvm.IRModule(functions), target)
    own = [tvm.runtime.tensor(array) for array in _arrays(kernel)]
    given = [[*own, *map(tvm.runtime.tensor, _scratch(kernel, tile))] for tile in kernel.tiles]
    calls = [library[f"f{i}"] for i in range(len(kernel.tiles))]
    repeats = []
    for call, arguments in zip(calls, given):
        call(*arguments)
        started = time.perf_counter()
        call(*arguments)
        repeats.append(max(1, int(SECONDS_A_ROUND / max(time.perf_counter() - started, 1e-6))))
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            started = time.perf_counter()
            for _ in range(repeats[i]):
                call(*given[i])
            best[i] = min(best[i], (time.perf_counter() - started) / repeats[i])
    return dict(zip(kernel.tiles, best))


def timed_there(kernel: Kernel, device: RemoteDevice) -> dict[Tile, float]:
    """The same on a device elsewhere, every tile in a library of its own."""
    tensors = device.tensors(_arrays(kernel))
    found = {}
    for tile in kernel.tiles:
        module = tvm.IRModule({tvm.ir.GlobalVar(ENTRY): kernel.function(tile, private=False, name=ENTRY)})
        code, _ = generated(module, device.target, listing=False)
        given = [*tensors, *device.tensors(_scratch(kernel, tile))]
        found[tile] = device.seconds(device.load(link(code, b"", device.target)), ENTRY, given, repeats=ROUNDS)
    return found


def _arrays(kernel: Kernel) -> list[np.ndarray]:
    """Random inputs, the kernel's own constants, and a place for the output."""
    rng = np.random.default_rng(0)
    found = []
    for position, buffer in enumerate(kernel.buffers):
        given = kernel.arguments[position] if position < len(kernel.arguments) else None
        found.append(given.array.reshape(buffer.shape) if isinstance(given, Constant) else _random(rng, buffer))
    return found


def _scratch(kernel: Kernel, tile: Tile) -> list[np.ndarray]:
    return [np.zeros(buffer.shape, np.float32) for buffer in kernel.parameters(tile)[len(kernel.buffers) :]]


def _random(rng: np.random.Generator, buffer: Buffer) -> np.ndarray:
    """Numbers of a feature map; narrow types as codes that mean harmless ones."""
    numbers = rng.standard_normal(buffer.shape, np.float32)
    return numbers if buffer.dtype == "float32" else np.full(buffer.shape, 1, buffer.dtype)


def _key(kernel: Kernel, target: Target) -> str:
    described = repr((_RECIPE, tvm.__version__, kernel.key, msgspec.json.encode(target)))
    return f"{kernel.name}-{hashlib.sha256(described.encode()).hexdigest()[:24]}"
