"""Same trace in, same link out: on a simulated link to the percent, through a real relay as far as a machine allows."""

import time
from dataclasses import replace

import numpy as np
import pytest

from modeltree.errors import ConfigError, DataError
from modeltree.link.scenes import SCENES, generate
from modeltree.link.traces import Trace, read_trace, write_trace
from runtime.link import Relay, Shape
from runtime.link.recording import LEAST_BYTES, Measured, RecordConfig, record, trace_of
from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.grpc_front import GrpcFront
from runtime.server.fronts.request_handler import RequestHandler
from runtime.wire.transports import BusyError, Exchange, Refused, TimedOut, Transport, Unreachable, open_transport

OVERHEAD_BYTES = 60


class Link(Transport):
    """A server behind a trace, on a clock of its own; `fails` is asked before every message and may raise."""

    def __init__(self, trace, *, jitter_ms=0.0, fails=lambda probes: None):
        self.trace, self.now_s, self.sizes = trace, 0.0, []
        self._jitter_ms, self._fails, self._rng = jitter_ms, fails, np.random.default_rng(0)
        super().__init__(clock=lambda: self.now_s)

    def probe(self, size_bytes, timeout_s):
        self.sizes.append(size_bytes)
        self._fails(len(self.sizes))
        carry_ms = self.trace.transfer_ms(size_bytes + OVERHEAD_BYTES, self.now_s)
        seconds = 1e-3 * (self.trace.rtt_at(self.now_s) + carry_ms + self._rng.exponential(self._jitter_ms))
        self.now_s += min(seconds, timeout_s)
        if seconds > timeout_s:
            raise TimedOut("no answer in time")
        sent_bytes = size_bytes + OVERHEAD_BYTES
        return Exchange(sent_bytes=sent_bytes, received_bytes=40, seconds=seconds + 0.25, server_s=0.25)

    def sleep(self, seconds):
        self.now_s += seconds

    def ready(self, timeout_s):
        return True

    def describe(self, model, timeout_s):
        raise NotImplementedError

    def close(self):
        pass

    _send = describe


def trace_from(bandwidth_mbps, *, interval_s, rtt_ms=30.0):
    n = len(bandwidth_mbps)
    return Trace(
        name="t", time_s=np.arange(n) * interval_s, bandwidth_mbps=np.array(bandwidth_mbps), end_s=n * interval_s,
        rtt_ms=rtt_ms, origin="test",
    )  # fmt: skip


def recorded(link, **config):
    config = RecordConfig(**config)
    measured = list(record(link, config, clock=lambda: link.now_s, sleep=link.sleep))
    return measured, trace_of(measured, name="out", origin="recorded")


def quartiles(trace):
    return np.array([trace.quantile(q) for q in (0.25, 0.5, 0.75)])


@pytest.mark.parametrize("mbps", [0.3, 2.0, 40.0, 900.0])
def test_a_constant_link_is_recorded_as_it_is(mbps):
    link = Link(trace_from([mbps], interval_s=1.0))
    measured, trace = recorded(link, seconds=20.0, most_mb=1e4)
    np.testing.assert_allclose(trace.bandwidth_mbps, mbps, rtol=1e-6)
    assert trace.rtt_ms == pytest.approx(30 + (64 + OVERHEAD_BYTES) / (125 * mbps))
    assert (len(measured), trace.end_s) == (40, pytest.approx(20.0))
    np.testing.assert_allclose(trace.time_s, 0.5 * np.arange(40), atol=1e-9)


def test_a_probe_takes_about_the_share_of_its_interval():
    link = Link(trace_from([10.0], interval_s=1.0))
    measured, _ = recorded(link, seconds=10.0)
    sent_bytes = measured[-1].sent_bytes - measured[0].sent_bytes
    assert sent_bytes / 19 == pytest.approx(0.4 * 500 * 1250, rel=0.01)  # 1250 bytes a millisecond


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_recorded_with_its_mean_and_quartiles(name):
    """What a probe averages over (up to 0.2 s) and what it misses (0.3 s of each 0.5 s) may cost a tenth."""
    link = Link(generate(name, seed=3), jitter_ms=2.0)
    _, trace = recorded(link, seconds=290.0, most_mb=1e4)
    whole = link.trace
    assert trace.mean_mbps == pytest.approx(whole.mean_mbps, rel=0.1)
    np.testing.assert_allclose(quartiles(trace), quartiles(whole), atol=0.1 * whole.mean_mbps)


def test_a_round_trip_that_changes_is_recorded_as_it_changes():
    link = Link(replace(trace_from([40.0] * 4, interval_s=10.0), rtts_ms=np.array([30.0, 90.0, 30.0, 60.0])))
    _, trace = recorded(link, seconds=40.0, most_mb=1e4)
    np.testing.assert_allclose([trace.rtt_at(s) for s in (5, 15, 25, 35)], [30, 90, 30, 60], atol=0.1)
    assert trace.rtt_ms == pytest.approx(45, abs=15.1)


def test_an_outage_is_recorded_as_long_as_it_was():
    """10 s at 4 Mbit/s, then 3 s of nothing; an outage that begins within a probe is part of its average."""
    link = Link(trace_from([4.0] * 10 + [0.0] * 3, interval_s=1.0))
    _, trace = recorded(link, seconds=130.0)
    slow_s = trace.durations_s[trace.bandwidth_mbps < 0.5].sum()
    assert slow_s == pytest.approx(30.0, abs=3.0)
    assert (trace.bandwidth_mbps == 0).any()
    assert trace.mean_mbps == pytest.approx(link.trace.mean_mbps, rel=0.05)


def test_what_is_never_answered_is_an_outage_and_the_recording_goes_on():
    link = Link(trace_from([4.0] * 5 + [0.0] * 20, interval_s=1.0))
    measured, trace = recorded(link, seconds=24.0, timeout_s=2.0)
    assert all(one.mbps == 0 for one in measured if 6 < one.start_s < 22)
    assert trace.bandwidth_mbps[0] == pytest.approx(4.0, rel=1e-6)


def test_a_broken_connection_is_an_outage():
    def fails(probes):
        if 30 < probes <= 40:
            raise Unreachable("the connection broke")

    measured, _ = recorded(Link(trace_from([4.0], interval_s=1.0), fails=fails), seconds=30.0)
    assert sum(one.mbps == 0 for one in measured) == 10
    assert [one.mbps == 0 for one in measured].index(True) > 5


def test_a_link_that_grows_much_faster_is_followed_within_an_interval():
    link = Link(trace_from([1.0] * 10 + [60.0] * 10, interval_s=1.0), jitter_ms=1.0)
    _, trace = recorded(link, seconds=18.0)
    after = trace.bandwidth_mbps[(trace.time_s > 10.5) & (trace.time_s < 17)]
    np.testing.assert_allclose(after, 60.0, rtol=0.1)


def test_the_bytes_that_may_be_sent_last_for_the_whole_recording():
    link = Link(trace_from([20.0], interval_s=1.0), jitter_ms=1.0)
    measured, trace = recorded(link, seconds=60.0, most_mb=2.0)
    assert measured[-1].sent_bytes <= 2e6 * 1.05
    assert trace.end_s == pytest.approx(60.0, abs=0.6)
    assert trace.mean_mbps == pytest.approx(20.0, rel=0.1)


def test_it_ends_when_the_bytes_are_spent():
    measured, trace = recorded(Link(trace_from([20.0], interval_s=1.0)), seconds=600.0, most_mb=1.0)
    assert measured[-1].sent_bytes <= 1e6 + LEAST_BYTES
    assert trace.end_s < 600


def test_a_busy_server_leaves_the_value_before_in_force():
    def fails(probes):
        if 30 < probes <= 34:
            raise BusyError("no room")

    measured, trace = recorded(Link(trace_from([4.0], interval_s=1.0), fails=fails), seconds=20.0)
    assert len(measured) == 40 - 4
    np.testing.assert_allclose(trace.bandwidth_mbps, 4.0, rtol=1e-6)


@pytest.mark.parametrize(("after", "whole"), [(0, 0), (24, 9)])
def test_a_server_that_says_no_is_an_error_and_what_was_measured_is_not_lost(after, whole):
    def fails(probes):
        if probes > after:
            raise Refused("token")

    link = Link(trace_from([4.0], interval_s=1.0), fails=fails)
    seen = record(link, RecordConfig(), clock=lambda: link.now_s, sleep=link.sleep)
    measured = [next(seen) for _ in range(whole)]
    with pytest.raises(Refused):
        list(seen)
    assert all(one.mbps == pytest.approx(4.0) for one in measured)


def test_a_recording_is_written_and_read_again_bit_for_bit(tmp_path):
    _, trace = recorded(Link(generate("4g_weak_indoor", seed=1), jitter_ms=2.0), seconds=30.0)
    write_trace(trace, tmp_path / "t.csv")
    again = read_trace(tmp_path / "t.csv")
    np.testing.assert_array_equal(again.bandwidth_mbps, trace.bandwidth_mbps)
    np.testing.assert_array_equal(again.time_s, trace.time_s)
    assert (again.end_s, again.rtt_ms, again.origin) == (trace.end_s, trace.rtt_ms, "recorded")


def test_a_link_that_carried_nothing_is_no_trace():
    out = Measured(start_s=0.0, end_s=0.5, mbps=0.0, rtt_ms=20.0, sent_bytes=100)
    with pytest.raises(DataError, match="carried nothing in all 1 intervals"):
        trace_of([out], name="x", origin="y")
    with pytest.raises(DataError, match="nothing was recorded"):
        trace_of([], name="x", origin="y")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"every_ms": float("nan")}, "every_ms is nan"),
        ({"most_mb": -1.0}, "most_mb is -1"),
        ({"seconds": 1.0, "every_ms": 2000.0}, "one interval at least"),
    ],
)
def test_a_recording_that_cannot_be_made_is_refused(config, why):
    with pytest.raises(ConfigError, match=why):
        RecordConfig(**config)


class Nothing:
    """An engine without models: probes need none."""

    def __init__(self):
        self.models = {}

    def ready(self):
        return True


def test_a_trace_played_by_a_relay_before_a_real_server_is_recorded():
    """A relay is never faster than its trace, a busy machine may be slower; levels must still be told apart."""
    played = trace_from([8.0, 2.0], interval_s=2.0, rtt_ms=20.0)
    front = GrpcFront(RequestHandler(Nothing()), Admission(Limits()))
    front.start()
    try:
        with (
            Relay(("127.0.0.1", front.port), up=Shape(trace=played)) as relay,
            open_transport("grpc://{}:{}".format(*relay.address)) as transport,
        ):
            config = RecordConfig(seconds=8.0, every_ms=250.0)
            measured = list(record(transport, config, clock=time.monotonic, sleep=time.sleep))
    finally:
        front.stop(1.0)
    trace = trace_of(measured, name="out", origin="recorded")
    low, _, high = quartiles(trace)
    assert 1.2 < low < 2.4
    assert 4.8 < high < 9.0
    assert 3.0 < trace.mean_mbps < 6.0
    assert 20 < trace.rtt_ms < 60
    assert trace.end_s == pytest.approx(8.0, abs=1.0)
