"""Estimators follow the link and not the round trip, know how far to trust themselves, and probe within limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltree.errors import ConfigError, DataError
from runtime.bandwidth import RULES, Estimate, Estimator, ProbePolicy, Reading, RoundTrip, probe_due

RTT_S = 0.04
MBPS = 125_000  # bytes per second


def reading(time_s, bandwidth_mbps, *, size_bytes=16_000, late_s=0.0, **rest):
    seconds = RTT_S + size_bytes / (bandwidth_mbps * MBPS) + late_s
    return Reading(time_s=time_s, size_bytes=size_bytes, seconds=seconds, rtt_s=RTT_S, **rest)


def fed(bandwidths, name="adaptive", *, every_s=1.0):
    estimator = Estimator(name)
    for i, bandwidth in enumerate(bandwidths):
        estimator.add(reading(i * every_s, bandwidth))
    return estimator


def estimate_of(mbps=8.0, *, age_s=0.0, confidence=0.9, readings=1):
    return Estimate(
        mbps=mbps, low_mbps=mbps / 2, high_mbps=mbps * 2, age_s=age_s, confidence=confidence, readings=readings
    )


@pytest.mark.parametrize("name", RULES)
def test_a_steady_link_is_estimated_exactly_by_every_rule(name):
    found = fed([8.0] * 6, name).estimate(5.0)
    assert found.mbps == pytest.approx(8.0)
    assert found.readings == 6


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None)
@given(bandwidths=st.lists(st.floats(0.01, 200), min_size=1, max_size=30), every_s=st.floats(0, 100))
def test_every_rule_stays_within_what_it_saw(name, bandwidths, every_s):
    found = fed(bandwidths, name, every_s=every_s).estimate(every_s * len(bandwidths))
    assert min(bandwidths) * 0.999 <= found.mbps <= max(bandwidths) * 1.001
    assert 0 < found.low_mbps <= found.mbps <= found.high_mbps < math.inf
    assert 0 <= found.confidence <= 1


@pytest.mark.parametrize("name", RULES)
def test_every_rule_follows_a_link_that_falls_for_good(name):
    assert fed([20.0] * 10 + [1.0] * 40, name).estimate(50.0).mbps < 2.0


def test_classical_rules_give_what_they_are_named_after():
    seen = [100.0, 1.0, 2.0, 4.0, 4.0, 8.0]  # the window of 5 has forgotten the first
    assert fed(seen, "last").estimate(5).mbps == pytest.approx(8)
    assert fed(seen, "moving_average").estimate(5).mbps == pytest.approx(19 / 5)
    assert fed(seen, "median").estimate(5).mbps == pytest.approx(4)
    assert fed(seen, "harmonic").estimate(5).mbps == pytest.approx(5 / (1 + 1 / 2 + 1 / 4 + 1 / 4 + 1 / 8))


def test_bytes_over_time_lets_large_transfers_decide():
    estimator = Estimator("bytes_over_time")
    estimator.add(reading(0.0, 10.0, size_bytes=1_000_000))
    estimator.add(reading(0.0, 1.0, size_bytes=10_000))
    assert estimator.estimate(0.0).mbps == pytest.approx(8 * 1.01 / (0.8 + 0.08), rel=0.01)


def test_fast_slow_falls_at_once_and_rises_slowly():
    down, up = fed([10.0] * 20 + [1.0] * 3, "fast_slow"), fed([1.0] * 20 + [10.0] * 3, "fast_slow")
    assert down.estimate(23.0).mbps < 6.5
    assert up.estimate(23.0).mbps < 4


def test_an_unknown_rule_lists_the_known():
    with pytest.raises(ConfigError, match="adaptive, bytes_over_time"):
        Estimator("guess")


def test_there_is_no_estimate_before_anything_was_said_about_bandwidth():
    estimator = Estimator()
    assert estimator.estimate(0.0) is None
    estimator.add(Reading(time_s=0.0, size_bytes=100, seconds=0.03))  # a ping: the round trip, no bandwidth
    assert estimator.estimate(1.0) is None
    assert estimator.round_trip.seconds == pytest.approx(0.03)


def test_a_small_transfer_does_not_explode_when_the_round_trip_is_all_of_it():
    estimator = fed([8.0] * 5)
    estimator.add(Reading(time_s=5.0, size_bytes=3_000, seconds=RTT_S, rtt_s=RTT_S))
    estimator.add(Reading(time_s=6.0, size_bytes=3_000, seconds=RTT_S - 0.001, rtt_s=RTT_S))
    assert estimator.estimate(6.0).mbps < 64


def test_a_floored_reading_below_the_estimate_is_no_news():
    estimator = fed([100.0] * 5)
    before = estimator.estimate(9.0)
    estimator.add(Reading(time_s=9.0, size_bytes=2_000, seconds=RTT_S, rtt_s=RTT_S))  # at least 32 Mbit/s
    assert estimator.estimate(9.0) == before


def test_a_transfer_that_was_given_up_only_lowers_the_estimate():
    estimator = fed([8.0] * 5)
    before = estimator.estimate(5.0)
    estimator.add(reading(5.0, 80.0, finished=False))
    assert estimator.estimate(5.0) == before
    for i in range(10):
        estimator.add(reading(6.0 + i, 0.05, finished=False))
    assert estimator.estimate(16.0).mbps < 0.5


def test_the_round_trip_is_the_least_of_the_window_and_jitter_its_wavering():
    trip = RoundTrip(initial_ms=40, window_s=10)
    assert trip.seconds == 0.04
    for i, seconds in enumerate([0.03, 0.02, 0.025, 0.024]):
        trip.add(Reading(time_s=float(i), size_bytes=100, seconds=seconds))
    assert trip.seconds == 0.02
    assert 0.0005 < trip.jitter_s < 0.01
    trip.add(Reading(time_s=12.0, size_bytes=100, seconds=0.05))
    assert trip.seconds == 0.024  # the 0.02 at 1 s has left the window


def test_large_messages_do_not_measure_the_round_trip_and_a_guess_takes_half_at_most():
    trip = RoundTrip(initial_ms=40)
    trip.add(Reading(time_s=0.0, size_bytes=16_000, seconds=0.01))
    assert trip.seconds == 0.04
    assert trip.taken_from(0.01) == 0.005


def test_jitter_on_small_transfers_moves_the_estimate_less_than_the_last_sample():
    rng = np.random.default_rng(0)
    adaptive, last = Estimator("adaptive"), Estimator("last")
    errors = {adaptive: [], last: []}
    for i in range(300):
        one = reading(i * 0.1, 8.0, late_s=rng.exponential(0.004))
        for estimator, list_ in errors.items():
            estimator.add(one)
            list_.append(abs(math.log(estimator.estimate(i * 0.1).mbps / 6.5)))
    assert np.mean(errors[adaptive]) < np.mean(errors[last])


def test_confidence_falls_and_the_range_widens_with_age_and_with_noise():
    steady, noisy = fed([8.0, 8.2, 7.9, 8.1] * 5), fed([8.0, 2.0, 20.0, 5.0] * 5)
    now, later = steady.estimate(19.0), steady.estimate(300.0)
    assert now.confidence > 0.95
    assert noisy.estimate(19.0).confidence < 0.6
    assert later.confidence < now.confidence
    assert later.high_mbps / later.low_mbps > now.high_mbps / now.low_mbps
    assert later.age_s == pytest.approx(281.0)


def test_deciles_hold_about_four_fifths_of_a_wavering_link():
    rng = np.random.default_rng(1)
    estimator, inside = Estimator(), []
    for i, bandwidth in enumerate(8 * np.exp(0.5 * rng.standard_normal(2000))):
        found = estimator.estimate(float(i))
        if i > 50:
            inside.append(found.low_mbps <= bandwidth <= found.high_mbps)
        estimator.add(reading(float(i), float(bandwidth)))
    assert 0.7 < np.mean(inside) < 0.9


@pytest.mark.parametrize("bad", [{"seconds": math.nan}, {"seconds": -1.0}, {"size_bytes": 0}, {"time_s": math.inf}])
def test_a_reading_that_cannot_be_is_refused(bad):
    with pytest.raises(DataError, match="a reading of"):
        Reading(**{"time_s": 0.0, "size_bytes": 1000, "seconds": 0.1} | bad)


def test_no_probe_while_busy_young_known_well_asleep_or_just_sent():
    policy = ProbePolicy()
    old = estimate_of(age_s=100)
    assert probe_due(100.0, old, policy, last_inference_s=99.0) > 0
    assert probe_due(100.0, old, policy, last_inference_s=99.0, busy=True) == 0
    assert probe_due(100.0, old, policy, last_inference_s=0.0) == 0
    assert probe_due(100.0, old, policy, last_inference_s=99.0, last_probe_s=99.5) == 0
    assert probe_due(100.0, estimate_of(age_s=0.9, confidence=0), policy, last_inference_s=99.0) == 0
    assert probe_due(100.0, estimate_of(age_s=5, confidence=0.9), policy, last_inference_s=99.0) == 0
    assert probe_due(100.0, estimate_of(age_s=5, confidence=0.1), policy, last_inference_s=99.0) > 0


def test_the_first_probe_has_its_own_size():
    assert probe_due(0.0, None, ProbePolicy(first_bytes=5000), last_inference_s=0.0) == 5000


@given(mbps=st.floats(0.001, 1e4))
def test_a_probe_takes_at_most_its_time_or_is_the_least_there_is(mbps):
    policy = ProbePolicy(most_ms=20)
    size = probe_due(100.0, estimate_of(mbps, age_s=50), policy, last_inference_s=100.0)
    assert policy.least_bytes <= size <= policy.most_bytes
    assert size / (mbps * MBPS) <= 0.020 or size == policy.least_bytes


def test_a_policy_that_contradicts_itself_is_refused():
    with pytest.raises(ConfigError, match="sizes"):
        ProbePolicy(least_bytes=9000)
    with pytest.raises(ConfigError, match="most_ms"):
        ProbePolicy(most_ms=0)
