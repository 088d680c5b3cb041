"""Forks valued by what hand-overs meet where a device takes the link to be of a type."""

import dataclasses

import numpy as np
import pytest

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import Trace
from modeltree.link.transfer_time import TransferModel
from modeltree.profiles import load_profile
from modeltree.reward import Reward
from nas.emulation.known_types import met_link
from nas.treesearch.options.scenario import PATIENCE_MS, MetLink, Scenario


def link(levels, stay_s, rtt_ms=10.0):
    times = np.arange(len(levels)) * stay_s
    return Trace(
        name="steps", origin="test", time_s=times, bandwidth_mbps=np.array(levels, float), end_s=len(levels) * stay_s,
        rtt_ms=rtt_ms,
    )  # fmt: skip


def on(trace, met):
    return Scenario(
        device=load_profile("pi4"), cloud=load_profile("cloud_gpu"), types=BandwidthTypes.from_trace(trace, 2),
        transfer=TransferModel(rtt_ms=trace.rtt_ms), reward=Reward(), met=met,
    )  # fmt: skip


def test_a_transfer_is_the_mean_over_the_moments_at_which_the_type_is_taken():
    trace = link([1.0, 8.0], 100.0)
    met = MetLink(trace=trace, starts_s=(np.array([10.0, 20.0, 110.0]), np.array([120.0])))
    # 10 000 bytes take 80 ms at 1 Mbit/s and 10 ms at 8
    assert on(trace, met).transfer_ms(10_000) == pytest.approx([10 + (80 + 80 + 10) / 3, 10 + 10])
    assert on(trace, None).transfer_ms(10_000) == pytest.approx([90, 20])


def test_a_type_that_is_never_taken_is_as_its_representative_and_an_outage_costs_the_patience():
    trace = link([1.0, 0.0, 8.0], 100.0)
    met = MetLink(trace=trace, starts_s=(np.array([150.0]), np.array([])))
    scenario = on(trace, met)
    assert scenario.transfer_ms(1000)[0] == PATIENCE_MS
    assert scenario.transfer_ms(1000)[1] == pytest.approx(10 + 1000 / (125 * scenario.types.representative_mbps[1]))


def test_an_outage_that_is_rare_costs_what_a_session_makes_of_it():
    """8 Mbit/s carry 1000 bytes in 1 ms: an answer is overdue after 3 x 11 ms, and the rest takes 40 here."""
    trace = link([8.0, 0.0], 100.0)
    met = MetLink(trace=trace, starts_s=(np.array([]), np.array([10.0, 20.0, 30.0, 150.0])))
    assert on(trace, met).transfer_ms(1000, rest_ms=40.0)[1] == pytest.approx((3 * 11 + 33 + 40) / 4)


def test_one_type_alone_keeps_its_moments():
    trace = link([1.0, 8.0], 100.0)
    scenario = on(trace, MetLink(trace=trace, starts_s=(np.array([10.0, 110.0]), np.array([120.0]))))
    for kind in range(2):
        assert scenario.alone(kind).transfer_ms(5000).tolist() == [scenario.transfer_ms(5000)[kind]]
    assert dataclasses.replace(scenario, met=None).alone(1).transfer_ms(5000).tolist() == pytest.approx([15.0])


def test_a_link_that_steps_slowly_is_known_nearly_always_and_one_that_flickers_is_not():
    def wrong(trace):
        types = BandwidthTypes.from_trace(trace, 2)
        met = met_link(trace, types, starts=200)
        shares = [
            types.match(trace.at(start_s)) != kind
            for kind, starts_s in enumerate(met.starts_s)
            for start_s in starts_s.tolist()
        ]
        assert len(shares) == 200
        return np.mean(shares)

    assert wrong(link([1.0, 20.0] * 3, 40.0)) < 0.15
    assert wrong(link([1.0, 20.0] * 300, 0.4)) > 0.2
