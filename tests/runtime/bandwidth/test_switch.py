"""The switch does not flap around an edge, follows a real change in `patience` readings, and counts readings once."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltree.errors import ConfigError
from modeltree.link.bandwidth import BandwidthTypes
from runtime.bandwidth import Estimate
from runtime.bandwidth.switch import Hysteresis, Match, matched

TYPES = BandwidthTypes(
    representative_mbps=(1.0, 4.0, 16.0), edges_mbps=(2.0, 8.0), transition=((1 / 3,) * 3,) * 3, initial=(1 / 3,) * 3
)


def estimate(mbps, readings, confidence=0.0):
    return Estimate(mbps=mbps, low_mbps=mbps / 2, high_mbps=mbps * 2, age_s=0, confidence=confidence, readings=readings)


def followed(bandwidths, hysteresis, *, confidence=0.0, start=None):
    state, found = start, []
    for i, bandwidth in enumerate(bandwidths, 2):
        state = matched(TYPES, estimate(bandwidth, i, confidence), state, hysteresis)
        found.append(state.type)
    return found


def changes(types):
    return sum(a != b for a, b in itertools.pairwise(types))


def test_with_nothing_known_the_slowest_type_is_taken_and_the_one_before_kept():
    assert matched(TYPES, None, None, Hysteresis()) == Match(type=0)
    held = Match(type=2, readings=7)
    assert matched(TYPES, None, held, Hysteresis()) is held


def test_the_first_estimate_decides_alone():
    assert matched(TYPES, estimate(2.01, 1), None, Hysteresis()).type == 1
    assert matched(TYPES, estimate(100.0, 1), Match(type=0), Hysteresis()).type == 2


def test_an_edge_crossed_by_the_margin_counts_at_once():
    wide = Hysteresis(margin=0.5, patience=100)  # a factor of 1.65
    held = Match(type=0, readings=1)
    assert matched(TYPES, estimate(3.2, 2), held, wide).type == 0
    assert matched(TYPES, estimate(3.4, 2), held, wide).type == 1
    assert matched(TYPES, estimate(14.0, 2), held, wide).type == 2
    assert matched(TYPES, estimate(9.0, 2), held, wide).type == 1  # the second edge is not crossed by the margin


def test_the_margin_shrinks_with_confidence():
    wide, held = Hysteresis(margin=0.5, patience=100), Match(type=0, readings=1)
    assert matched(TYPES, estimate(2.1, 2, confidence=1.0), held, wide).type == 1
    assert matched(TYPES, estimate(2.1, 2, confidence=0.5), held, wide).type == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from([1.9, 2.1]), min_size=1, max_size=200), st.integers(1, 6))
def test_noise_within_the_margin_changes_the_type_at_most_once_in_patience_readings(noise, patience):
    found = followed(noise, Hysteresis(margin=0.3, patience=patience), start=Match(type=0, readings=1))
    assert changes([0, *found]) <= len(noise) // patience


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 100))
def test_noise_that_crosses_back_in_time_never_changes_the_type(patience, rounds):
    noise = ([2.1] * (patience - 1) + [1.9]) * rounds
    assert set(followed(noise, Hysteresis(margin=0.3, patience=patience), start=Match(type=0, readings=1))) == {0}


@settings(deadline=None)
@given(
    st.floats(0.01, 100), st.floats(0, 1), st.integers(0, 2), st.integers(1, 5), st.floats(0, 2)
)  # fmt: skip
def test_a_real_change_is_followed_within_patience_readings_an_edge(mbps, confidence, before, patience, margin):
    rule, wanted = Hysteresis(margin=margin, patience=patience), TYPES.match(mbps)
    steps = patience * max(1, abs(wanted - before))
    found = followed([mbps] * steps, rule, confidence=confidence, start=Match(type=before, readings=1))
    assert found[-1] == wanted
    assert all(min(before, wanted) <= kind <= max(before, wanted) for kind in found)


def test_forks_between_two_readings_count_once():
    state = Match(type=0, readings=1)
    for _ in range(10):
        state = matched(TYPES, estimate(2.1, 2), state, Hysteresis(patience=2))
    assert state == Match(type=0, beyond=1, readings=2)
    assert matched(TYPES, estimate(2.1, 3), state, Hysteresis(patience=2)).type == 1


def test_readings_on_the_other_side_begin_the_count_anew():
    state = Match(type=1, beyond=2, readings=5)
    assert matched(TYPES, estimate(1.95, 6), state, Hysteresis(patience=3)) == Match(type=1, beyond=-1, readings=6)


def test_without_margin_and_with_patience_one_it_is_the_plain_match():
    plain = Hysteresis(margin=0, patience=1)
    bandwidths = [1.0, 9.0, 2.0, 1.99, 7.9, 8.0]
    assert followed(bandwidths, plain) == [TYPES.match(b) for b in bandwidths]


@pytest.mark.parametrize("bad", [{"margin": -0.1}, {"patience": 0}])
def test_hysteresis_that_cannot_be_is_refused(bad):
    with pytest.raises(ConfigError, match="margin is"):
        Hysteresis(**bad)
