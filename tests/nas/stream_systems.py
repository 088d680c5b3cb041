"""Small systems of a stream for tests: two exits, round numbers."""

import numpy as np

from modeltree.link.traces import Trace
from modeltree.streams.costs import Branch, LayerLines, Line, StreamCosts
from modeltree.streams.system import StreamSystem


def layer(name, device_ms, server_ms, out_bytes):
    return LayerLines(name=name, device_ms=Line(k=device_ms), server_ms=Line(k=server_ms), out_bytes=Line(k=out_bytes))


def small_costs(*, server_ms=1.0):
    """Exit 1: 2 ms an image on the device; exit 2: 10 ms, or 2 ms, 500 bytes (4 ms at 1 Mbit/s) and the server."""
    first, head, second = (
        layer("first", 2.0, 1.0, 500.0), layer("head", 0.0, 0.5, 0.0), layer("second", 8.0, server_ms, 0.0),
    )  # fmt: skip
    branches = (Branch(accuracy=0.5, layers=(first, head)), Branch(accuracy=0.8, layers=(first, second)))
    return StreamCosts(name="small", origin="made up for tests", in_bytes=Line(k=2500.0), branches=branches)


def small_system(*, strict=True, server_ms=1.0, mbps=1.0, trace=None):
    return StreamSystem(table=small_costs(server_ms=server_ms).table(), mbps=mbps, trace=trace, strict=strict)


def changing_link():
    """1 Mbit/s for 20 ms, none for 10 ms, 4 Mbit/s for 15 ms, and again."""
    return Trace(
        name="changing", time_s=np.array([0.0, 0.02, 0.03]), bandwidth_mbps=np.array([1.0, 0.0, 4.0]), end_s=0.045,
        rtt_ms=0.0, origin="made up for tests",
    )  # fmt: skip
