"""A device whose processors are busy still follows its link, by a clock of the test's.

What a message takes is then the link's time and the machine's: threads that wait for a processor, by milliseconds, now
and then. Small hand-overs say nothing of the link any more, and short probes make a fast one look slow.
"""

import math
import random

import pytest

from modeltree.link.bandwidth import BandwidthTypes
from runtime.bandwidth import ProbePolicy
from runtime.remote.circuit_breaker import LONGEST_S, Breaker
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Call, Cloud
from runtime.remote.prober import Prober
from runtime.wire.transports import Exchange, TimedOut

HALF = (0.5, 0.5)
SLOW_MBPS, FAST_MBPS, RTT_S = 1.0, 20.0, 0.03
TYPES = BandwidthTypes(
    representative_mbps=(SLOW_MBPS, FAST_MBPS), edges_mbps=(5.0,), transition=(HALF, HALF), initial=HALF
)
FASTER_S, SLOWER_S, END_S, EVERY_S, LOOK_S = 2.5, 9.5, 14.0, 0.1, 0.25
HEADERS_BYTES = 250
LEARNT_S = 3.0
"""After so long a step of the link should be known, as in tests/e2e/test_field.py."""


class BusyMachine:
    """A transport over a link that is slow, fast, and slow again; a share of all wake-ups comes 3 to 12 ms late."""

    frames = True

    def __init__(self, busy_share, seed, slower_s=SLOWER_S):
        self._slower_s = slower_s
        self.now_s, self._busy_share, self._rng = 0.0, busy_share, random.Random(seed)

    def clock(self):
        return self.now_s

    def probe(self, size_bytes, timeout_s):
        mbps = FAST_MBPS if FASTER_S <= self.now_s < self._slower_s else SLOW_MBPS
        seconds = RTT_S + (size_bytes + HEADERS_BYTES) * 8 / (mbps * 1e6) + self._late_s() + self._late_s()
        self.now_s += seconds
        return Exchange(sent_bytes=size_bytes, received_bytes=100, seconds=seconds, server_s=0.0)

    def _late_s(self):
        late = self._rng.random() < self._busy_share
        return self._rng.uniform(0.003, 0.012) if late else self._rng.uniform(0.0, 0.0004)


def crossing(busy_share, seed, image_bytes):
    """Shares of inferences that hand over when the device has had the time to learn of each step."""
    wire = BusyMachine(busy_share, seed)
    link = LinkWatch(TYPES, rtt_ms=1e3 * RTT_S, clock=wire.clock)
    cloud = Cloud(wire, link, Breaker(wire.clock, random.Random(0)), wire.clock, probed=True)
    prober = Prober(link, cloud, ProbePolicy())
    prober.measure()
    taken, look_s, due_s = [], 0.0, 0.0
    while wire.now_s < END_S:
        wire.now_s = max(wire.now_s, due_s)
        due_s += EVERY_S
        if wire.now_s >= look_s:
            look_s = wire.now_s + LOOK_S
            began_s = wire.now_s
            prober.look()
            wire.now_s = began_s  # in a thread of its own
        began_s = wire.now_s
        kind, _ = link.bandwidth_type()
        if kind:
            link.observe(wire.probe(image_bytes, 2.0))
        taken.append((began_s, kind))
    sure = ((0.5, FASTER_S), (FASTER_S + 4.5, SLOWER_S), (SLOWER_S + LEARNT_S, END_S))
    return [sum(kind for at_s, kind in taken if first <= at_s < last) / 20 for first, last in sure]


@pytest.mark.parametrize("image_bytes", [432, 3072])
@pytest.mark.parametrize("busy_share", [0.0, 0.1, 0.3, 0.6])
def test_the_path_follows_the_link_though_the_machine_is_busy(busy_share, image_bytes):
    runs = [crossing(busy_share, seed, image_bytes) for seed in range(20)]
    follows = sum(fast > slow + 0.1 and fast > again + 0.1 for slow, fast, again in runs)
    assert follows >= 18, runs  # of 20; 3 to 17 where probes do not grow


def test_hand_overs_that_say_nothing_do_not_keep_the_device_on_a_link_that_has_become_slow():
    """The estimate is sure of itself, and the messages are too small for the jitter: only a probe can tell."""
    wire = BusyMachine(0.0, 0)
    wire.now_s = FASTER_S
    link = LinkWatch(TYPES, rtt_ms=1e3 * RTT_S, clock=wire.clock)
    cloud = Cloud(wire, link, Breaker(wire.clock, random.Random(0)), wire.clock, probed=True)
    prober = Prober(link, cloud, ProbePolicy())
    late = 0
    while wire.now_s < SLOWER_S:
        late = 8 - late  # every other message
        link.probed(Exchange(sent_bytes=64, received_bytes=100, seconds=RTT_S + 1e-3 * late, server_s=0.0))
        link.probed(Exchange(sent_bytes=60_000, received_bytes=100, seconds=RTT_S + 0.024, server_s=0.0), grown=True)
        wire.now_s += 0.5
    assert link.estimate().confidence > 0.9
    assert link.bandwidth_type()[0] == 1
    wire.now_s, look_s = SLOWER_S + 2.1, 0.0
    while link.bandwidth_type()[0] == 1:
        assert wire.now_s < SLOWER_S + 2.1 + LEARNT_S
        late = 8 - late
        seconds = RTT_S + (432 + HEADERS_BYTES) * 8 / (SLOW_MBPS * 1e6) + 1e-3 * late
        link.observe(Exchange(sent_bytes=432, received_bytes=100, seconds=seconds, server_s=0.0))
        wire.now_s += EVERY_S
        if wire.now_s >= look_s:
            look_s = wire.now_s + LOOK_S
            prober.look()


@pytest.mark.parametrize("busy_share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("failures", [1, 10, 200])
def test_however_long_a_server_was_away_the_device_is_back_soon_after_it(failures, busy_share):
    """What a long history leaves behind: a breaker that waits long, and an estimate that is all but nothing."""
    wire = BusyMachine(busy_share, failures, slower_s=math.inf)
    link = LinkWatch(TYPES, rtt_ms=1e3 * RTT_S, clock=wire.clock)
    cloud = Cloud(wire, link, Breaker(wire.clock, random.Random(0)), wire.clock, probed=True)
    prober, answering = Prober(link, cloud, ProbePolicy()), wire.probe

    def silent(size_bytes, timeout_s):
        wire.now_s += timeout_s
        raise TimedOut("nothing")

    wire.now_s = FASTER_S - 1.0
    wire.probe = silent
    while cloud.breaker.failures < failures:
        link.bandwidth_type()
        cloud._settle(call := Call("model", 500, wire.now_s), None, TimedOut("nothing"))
        assert call.settled
        wire.now_s += LOOK_S
        prober.look()
    wire.now_s, wire.probe = max(FASTER_S, wire.now_s), answering
    back_s = wire.now_s
    while cloud.why_not() is not None or link.bandwidth_type()[0] == 0:
        assert wire.now_s < back_s + LONGEST_S + LEARNT_S, (cloud.why_not(), link.estimate())
        link.bandwidth_type()
        wire.now_s += LOOK_S
        began_s = wire.now_s
        prober.look()
        wire.now_s = began_s
