"""When bytes get through a link: the trace's changing rate, and the faults over it. Pure; time comes with the call."""

import math
from dataclasses import dataclass, replace

import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.units import bytes_per_ms, s_from_ms

FOREVER_S = 1e9
"""How long the last value holds on a trace that does not loop."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is wrong with the link just now; the default is nothing.

    black_hole : connections are accepted and their bytes vanish. A connection that lost some is reset when this ends,
        since no stream may go on with a hole in it.
    rate_mbps : instead of the trace's; 0 holds bytes back, and they go on when it is lifted. None: the trace.
    extra_ms : delay on top, one way.
    corrupt_share : chance that a packet gets one bit flipped.
    truncate_bytes : a connection carries so many more bytes one way, counted from now or from its start, then ends.
        None: no limit.
    """

    black_hole: bool = False
    rate_mbps: float | None = None
    extra_ms: float = 0.0
    corrupt_share: float = 0.0
    truncate_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.rate_mbps is not None and not 0 <= self.rate_mbps < math.inf:
            raise ConfigError(f"rate_mbps is {self.rate_mbps}: it must be finite and at least 0, or None for the trace")
        if not (0 <= self.extra_ms < math.inf and 0 <= self.corrupt_share <= 1):
            raise ConfigError(
                f"extra_ms is {self.extra_ms} and corrupt_share {self.corrupt_share}: the delay must be finite and at "
                "least 0, the share in 0..1"
            )
        if self.truncate_bytes is not None and self.truncate_bytes < 0:
            raise ConfigError(f"truncate_bytes is {self.truncate_bytes}: it must be at least 0, or None for no limit")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A trace laid on a clock that starts at 0.

    offset_s : where in the trace it starts. loop : False: the last value holds after the end.
    """

    trace: Trace
    offset_s: float = 0.0
    loop: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.offset_s < math.inf:
            raise ConfigError(f"offset_s is {self.offset_s}: it must be finite and at least 0")
        if not self.loop:
            object.__setattr__(self, "trace", replace(self.trace, end_s=float(self.trace.time_s[-1]) + FOREVER_S))

    def one_way_s(self, now_s: float) -> float:
        """Half the trace's round trip at a time."""
        return s_from_ms(self.trace.rtt_at(self.offset_s + now_s) / 2)

    def mbps(self, now_s: float) -> float:
        """The rate at a time."""
        return self.trace.at(self.offset_s + now_s)

    def through_s(self, size_bytes: float, start_s: float, faults: Faults) -> float:
        """When the last byte is through if the first enters at `start_s`; infinity where the rate is set to 0."""
        if faults.rate_mbps is None:
            return start_s + s_from_ms(self.trace.transfer_ms(size_bytes, self.offset_s + start_s))
        if faults.rate_mbps == 0:
            return math.inf
        return start_s + s_from_ms(size_bytes / bytes_per_ms(faults.rate_mbps))

    def steps(self, until_s: float) -> list[tuple[float, float]]:
        """(time, Mbit/s) of every change from 0 to `until_s`, for those that set a rate instead of asking for it."""
        trace, found = self.trace, [(0.0, self.mbps(0.0))]
        loop = math.floor(self.offset_s / trace.end_s)
        while loop * trace.end_s - self.offset_s <= until_s:
            times = trace.time_s + (loop * trace.end_s - self.offset_s)
            inside = np.flatnonzero((times > 0) & (times <= until_s))
            found += [(float(times[i]), float(trace.bandwidth_mbps[i])) for i in inside]
            loop += 1
        return found
