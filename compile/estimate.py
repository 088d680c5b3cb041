"""How long a library takes on a machine that is not here, reckoned: its kernels' cycles, and its weights' bytes.

A convolution's cycles are those by which its tile was chosen, two multiply-adds of a vector a cycle (`_cost` in
`schedules/convolution.py`); other kernels take one cycle for every vector that they read, write or multiply, and plain
loops one for every number. No cache, no memory but that of the weights, no launch. It is an estimate, and to compare
formats and blocks with one another rather than to promise milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compile.graph.kernels import Kernel
from compile.targets import Target


@dataclass(frozen=True, kw_only=True)
class Core:
    """ghz : clock. slower : cycles for what the schedules reckon as one. gbps : 10**9 bytes a second from memory."""

    ghz: float
    slower: float
    gbps: float


CORES = {
    "pi3": Core(ghz=1.2, slower=4.0, gbps=1.5),
    "pi4": Core(ghz=1.5, slower=2.0, gbps=3.0),
    "pi5": Core(ghz=2.4, slower=1.0, gbps=8.0),
    "phone": Core(ghz=2.8, slower=1.0, gbps=10.0),
}
"""By target. Clocks are the makers'; vectors of 128 bits are multiplied in two halves by a Cortex-A53 and once a cycle
by a Cortex-A72, twice by a Cortex-A76. Bandwidths are chosen: what one core of such a board is said to read."""


def kernel_cycles(kernel: Kernel, target: Target) -> float:
    """Of one thread."""
    if kernel.cycles:
        return kernel.cycles
    numbers = sum(math.prod(buffer.shape) for buffer in kernel.buffers)
    lanes = 1 if kernel.key[0] == "loops" else target.lanes
    return max(numbers, kernel.macs) / lanes


def estimated_ms(kernels: Sequence[Kernel], weight_bytes: int, target: Target) -> float | None:
    """Of a library on one thread of a target; None for a target whose core is not in `CORES`."""
    core = CORES.get(target.name)
    if core is None:
        return None
    cycles = core.slower * sum(kernel_cycles(kernel, target) for kernel in kernels)
    return max(cycles / core.ghz, weight_bytes / core.gbps) * 1e-6
