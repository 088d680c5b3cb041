"""One door to the planners of operator graphs: what is asked, what came out, and how far it may be from the best."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeltree.errors import GraphError, unknown
from nas.decisions.placement.graphs.contiguous import lower_bound, smallest_load
from nas.decisions.placement.graphs.contraction import contract
from nas.decisions.placement.graphs.cost import loads, violations
from nas.decisions.placement.graphs.graph_file import OperatorGraph
from nas.decisions.placement.graphs.ideals import TooManyIdeals, enumerate_ideals, sample_ideals
from nas.decisions.placement.graphs.latency import Timing, latency_bound, short_latency
from nas.decisions.placement.graphs.scattered import small_load

OBJECTIVES = ("load", "latency")
_CLOSE = 1e-6
_PROGRAMME = 12_000
"""Variables above which the integer programme is not tried: it would not get anywhere in its time."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A placement of an operator graph.

    objective : the largest load, or the time of one sample, in the unit of the file.
    device_of : device by node id; accelerators first, then CPUs.
    bound : no placement of this kind gets below.
    exact : whether `objective` is proved to be the best.
    """

    graph: OperatorGraph
    objective: float
    device_of: Mapping[int, int]
    bound: float
    exact: bool

    def name(self, device: int) -> str:
        """What a device is called: fpga0, fpga1, ..., cpu0, ..."""
        fast = self.graph.accelerators
        return f"fpga{device}" if device < fast else f"cpu{device - fast}"

    def to_json(self) -> dict[str, Any]:
        """As `nas place --json` prints it; `fpgas` and `cpus` have the form of the public programs' output."""
        load = loads(self.graph, self.device_of)

        def held(devices: range) -> list[dict[str, Any]]:
            return [
                {"load": load.get(d, 0.0), "nodes": sorted(node for node, on in self.device_of.items() if on == d)}
                for d in devices
            ]

        fast, every = self.graph.accelerators, self.graph.accelerators + max(self.graph.cpus, 1)
        return {
            "objective": self.objective,
            "placement": {str(node): self.name(device) for node, device in sorted(self.device_of.items())},
            "bound": self.bound,
            "exact": self.exact,
            "fpgas": held(range(fast)),
            "cpus": held(range(fast, every)),
        }


def solve(
    graph: OperatorGraph,
    *,
    objective: str,
    contiguous: bool,
    seconds: float = 20.0,
    clock: Callable[[], float] = time.monotonic,
) -> Solution:
    """Place an operator graph; `seconds` limits what is searched, not what is computed exactly.

    Raises
    ------
    ConfigError : the objective is unknown.
    GraphError : nothing fits.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if objective == "latency":
        return _latency(graph, contiguous=contiguous, seconds=seconds, clock=clock)
    return _contiguous(graph) if contiguous else _scattered(graph, seconds=seconds, clock=clock)


def _contiguous(graph: OperatorGraph) -> Solution:
    groups = contract(graph)
    try:
        ideals, exact = enumerate_ideals(groups), True
    except TooManyIdeals:
        ideals, exact = sample_ideals(groups, np.random.default_rng(0)), False
    placement = smallest_load(graph, ideals)
    value = max(loads(graph, placement).values())
    return _checked(graph, value, placement, value if exact else lower_bound(groups), contiguous=True)


def _scattered(graph: OperatorGraph, *, seconds: float, clock: Callable[[], float]) -> Solution:
    groups = contract(graph, fuse_circles=False)
    try:
        start: dict[int, int] | None = dict(_contiguous(graph).device_of)
    except GraphError:
        start = None
    placement = small_load(graph, start=start, seconds=seconds / 2, clock=clock)
    value, bound = max(loads(graph, placement).values()), lower_bound(groups)
    from nas.decisions.placement.graphs.integer_programme import programme  # scipy: slow to import

    size = (len(groups) + len(groups.nets)) * (graph.accelerators + graph.cpus)
    if value > bound * (1 + _CLOSE) and size <= _PROGRAMME:
        proved, better = programme(graph, upper=value, seconds=seconds / 2)
        bound = max(bound, min(proved, value))
        if better is not None and not violations(graph, better, contiguous=False):
            exchanged = max(loads(graph, better).values())
            placement, value = (better, exchanged) if exchanged < value else (placement, value)
    return _checked(graph, value, placement, bound, contiguous=False)


def _latency(graph: OperatorGraph, *, contiguous: bool, seconds: float, clock: Callable[[], float]) -> Solution:
    placement = short_latency(graph, contiguous=contiguous, seconds=seconds, clock=clock)
    return _checked(graph, Timing(graph).latency(placement), placement, latency_bound(graph), contiguous=False)


def _checked(
    graph: OperatorGraph, value: float, placement: Mapping[int, int], bound: float, *, contiguous: bool
) -> Solution:
    problems = violations(graph, placement, contiguous=contiguous)
    assert not problems, problems
    return Solution(
        graph=graph, objective=value, device_of=placement, bound=bound, exact=value <= bound * (1 + _CLOSE) + _CLOSE**2
    )
