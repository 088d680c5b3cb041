"""The watcher of a link and its prober: what is sent, when nothing is, and what a failure leads to."""

import random
import threading
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest

from modeltree.link.bandwidth import BandwidthTypes
from runtime.bandwidth import ProbePolicy
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Call, Cloud
from runtime.remote.prober import PING_BYTES, PINGS, SURPRISES, Prober
from runtime.wire.transports import BusyError, Exchange, Reply, TimedOut

HALF = (0.5, 0.5)
TYPES = BandwidthTypes(
    representative_mbps=(1.0, 8.0), edges_mbps=(5.0,), transition=(HALF, HALF), initial=HALF
)  # fmt: skip
POLICY = ProbePolicy(first_bytes=4000, least_bytes=2000)
RTT_S = 0.010
BYTES_PER_S = 1e6  # 8 Mbit/s
LOOKS = 20
PATIENCE_S = 30.0


class Wire:
    """A transport whose link is the test's: it takes its time on the clock, or fails."""

    def __init__(self):
        self.now_s, self.sent, self.trouble = 0.0, [], None
        self.came, self.bytes_per_s = threading.Semaphore(0), BYTES_PER_S

    def clock(self):
        return self.now_s

    def probe(self, size_bytes, timeout_s):
        self.sent.append(size_bytes)
        self.came.release()
        if self.trouble is not None:
            self.now_s += timeout_s
            raise self.trouble
        seconds = RTT_S + size_bytes / self.bytes_per_s
        self.now_s += seconds
        return Exchange(sent_bytes=size_bytes, received_bytes=10, seconds=seconds, server_s=0.0)


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def watch(wire):
    return LinkWatch(TYPES, clock=wire.clock)


@pytest.fixture
def cloud(watch, wire):
    breaker = Breaker(wire.clock, random.Random(0), first_s=1e-6, longest_s=1e-6)
    return Cloud(wire, watch, breaker, wire.clock, probed=True)


@pytest.fixture
def prober(watch, cloud):
    """One that looks when the test says so."""
    return Prober(watch, cloud, POLICY)


def test_before_anything_is_known_the_slowest_type_is_taken(watch):
    kind, mbps = watch.bandwidth_type()
    assert kind == 0
    assert mbps != mbps  # NaN
    assert watch.expected_s(1000) is None


def test_measuring_tells_round_trip_and_bandwidth(watch, prober):
    assert prober.measure()
    assert watch.rtt_ms == pytest.approx(1e3 * RTT_S, rel=0.05)
    kind, mbps = watch.bandwidth_type()
    assert kind == 1
    assert 5 < mbps < 12
    expected_s = watch.expected_s(100_000)
    assert expected_s > RTT_S + 100_000 / BYTES_PER_S  # at the lower decile it takes longer than in the middle


def test_a_probe_pings_and_then_grows_until_its_bytes_fill_the_time_it_may_take(prober, wire):
    """At 8 Mbit/s 20 ms hold 20 kB; the first 2 kB take 2 ms, and say so."""
    assert prober.measure()
    assert wire.sent[: PINGS + 1] == [PING_BYTES] * PINGS + [POLICY.least_bytes]
    assert wire.sent[PINGS + 1 :] == pytest.approx([POLICY.most_ms * BYTES_PER_S / 1e3], rel=0.2)


def test_a_probe_does_not_grow_on_a_link_that_really_is_slow(watch, wire, prober):
    """2 kB take 32 ms at 0.5 Mbit/s: more than they may."""
    wire.bytes_per_s = 0.5e6 / 8
    assert prober.measure()
    assert wire.sent == [PING_BYTES] * PINGS + [POLICY.least_bytes]
    assert watch.estimate().mbps == pytest.approx(0.5, rel=0.2)


def test_a_probe_that_is_not_due_sends_nothing(watch, wire, cloud, prober):
    watch.bandwidth_type()
    assert prober.look()
    assert prober.look() is None  # the estimate is young
    wire.now_s += POLICY.old_s + 1
    under_way = Call("model", 100, 0.0)
    under_way.future = Future()
    cloud._in_flight.add(under_way)
    assert prober.look() is None  # a transfer will tell for free
    under_way.future.set_result(None)
    assert prober.look()


def test_after_an_answer_that_was_overdue_the_link_is_probed_at_once(watch, wire, cloud, prober):
    watch.bandwidth_type()
    assert prober.look()
    late = Call("model", 100, 0.0)
    cloud.overdue(late)
    assert prober.look() is None  # it is not there yet, and the estimate is young
    exchange = Reply(
        output=np.zeros((1, 4), np.float32), encode_s=0.0, sent_bytes=5000, received_bytes=10, seconds=1.0, server_s=0.0
    )
    cloud._settle(late, exchange, None)
    assert prober.look()
    assert watch.estimate().mbps > 1.0  # the outage's 0.04 Mbit/s are not what is held


def test_a_probe_that_fails_says_so_and_only_a_time_out_says_that_the_link_is_slow(watch, wire, prober):
    prober.measure()
    before = watch.estimate().mbps
    wire.trouble = BusyError("no room")
    assert prober.measure() is False
    assert watch.estimate().mbps == pytest.approx(before)
    wire.trouble = TimedOut("nothing")
    wire.now_s += 1.0
    assert prober.measure() is False
    assert watch.estimate().mbps < before


def test_it_is_asleep_when_nobody_asked_for_long(watch, wire, prober):
    assert prober.look() is None
    watch.bandwidth_type()
    assert prober.look()
    wire.now_s += POLICY.asleep_s + 1
    assert prober.look() is None


def test_a_probe_that_says_something_else_is_repeated_at_once_a_few_times(watch, wire, prober):
    """A change should not wait for the estimate to be old; and one outlier is no change."""
    watch.bandwidth_type()
    wire.bytes_per_s = 0.5e6 / 8
    for _ in range(6):
        assert prober.look()
        wire.now_s += POLICY.old_s + 1
        watch.bandwidth_type()
    wire.bytes_per_s = BYTES_PER_S
    looks = [prober.look() is not None for _ in range(8)]
    assert looks[:2] == [True, True]
    assert sum(looks) <= 1 + SURPRISES
    assert watch.bandwidth_type()[0] == 1


def test_an_exchange_that_sent_nothing_is_no_reading(watch):
    watch.observe(Exchange(sent_bytes=0, received_bytes=10, seconds=1.0, server_s=0.0))
    assert watch.estimate() is None


class CountingBreaker(Breaker):
    """Counts how often it was looked at, which the prober does first of all."""

    def __init__(self, clock):
        super().__init__(clock, random.Random(0), first_s=1.0)
        self.looks = threading.Semaphore(0)

    @property
    def closed(self):
        self.looks.release()
        return super().closed


@contextmanager
def probing(watch, wire, monkeypatch):
    """(cloud, breaker) with a prober that looks a thousand times a second."""
    monkeypatch.setattr("runtime.remote.prober._LOOK_S", 1e-3)
    breaker = CountingBreaker(wire.clock)
    cloud = Cloud(wire, watch, breaker, wire.clock, probed=True)
    prober = Prober(watch, cloud, POLICY)
    prober.start()
    (thread,) = (one for one in threading.enumerate() if one.name == "nas-prober")
    try:
        yield cloud, breaker
    finally:
        prober.close()
        thread.join(PATIENCE_S)
        cloud._threads.close()


def looked(breaker, times=LOOKS):
    """The prober has looked so often from now on."""
    while breaker.looks.acquire(blocking=False):
        pass
    for _ in range(times):
        assert breaker.looks.acquire(timeout=PATIENCE_S)


def until(condition, breaker):
    for _ in range(10_000):
        if condition():
            return
        looked(breaker, 1)
    raise AssertionError("it never came to this")


def test_while_nobody_asks_for_anything_nothing_is_probed(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch) as (_, breaker):
        looked(breaker)
    assert wire.sent == []


def test_an_idle_link_is_probed_once_somebody_asked_and_again_when_the_estimate_is_old(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch) as (_, breaker):
        watch.bandwidth_type()
        until(lambda: watch.estimate() is not None, breaker)
        sent = len(wire.sent)
        looked(breaker)
        assert len(wire.sent) == sent
        wire.now_s += POLICY.old_s + 1
        until(lambda: len(wire.sent) > sent, breaker)


def test_while_the_breaker_waits_nothing_is_probed_and_then_a_failed_link_is_tried(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch) as (cloud, breaker):
        watch.bandwidth_type()
        until(lambda: watch.estimate() is not None, breaker)
        looked(breaker)
        breaker.failed(link=True)
        sent = len(wire.sent)
        looked(breaker)
        assert len(wire.sent) == sent
        assert "left alone" in cloud.why_not()
        wire.now_s += 1.0  # the first wait is over, the estimate still young
        until(lambda: len(wire.sent) > sent and not cloud.breaker.doubted, breaker)
        assert cloud.why_not() is None


def test_a_failed_link_is_only_risked_again_after_a_probe_has_passed(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch) as (cloud, breaker):
        watch.bandwidth_type()
        wire.trouble = TimedOut("nothing")
        until(lambda: breaker.failures == 1, breaker)
        wire.now_s += 1.0  # the breaker closes; the probe that follows at once fails as well, and it waits for longer
        until(lambda: breaker.failures == 2, breaker)
        assert breaker.doubted
        assert cloud.why_not() is not None
        wire.trouble = None
        wire.now_s += 2.0
        until(lambda: not cloud.breaker.doubted, breaker)
        assert cloud.why_not() is None


def test_a_link_that_failed_is_not_risked_before_a_probe_though_the_breaker_is_closed(watch, wire, cloud, prober):
    watch.bandwidth_type()
    cloud.breaker.failed(link=True)
    wire.now_s += 1.0
    assert "no probe has passed" in cloud.why_not()
    assert prober.look()
    assert cloud.why_not() is None


def test_a_probe_that_breaks_in_an_unforeseen_way_is_a_failure_and_does_not_end_the_prober(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch) as (cloud, breaker):
        watch.bandwidth_type()
        wire.trouble = RuntimeError("a bug")
        until(lambda: breaker.failures == 1, breaker)
        assert breaker.doubted
        wire.trouble = None
        wire.now_s += 1.0
        until(lambda: not cloud.breaker.doubted, breaker)


def test_stopping_ends_the_prober(watch, wire, monkeypatch):
    with probing(watch, wire, monkeypatch):
        pass
    assert not any(thread.name == "nas-prober" for thread in threading.enumerate())


def test_whoever_asks_or_tells_holds_the_lock_since_several_threads_do(watch, prober):
    class Guarded:
        def __init__(self, estimator):
            self._estimator = estimator

        def __getattr__(self, name):
            assert watch._lock.locked()
            return getattr(self._estimator, name)

    watch._estimator = Guarded(watch._estimator)
    assert watch.expected_s(3000) is None
    prober.measure()
    watch.observe(Exchange(sent_bytes=3000, received_bytes=10, seconds=0.1, server_s=0.0))
    watch.bandwidth_type()
    assert watch.estimate() is not None
    assert watch.expected_s(3000) > watch.rtt_ms / 1e3
