"""Traces play in a loop, refuse what cannot be played, and carry bytes in exactly the time the integral says."""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import DataError
from modeltree.link.traces import DEFAULT_RTT_MS, Trace, read_trace, write_trace


def trace_of(bandwidth_mbps, *, interval_s=1.0, rtt_ms=10.0):
    n = len(bandwidth_mbps)
    return Trace(
        name="t", time_s=np.arange(n) * interval_s, bandwidth_mbps=np.array(bandwidth_mbps), end_s=n * interval_s,
        rtt_ms=rtt_ms, origin="test",
    )  # fmt: skip


rates = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 8.0, 100.0]), min_size=1, max_size=8).filter(any)


def step_by_step_ms(trace, size_bytes, start_s):
    """The definition: walk from change to change until nothing is left."""
    now, left, elapsed = start_s % trace.end_s, size_bytes, 0.0
    edges = [*trace.time_s.tolist(), trace.end_s]
    while left > 0:
        i = max(j for j, t in enumerate(trace.time_s) if t <= now)
        rate = trace.bandwidth_mbps[i] * 1e6 / 8
        span = edges[i + 1] - now
        if rate * span >= left:
            return 1e3 * (elapsed + left / rate)
        left, elapsed, now = left - rate * span, elapsed + span, edges[i + 1] % trace.end_s
    return 1e3 * elapsed


def test_bandwidth_holds_from_its_time_to_the_next_and_wraps_round():
    trace = trace_of([1.0, 2.0, 4.0])
    assert [trace.at(t) for t in (0, 0.999, 1, 2.5, 3, 7.5, -0.5)] == [1, 1, 2, 4, 1, 2, 4]


def test_a_constant_link_of_eight_mbps_carries_a_megabyte_in_a_second():
    assert trace_of([8.0]).transfer_ms(1_000_000, 0.3) == pytest.approx(1000)


def test_a_transfer_over_an_outage_waits_for_it_to_end():
    trace = trace_of([8.0, 0.0, 8.0])  # 1 MB per second, outage from 1 s to 2 s
    assert trace.transfer_ms(1_000_000, 0.5) == pytest.approx(2000)
    assert trace.transfer_ms(1, 1.25) == pytest.approx(750, abs=0.01)
    assert trace.transfer_ms(500_000, 0.5) == pytest.approx(500)  # done just as the outage begins


def test_a_transfer_that_ends_with_the_last_good_byte_of_a_loop_does_not_wait_for_the_next():
    trace = trace_of([8.0, 0.0])
    assert trace.transfer_ms(1_000_000, 0.0) == pytest.approx(1000)
    assert trace.transfer_ms(3_000_000, 0.0) == pytest.approx(5000)


def test_no_bytes_take_no_time_even_in_an_outage():
    assert trace_of([0.0, 8.0]).transfer_ms(0, 0.5) == 0


@given(rates, st.floats(1, 1e8), st.floats(0, 30))
def test_a_transfer_takes_what_stepping_through_the_trace_takes(bandwidth, size, start):
    trace = trace_of(bandwidth)
    assert trace.transfer_ms(size, start) == pytest.approx(step_by_step_ms(trace, size, start), rel=1e-6, abs=1e-3)


@given(rates, st.floats(1, 1e8), st.floats(0, 30))
def test_many_transfers_at_once_take_what_each_does(bandwidth, size, start):
    trace = trace_of(bandwidth)
    sizes, starts = np.array([[0.0], [size], [1000.0]]), np.array([start, 0.0, 0.25, trace.end_s])
    found = trace.transfers_ms(sizes, starts)
    assert found.shape == (3, 4)
    wanted = [[trace.transfer_ms(float(s), float(t)) for t in starts] for s in sizes[:, 0]]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-6)


@given(rates, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 10))
def test_more_bytes_never_arrive_sooner(bandwidth, a, b, start):
    trace = trace_of(bandwidth)
    assert trace.transfer_ms(max(a, b), start) >= trace.transfer_ms(min(a, b), start)


@pytest.mark.parametrize(("size", "start"), [(-1, 0), (math.nan, 0), (math.inf, 0), (1, math.nan), (1, math.inf)])
def test_an_impossible_transfer_is_refused(size, start):
    with pytest.raises(DataError, match="finite"):
        trace_of([1.0]).transfer_ms(size, start)


def test_quantiles_are_weighted_by_time():
    trace = Trace(
        name="t", time_s=np.array([0.0, 1.0]), bandwidth_mbps=np.array([10.0, 2.0]), end_s=4.0, rtt_ms=0, origin=""
    )  # 10 for 1 s, 2 for 3 s
    assert [trace.quantile(q) for q in (0, 0.5, 0.74, 0.75, 0.76, 1)] == [2, 2, 2, 6, 10, 10]
    assert trace.mean_mbps == pytest.approx(4)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(any), st.floats(0.01, 0.99))
def test_quantiles_of_equal_intervals_are_the_usual_ones(bandwidth, q):
    ours = trace_of(bandwidth, interval_s=0.1).quantile(q)
    near = [np.quantile(bandwidth, p, method="inverted_cdf") for p in (q - 1e-9, q + 1e-9)]
    assert min(near) - 1e-9 <= ours <= max(near) + 1e-9


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_outside_0_to_1_is_refused(q):
    with pytest.raises(DataError, match="it must lie in"):
        trace_of([1.0]).quantile(q)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_s": np.array([]), "bandwidth_mbps": np.array([])}, "at least one"),
        ({"bandwidth_mbps": np.array([1.0])}, "as many of each"),
        ({"bandwidth_mbps": np.array([1.0, math.nan])}, "row 2 is not finite"),
        ({"bandwidth_mbps": np.array([math.inf, 1.0])}, "row 1 is not finite"),
        ({"bandwidth_mbps": np.array([1.0, -1.0])}, "row 2 has a negative"),
        ({"bandwidth_mbps": np.zeros(2)}, "0 in every row"),
        ({"time_s": np.array([0.0, 0.0])}, "row 2 does not come after"),
        ({"time_s": np.array([0.5, 1.0])}, "first time must be 0"),
        ({"end_s": 1.0}, "after its last time"),
        ({"bandwidth_mbps": np.array([1e308, 1e308])}, "mean bandwidth is not finite"),
        ({"rtt_ms": -1.0}, "rtt_ms"),
        ({"rtt_ms": math.nan}, "rtt_ms"),
        ({"name": "two\nlines"}, "one line"),
    ],
)
def test_a_trace_that_cannot_be_played_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(trace_of([1.0, 2.0]), **change)


def test_a_trace_does_not_change_with_the_array_it_was_made_from():
    values = np.array([1.0, 2.0])
    trace = trace_of(values)
    values[0] = 99
    assert trace.at(0) == 1
    with pytest.raises(ValueError, match="read-only"):
        trace.bandwidth_mbps[0] = 5


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=20).filter(any), st.floats(1e-3, 10), st.floats(0, 1e3),
    st.sampled_from(["", "lab, LTE = good", "a # b", "müde"]),
)  # fmt: skip
def test_a_trace_comes_back_from_its_file_bit_for_bit(tmp_path_factory, bandwidth, interval, rtt, origin):
    trace = replace(trace_of(bandwidth, interval_s=interval, rtt_ms=rtt), origin=origin, name="my link")
    path = tmp_path_factory.mktemp("traces") / "x.csv"
    write_trace(trace, path)
    back = read_trace(path)
    assert (back.name, back.origin, back.rtt_ms, back.end_s) == ("my link", origin, rtt, trace.end_s)
    assert np.array_equal(back.time_s, trace.time_s)
    assert np.array_equal(back.bandwidth_mbps, trace.bandwidth_mbps)


def written(tmp_path, text, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_round_trip_comes_from_the_caller_else_the_comment_else_the_scene_else_a_default(tmp_path):
    rows = "time_s,bandwidth_mbps\n0,1\n0.5,2\n"
    assert read_trace(written(tmp_path, "# rtt_ms=7\n" + rows), rtt_ms=3).rtt_ms == 3
    assert read_trace(written(tmp_path, "# rtt_ms=7\n" + rows)).rtt_ms == 7
    assert read_trace(written(tmp_path, rows, "wifi_weak_indoor__cafe.csv")).rtt_ms == 30
    assert read_trace(written(tmp_path, rows, "5g_outdoor_slow.csv")).rtt_ms == 25
    assert read_trace(written(tmp_path, rows)).rtt_ms == DEFAULT_RTT_MS


def test_the_last_value_holds_as_long_as_the_one_before(tmp_path):
    assert read_trace(written(tmp_path, "time_s,bandwidth_mbps\n0,1\n0.5,2\n")).end_s == 1.0
    assert read_trace(written(tmp_path, "time_s,bandwidth_mbps\n0,1\n")).end_s == 1.0


def test_a_mahimahi_file_is_counted_in_bins_of_100_ms_and_starts_again_at_its_last_packet(tmp_path):
    trace = read_trace(written(tmp_path, "0\n0\n99\n100\n101\n350\n", "link.up"))
    assert trace.time_s.tolist() == [0, 0.1, 0.2, 0.3]
    # 1500 bytes per 100 ms are 0.12 Mbit/s; the last bin has 50 ms, and those at 0 arrive with the one at 350
    assert trace.bandwidth_mbps == pytest.approx([0.24, 0.12, 0, 0.72])
    assert trace.end_s == 0.35


@pytest.mark.parametrize(
    ("stamps", "mbps", "end_s"),
    [
        ([1, 1], 24.0, 0.001),  # two packets in every millisecond
        (range(1, 1001), 12.0, 1.0),  # one in each of a thousand
        ([ms for ms in range(1, 251) for _ in range(3)], 36.0, 0.25),
        (range(2, 202, 2), 6.0, 0.2),
    ],
)
def test_a_steady_mahimahi_link_has_the_same_bandwidth_in_every_bin(tmp_path, stamps, mbps, end_s):
    trace = read_trace(written(tmp_path, "\n".join(map(str, stamps)), "link.up"))
    assert trace.bandwidth_mbps == pytest.approx(np.full(len(trace.time_s), mbps))
    assert (trace.mean_mbps, trace.end_s) == (pytest.approx(mbps), end_s)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=60).map(sorted).filter(lambda stamps: stamps[-1] > 0))
def test_a_mahimahi_loop_carries_all_of_its_packets(tmp_path_factory, stamps):
    path = tmp_path_factory.mktemp("packets") / "link.up"
    path.write_text("\n".join(map(str, stamps)))
    trace = read_trace(path)
    assert trace.mean_mbps * 1e6 / 8 * trace.end_s == pytest.approx(1500 * len(stamps))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("# only a comment\n", "no rows"),
        ("time_s,bandwidth_mbps\n", "at least one"),
        ("time,rate\n0,1\n", "line 1"),
        ("time_s,bandwidth_mbps\n0,1\n1,2,3\n", "line 3 has 3 columns"),
        ("# note\ntime_s,bandwidth_mbps\n0,1\n1,fast\n", "line 4, bandwidth_mbps is 'fast'"),
        ("time_s,bandwidth_mbps\n0,1\n1,nan\n", "row 2 is not finite"),
        ("time_s,bandwidth_mbps\n0,1\n2,1\n1,1\n", "row 3 does not come after"),
        ("# rtt_ms=soon\ntime_s,bandwidth_mbps\n0,1\n", "rtt_ms is 'soon'"),
        ("# end_s=0\ntime_s,bandwidth_mbps\n0,1\n", "must end after"),
        ("0\n0\n0\n", "no length"),
        ("time_s,bandwidth_mbps\n0,1e308\n1,1e308\n", "mean bandwidth is not finite"),
        ("5\n4\n", "line 2 is '4'"),
        ("5\n-6\n", "line 2 is '-6'"),
        ("5\n6.5\n", "line 2 is '6.5'"),
        ("1" * 5000, "line 1"),
        ("99999999999\n", "line 1"),
        (b"\xff\xfe\x00\x01", "not text"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_place(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_trace(tmp_path / "nowhere.csv")


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_make_a_trace_or_a_data_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "x.csv"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert read_trace(path).bandwidth_mbps.any()
