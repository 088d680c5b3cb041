"""What this machine can do: multiply-adds a second from registers, bytes a second from memory.

Both are measured by kernels of our own (TIR through `compile.machine_code.codegen`), so that what limits our
compiler limits them as well. A network's roofline time is the larger of its multiply-adds at the one and its
weights at the other.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGE_BYTES = 1 << 28
_ROUNDS = 7
_SECONDS_A_ROUND = 0.05
_STEPS = 65536
_STREAMS = 8


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Of one thread count.

    gflops : float32, a multiply-add counted as two. stream_gbps : bytes of a buffer -> 10**9 bytes a second, reading
    it again and again (one that fits a cache is read from there).
    """

    threads: int
    gflops: float
    stream_gbps: dict[int, float]

    def roofline_ms(self, macs: int, weight_bytes: int) -> float:
        """Least time for so many multiply-adds in float32 and so many bytes of weights."""
        return max(2 * macs / self.gflops, weight_bytes / self.stream_gbps[weight_bytes]) * 1e-6


class Machine:
    """This machine, with so many threads. TVM reads the number from the environment, so it is a process's own."""

    def __init__(self, threads: int) -> None:
        from compile.targets import host

        self.threads, self.target = threads, host()

    def ceilings(self, sizes_bytes: Iterable[int], rounds: int = _ROUNDS) -> Ceilings:
        """Measured now; the best of several rounds each, since anything else on the machine only slows it down."""
        stream = {size: self._stream(size, rounds) for size in sorted({*sizes_bytes, LARGE_BYTES})}
        return Ceilings(threads=self.threads, gflops=self._peak(rounds), stream_gbps=stream)

    def _peak(self, rounds: int) -> float:
        import tvm

        lanes, vectors = self.target.lanes, self.target.registers * 3 // 4
        call = _built(peak_kernel(self.threads, lanes, vectors), self.target)
        rng = np.random.default_rng(0)
        factors = rng.uniform(0.9, 0.99, (2, lanes)).astype(np.float32)
        arguments = [tvm.runtime.tensor(factors), tvm.runtime.empty((self.threads, lanes), "float32")]
        return self.threads * _STEPS * vectors * lanes * 2 / _best_seconds(call, arguments, rounds) / 1e9

    def _stream(self, size_bytes: int, rounds: int) -> float:
        import tvm

        lanes = self.target.lanes
        steps = max(1, size_bytes // (4 * lanes * _STREAMS * self.threads))
        call = _built(stream_kernel(self.threads, steps, lanes), self.target)
        x = np.ones((self.threads, steps, _STREAMS * lanes), np.float32)
        arguments = [tvm.runtime.tensor(x), tvm.runtime.empty((self.threads, lanes), "float32")]
        return x.nbytes / _best_seconds(call, arguments, rounds) / 1e9


def peak_kernel(threads: int, lanes: int, vectors: int) -> Any:
    """y = a y + b over and over, in `vectors` registers that do not wait for each other, on every thread."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T

    from compile.schedules.emit import registers, tasks
    from compile.vectors import lanes_at, spread

    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        x, y = T.arg("x", T.buffer((2, lanes), "float32")), T.arg("y", T.buffer((threads, lanes), "float32"))
        T.func_attr({"tirx.noalias": True})
        with tasks(threads, parallel=True) as task:
            sums = registers((vectors * lanes,))
            slots = [lanes_at(i * lanes, lanes) for i in range(vectors)]
            for i, slot in enumerate(slots):
                T.buffer_store(sums, spread(float(i), lanes), [slot])
            with T.serial(_STEPS):
                for slot in slots:
                    T.buffer_store(sums, sums[slot] * x[0, lanes_at(0, lanes)] + x[1, lanes_at(0, lanes)], [slot])
            _store_sum(y, sums, slots, task, lanes)
    return builder.get()


def stream_kernel(threads: int, steps: int, lanes: int) -> Any:
    """The sum of all of x, every thread over its own part."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T

    from compile.schedules.emit import registers, tasks
    from compile.vectors import lanes_at, spread

    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        x = T.arg("x", T.buffer((threads, steps, _STREAMS * lanes), "float32"))
        y = T.arg("y", T.buffer((threads, lanes), "float32"))
        T.func_attr({"tirx.noalias": True})
        with tasks(threads, parallel=True) as task:
            sums = registers((_STREAMS * lanes,))
            slots = [lanes_at(i * lanes, lanes) for i in range(_STREAMS)]
            for slot in slots:
                T.buffer_store(sums, spread(0.0, lanes), [slot])
            with T.serial(steps) as step:
                for slot in slots:
                    T.buffer_store(sums, sums[slot] + x[task, step, slot], [slot])
            _store_sum(y, sums, slots, task, lanes)
    return builder.get()


def _store_sum(y: Any, sums: Any, slots: list[Any], task: Any, lanes: int) -> None:
    """So that no compiler may leave the work out."""
    from tvm.tirx.script.builder import ir as T

    from compile.vectors import lanes_at

    total = sums[slots[0]]
    for slot in slots[1:]:
        total = total + sums[slot]
    T.buffer_store(y, total, [task, lanes_at(0, lanes)])


def _built(function: Any, target: Any) -> Any:
    import tvm

    from compile.machine_code.codegen import built

    return built(tvm.IRModule({tvm.ir.GlobalVar("kernel"): function}), target)["kernel"]


def _best_seconds(call: Any, arguments: list[Any], rounds: int) -> float:
    call(*arguments)
    began = time.perf_counter()
    call(*arguments)
    calls = max(1, int(_SECONDS_A_ROUND / max(time.perf_counter() - began, 1e-6)))
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            call(*arguments)
        best = min(best, (time.perf_counter() - began) / calls)
    return best
