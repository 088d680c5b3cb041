"""Bandwidth types part a trace by time, match every representative to its own type, and have honest chances."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import ConfigError
from modeltree.link.bandwidth import MIN_MBPS, BandwidthTypes
from modeltree.link.scenes import generate
from modeltree.link.traces import Trace


def trace_of(bandwidth_mbps):
    n = len(bandwidth_mbps)
    return Trace(
        name="t", time_s=np.arange(n) * 1.0, bandwidth_mbps=np.array(bandwidth_mbps), end_s=float(n), rtt_ms=0,
        origin="",
    )  # fmt: skip


bandwidths = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.5, 40.0]), min_size=1, max_size=12).filter(any)


def test_two_types_are_the_quartiles_parted_by_the_median():
    types = BandwidthTypes.from_trace(trace_of([4.0, 1.0, 3.0, 2.0]), 2)
    assert types.representative_mbps == (1.5, 3.5)
    assert types.edges_mbps == (2.5,)
    assert types.initial == (0.5, 0.5)
    assert types.transition == ((0.5, 0.5), (0.5, 0.5))


def test_one_type_is_the_median_and_always_matches():
    types = BandwidthTypes.from_trace(trace_of([1.0, 2.0, 9.0]), 1)
    assert types == BandwidthTypes(representative_mbps=(2.0,), edges_mbps=(), transition=((1.0,),), initial=(1.0,))
    assert types.match(0) == types.match(1e9) == 0


def test_an_edge_belongs_to_the_type_above_it():
    types = BandwidthTypes.from_trace(trace_of([4.0, 1.0, 3.0, 2.0]), 2)
    assert [types.match(b) for b in (0, 2.4999, 2.5, 100, math.inf)] == [0, 0, 1, 1, 1]


def test_a_value_that_holds_most_of_the_time_still_gets_its_own_type():
    types = BandwidthTypes.from_trace(trace_of([1.0, 1.0, 1.0, 5.0, 5.0]), 2)  # the median is 1 as well
    assert types.representative_mbps == (1, 5)
    assert types.edges_mbps == (3,)


@given(bandwidths, st.integers(1, 5))
def test_every_distinct_representative_matches_its_own_type(bandwidth, k):
    types = BandwidthTypes.from_trace(trace_of(bandwidth), k)
    reps = types.representative_mbps
    if len(set(reps)) == k:
        assert [types.match(r) for r in reps] == list(range(k))
    assert list(reps) == sorted(reps)
    assert len(types.edges_mbps) == k - 1


def test_a_link_that_is_mostly_out_is_floored():
    types = BandwidthTypes.from_trace(trace_of([0.0, 0.0, 0.0, 8.0]), 2)
    assert types.representative_mbps == (MIN_MBPS, 4.0)  # the upper quartile lies on the edge between 0 and 8
    assert types.match(0) == 0


def test_a_constant_link_has_coinciding_types():
    assert BandwidthTypes.from_trace(trace_of([3.0]), 3).representative_mbps == (3, 3, 3)


def test_markov_chances_are_the_shares_of_the_trace():
    # slow for 2 s, fast for 2 s, in a loop; half a second later a quarter of each has changed
    types = BandwidthTypes.from_trace(trace_of([1.0, 1.0, 9.0, 9.0]), 2, forks="markov", step_ms=500)
    assert types.initial == pytest.approx((0.5, 0.5))
    assert np.array(types.transition) == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))


def test_no_step_means_no_change_and_a_whole_loop_means_none_either():
    for step_ms in (0, 4000):
        types = BandwidthTypes.from_trace(trace_of([1.0, 1.0, 9.0, 9.0]), 2, forks="markov", step_ms=step_ms)
        assert np.array(types.transition) == pytest.approx(np.eye(2))


@given(bandwidths, st.integers(1, 4), st.floats(0, 20_000))
def test_markov_chances_keep_the_share_of_time_of_each_type(bandwidth, k, step_ms):
    types = BandwidthTypes.from_trace(trace_of(bandwidth), k, forks="markov", step_ms=step_ms)
    initial, transition = np.array(types.initial), np.array(types.transition)
    assert transition.sum(axis=1) == pytest.approx(np.ones(k))
    assert initial @ transition == pytest.approx(initial, abs=1e-9)  # shifting a loop changes no share


def test_types_of_a_real_scene_persist_more_than_chance():
    types = BandwidthTypes.from_trace(generate("4g_outdoor_quick", seed=0), 2, forks="markov")
    assert types.transition[0][0] > 0.8
    assert types.transition[1][1] > 0.8
    assert types.chances(None) == types.initial
    assert types.chances(1) == types.transition[1]


def test_types_survive_json():
    types = BandwidthTypes.from_trace(generate("wifi_weak_indoor", seed=0), 3, forks="markov")
    assert msgspec.json.decode(msgspec.json.encode(types), type=BandwidthTypes) == types


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"k": -1}, {"forks": "fair"}, {"step_ms": -1.0}, {"step_ms": math.nan}, {"step_ms": math.inf}]
)
def test_impossible_types_are_refused(wrong):
    with pytest.raises(ConfigError):
        BandwidthTypes.from_trace(trace_of([1.0]), **({"k": 2} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"representative_mbps": ()},
        {"representative_mbps": (2.0, 1.0)},
        {"representative_mbps": (0.0, 1.0)},
        {"edges_mbps": (1.0, 2.0)},
        {"edges_mbps": (math.nan,)},
        {"initial": (0.5, 0.6)},
        {"initial": (1.5, -0.5)},
        {"transition": ((1.0, 0.0),)},
        {"transition": ((1.0, 0.0), (1.0,))},
        {"transition": ((1.0, 0.0), (math.nan, 1.0))},
    ],
)
def test_types_that_do_not_fit_together_are_refused(wrong):
    good = {
        "representative_mbps": (1.0, 3.0), "edges_mbps": (2.0,), "initial": (0.5, 0.5),
        "transition": ((1.0, 0.0), (0.0, 1.0)),
    }  # fmt: skip
    BandwidthTypes(**good)
    with pytest.raises(ConfigError):
        BandwidthTypes(**(good | wrong))


def test_an_unmeasured_bandwidth_matches_nothing():
    with pytest.raises(ConfigError, match="NaN"):
        BandwidthTypes.from_trace(trace_of([1.0]), 2).match(math.nan)
