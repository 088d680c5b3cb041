"""The relay of a field run in a process of its own, so that neither device nor server shares an interpreter with it.

Standard input brings one line of JSON (a `RelayTask`), then the moment at which the trace begins, on CLOCK_MONOTONIC.
Until then the rate is the one that the trace begins with. It ends when standard input does, or at SIGTERM.
"""

import json
import signal
import sys
import time

import msgspec
import numpy as np

from modeltree.link.traces import Trace
from runtime.link import Faults, Relay, Shape


class RelayTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to, and how fast; as in `Trace`, `rtts_ms` empty where it does not change."""

    host: str
    port: int
    time_s: tuple[float, ...]
    bandwidth_mbps: tuple[float, ...]
    end_s: float
    rtt_ms: float
    rtts_ms: tuple[float, ...] = ()
    offset_s: float = 0.0

    @property
    def shape(self) -> Shape:
        """The link."""
        trace = Trace(
            name="field", origin="field run", time_s=np.array(self.time_s),
            bandwidth_mbps=np.array(self.bandwidth_mbps), end_s=self.end_s, rtt_ms=self.rtt_ms,
            rtts_ms=np.array(self.rtts_ms) if self.rtts_ms else None,
        )  # fmt: skip
        return Shape(trace=trace, offset_s=self.offset_s)


def main() -> None:
    """Relay until standard input ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    task = msgspec.json.decode(sys.stdin.readline(), type=RelayTask)
    with Relay((task.host, task.port), up=task.shape) as relay:
        relay.fault(Faults(rate_mbps=task.shape.mbps(0.0)))
        sys.stdout.write(f"{relay.address[1]}\n")
        sys.stdout.flush()
        begins_s = sys.stdin.readline()
        if not begins_s:
            return
        time.sleep(max(0.0, float(json.loads(begins_s)) - time.monotonic()))
        relay.heal()
        relay.rewind()
        sys.stdin.read()
