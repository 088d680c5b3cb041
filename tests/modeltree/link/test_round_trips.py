"""A round trip that changes is read, held, played, measured and reckoned with as a bandwidth that changes is."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from trees import RTT_MS, forked_tree

from modeltree.errors import DataError, FormatError
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.scenes import SCENES, generate, load_trace
from modeltree.link.traces import Trace, read_trace, write_trace
from modeltree.tree import decode_tree, encode_tree
from modeltree.tree.emulate import emulate

NAN = float("nan")


def link(bandwidth_mbps, rtts_ms, *, rtt_ms=RTT_MS):
    n = len(bandwidth_mbps)
    return Trace(
        name="t", time_s=np.arange(n), bandwidth_mbps=np.array(bandwidth_mbps), end_s=n, rtt_ms=rtt_ms, origin="test",
        rtts_ms=None if rtts_ms is None else np.array(rtts_ms),
    )  # fmt: skip


def written(tmp_path, text):
    path = tmp_path / "link.csv"
    path.write_text(text)
    return path


def test_a_third_column_is_read_and_a_round_trip_that_was_not_taken_is_the_one_before(tmp_path):
    path = written(tmp_path, "# rtt_ms=5\ntime_s,bandwidth_mbps,rtt_ms\n0,1,\n1,2,40\n2,1,\n3,1,90\n4,1,\n")
    trace = read_trace(path)
    assert trace.rtts_ms.tolist() == [40, 40, 40, 90, 90]
    assert (trace.rtt_ms, trace.rtt_at(3.5), trace.rtt_at(5.5)) == (40, 90, 40)


def test_one_that_is_asked_for_takes_the_place_of_the_column(tmp_path):
    trace = read_trace(written(tmp_path, "time_s,bandwidth_mbps,rtt_ms\n0,1,20\n1,2,40\n"), rtt_ms=7.0)
    assert (trace.rtts_ms, trace.rtt_ms, trace.rtt_at(1.5)) == (None, 7, 7)


def test_a_column_without_a_number_is_no_column(tmp_path):
    assert read_trace(written(tmp_path, "# rtt_ms=5\ntime_s,bandwidth_mbps,rtt_ms\n0,1,\n")).rtt_at(0) == 5


@pytest.mark.parametrize("cell", ["nan", "-1", "inf", "fast"])
def test_a_round_trip_that_cannot_be_is_refused_by_its_line(tmp_path, cell):
    with pytest.raises(DataError, match="line 2, rtt_ms is"):
        read_trace(written(tmp_path, f"time_s,bandwidth_mbps,rtt_ms\n0,1,{cell}\n"))


def test_as_many_round_trips_as_intervals_are_needed():
    with pytest.raises(DataError, match="2 intervals has 1 round trips"):
        link([1, 2], [3])


def test_it_comes_back_from_its_file_bit_for_bit(tmp_path):
    trace = link([1.5, 0.0, 2.0], [0.1 + 0.2, 1e-3, 44.0], rtt_ms=0.1 + 0.2)
    write_trace(trace, tmp_path / "t.csv")
    again = read_trace(tmp_path / "t.csv")
    assert (again.rtts_ms.tolist(), again.rtt_ms) == (trace.rtts_ms.tolist(), trace.rtt_ms)


@pytest.mark.parametrize("name", sorted(SCENES))
def test_a_scene_has_the_round_trips_it_says(name):
    scene, trace = SCENES[name], generate(name, seed=3, duration_s=5000)
    middle, high = np.quantile(trace.rtts_ms, (0.5, 0.9))
    assert middle == pytest.approx(scene.rtt_ms)
    assert high / middle == pytest.approx(scene.rtt_p90, rel=0.05)
    assert load_trace(name, seed=3, rtt_ms=9.0).rtts_ms is None


def test_a_type_is_a_state_of_the_link_with_the_round_trip_that_comes_with_it():
    types = BandwidthTypes.from_trace(link([1, 1, 8, 8], [50, 70, 10, 14]), 2)
    assert types.rtt_ms == (60, 12)
    assert BandwidthTypes.from_trace(link([1, 8], None), 2).rtt_ms == ()


def test_a_tree_for_such_types_says_that_it_needs_version_3():
    tree = forked_tree()
    told = msgspec.structs.replace(tree, types=msgspec.structs.replace(tree.types, rtt_ms=(60, 12)), version=3)
    assert decode_tree(encode_tree(told), "t.json") == told
    with pytest.raises(FormatError, match="begins with version 3"):
        msgspec.structs.replace(told, version=2)


def test_a_hand_over_meets_the_round_trip_of_its_moment():
    steady, wavering = link([8.0, 8.0], None), link([8.0, 8.0], [RTT_MS, RTT_MS + 30])
    starts_s = np.array([0.5, 1.5])
    usual, met = (emulate(forked_tree(), trace, starts_s=starts_s).latency_ms for trace in (steady, wavering))
    np.testing.assert_allclose(met - usual, [0, 30])
    slow = replace(wavering, bandwidth_mbps=np.array([1.0, 1.0]))  # stays on the device
    np.testing.assert_allclose(emulate(forked_tree(), slow, starts_s=starts_s).latency_ms, 50)
