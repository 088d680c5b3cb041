"""Bandwidth types: the K kinds of link condition that a model tree forks on [Wang 2020, sec. VI]."""

import itertools
import math
from bisect import bisect_right
from typing import Literal

import msgspec
import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.units import s_from_ms

MIN_MBPS = 0.01
"""Least bandwidth a type may stand for. A link that is out for a quarter of the time has a lower quartile of 0, and
no latency is finite at 0; at 0.01 Mbit/s a kilobyte takes 0.8 s, so offloading is rightly hopeless there."""


class BandwidthTypes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """K bandwidth types, slowest first, and how the link moves between them from fork to fork.

    A type is a state of the link: its bandwidth, by which it is known, and the round trip that comes with it.

    representative_mbps : (K,), the quantiles (2k + 1) / 2K: for K = 2 the lower and upper quartile, as in the paper.
    edges_mbps : (K - 1,), where type k - 1 ends and type k begins: the quantiles k / K.
    transition : (K, K), transition[i][j] = chance of type j at the next fork after type i; rows sum to 1.
    initial : (K,), chance of each type at the first fork; sums to 1.
    rtt_ms : (K,), mean round trip while the link is of each type; empty, and not written, where it never changes.
    """

    representative_mbps: tuple[float, ...]
    edges_mbps: tuple[float, ...]
    transition: tuple[tuple[float, ...], ...]
    initial: tuple[float, ...]
    rtt_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        k = len(self.representative_mbps)
        if not k:
            raise ConfigError("there are 0 bandwidth types: there must be at least 1")
        shapes = {len(self.edges_mbps) + 1, len(self.initial), len(self.transition), *map(len, self.transition)}
        if shapes != {k}:
            raise ConfigError(f"{k} bandwidth types need {k - 1} edges, {k} initial chances and {k} x {k} transitions")
        if len(self.rtt_ms) not in (0, k) or not all(math.isfinite(v) and v >= 0 for v in self.rtt_ms):
            raise ConfigError(f"round trips of {k} types are {self.rtt_ms}: {k} finite ones from 0 up, or none")
        for name, values in (("representative_mbps", self.representative_mbps), ("edges_mbps", self.edges_mbps)):
            if not all(math.isfinite(v) and v >= 0 for v in values) or list(values) != sorted(values):
                raise ConfigError(f"{name} is {values}: it must be finite, at least 0 and not fall")
        if self.representative_mbps[0] < MIN_MBPS:
            raise ConfigError(f"a bandwidth type stands for {self.representative_mbps[0]} Mbit/s: at least {MIN_MBPS}")
        for row in (self.initial, *self.transition):
            if not (all(p >= 0 for p in row) and math.isclose(sum(row), 1, abs_tol=1e-6)):
                raise ConfigError(f"chances of the bandwidth types are {row}: they must be 0 or more and sum to 1")

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        k: int,
        *,
        forks: Literal["independent", "markov"] = "independent",
        step_ms: float = 20.0,
    ) -> "BandwidthTypes":
        """The K types of a trace, weighted by time.

        Values that hold for long can make an edge equal to the value below it; such an edge moves half-way to the value
        above, so that `match` gives every distinct representative its own type.

        forks : "independent": every type has chance 1/K at every fork, as the paper has it (a parent's reward is the
            mean of its children's); "markov": chances as in the trace, `step_ms` after one another, integrated exactly
            over the looping trace. A type that never occurs is followed by `initial`.
        step_ms : time from one fork to the next, for "markov".

        Raises
        ------
        ConfigError : k < 1, an unknown `forks`, or a step that is negative or not finite.
        """
        if k < 1:
            raise ConfigError(f"K is {k}: there must be at least 1 bandwidth type")
        if forks not in ("independent", "markov"):
            raise ConfigError(f"forks is {forks!r}: it must be independent or markov")
        if not (math.isfinite(step_ms) and step_ms >= 0):
            raise ConfigError(f"step_ms is {step_ms}: it must be finite and at least 0")
        levels = tuple(max(MIN_MBPS, trace.quantile((2 * i + 1) / (2 * k))) for i in range(k))
        edges = tuple(
            _between(low, trace.quantile((i + 1) / k), high) for i, (low, high) in enumerate(itertools.pairwise(levels))
        )
        if forks == "markov":
            initial, transition = _followers(trace, edges, s_from_ms(step_ms))
        else:
            initial = (1 / k,) * k
            transition = (initial,) * k
        return cls(
            representative_mbps=levels, edges_mbps=edges, transition=transition, initial=initial,
            rtt_ms=_round_trips(trace, edges),
        )  # fmt: skip

    @property
    def count(self) -> int:
        """K."""
        return len(self.representative_mbps)

    def match(self, mbps: float) -> int:
        """The type, 0..K-1, of a measured bandwidth; an edge belongs to the type above it. NaN is refused."""
        if math.isnan(mbps):
            raise ConfigError("the bandwidth to match is NaN: it must be a number; measure again")
        return bisect_right(self.edges_mbps, mbps)

    def chances(self, previous: int | None) -> tuple[float, ...]:
        """(K,): chance of each type at a fork, given the type at the fork before (None: the first fork)."""
        return self.initial if previous is None else self.transition[previous]


def _between(low: float, edge: float, high: float) -> float:
    """`edge` if it parts low from high under right-continuous matching, else the middle."""
    return edge if low < edge <= high or low == high else (low + high) / 2


def _round_trips(trace: Trace, edges: tuple[float, ...]) -> tuple[float, ...]:
    """Mean round trip while the link is of each type, the trace's usual one for a type that never is; () if it is
    always the same."""
    if trace.rtts_ms is None:
        return ()
    kinds = np.searchsorted(edges, trace.bandwidth_mbps, side="right")
    found = []
    for kind in range(len(edges) + 1):
        held_s = np.where(kinds == kind, trace.durations_s, 0.0)
        found.append(float(held_s @ trace.rtts_ms / held_s.sum()) if held_s.any() else trace.rtt_ms)
    return tuple(found)


def _followers(
    trace: Trace, edges: tuple[float, ...], step_s: float
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Share of time in each type, and for each type the shares of types `step_s` later; exact for a looping trace.

    Type now and type then are both constant between neighbouring points of {changes} and {changes - step}.
    """
    end = trace.end_s
    cuts = np.unique(np.concatenate([trace.time_s, (trace.time_s - step_s) % end, [0.0, end]]))
    middles, widths = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    now, then = (_types_at(trace, edges, time_s) for time_s in (middles, (middles + step_s) % end))
    k = len(edges) + 1
    together = np.bincount(now * k + then, weights=widths, minlength=k * k).reshape(k, k) / end
    initial = together.sum(axis=1)
    rows = [row / share if share > 0 else initial for row, share in zip(together, initial, strict=True)]
    return tuple(initial.tolist()), tuple(tuple(row.tolist()) for row in rows)


def _types_at(trace: Trace, edges: tuple[float, ...], time_s: np.ndarray) -> np.ndarray:
    """(times,): the bandwidth type at each time."""
    places = np.searchsorted(trace.time_s, time_s, side="right") - 1
    return np.searchsorted(edges, trace.bandwidth_mbps[places], side="right")
