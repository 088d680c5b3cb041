import dataclasses
import itertools
import math

import numpy as np
import pytest
from decision_tables import small_decisions, small_table, small_tree

from modeltree.errors import ConfigError, DataError
from modeltree.offloading.decisions import (
    PAPER_MBPS,
    Decisions,
    DecisionTable,
    Energy,
    Objective,
    Reward,
    State,
    tree_decisions,
    tree_table,
)

SWEEP = [0.0, 0.01, 1.0, 8.0, 40.0, 79.0, 80.0, 200.0]
TWO = {
    "exit": [1, 2], "cut": [9, 3], "bits": [8, 8], "device_ms": [40.0, 10.0], "cloud_ms": [0.0, 2.0],
    "sent_bytes": [0.0, 5000.0], "accuracy": [70.0, 80.0],
}  # fmt: skip
"""All on the device, or 5 kB to the cloud."""


def two(**changed):
    return DecisionTable(**{**TWO, **changed})


def test_the_papers_bandwidths_end_at_80_megabit():
    assert math.isclose(PAPER_MBPS, 80.0)


def test_latency_is_device_round_trip_transfer_and_cloud():
    # 5000 bytes at 8 Mbit/s, a byte a microsecond, are 5 ms; what stays local pays no round trip
    np.testing.assert_allclose(two().latency_ms(8.0, 3.0), [40.0, 10.0 + 3.0 + 5.0 + 2.0])


def test_while_the_link_is_out_only_the_device_answers():
    np.testing.assert_array_equal(two().latency_ms(0.0, 3.0), [40.0, math.inf])
    np.testing.assert_array_equal(np.isfinite(two().energy_mj(0.0, Energy())), [True, False])


def test_energy_follows_equations_1_to_3():
    energy = Energy(k0_w_per_hz3=2e-27, frequency_hz=1e9, power_w=2.0, gamma_per_w=1.5)
    joule = [2e-27 * 1e9**2 * (1e9 * busy_ms / 1e3) for busy_ms in (40.0, 10.0)]  # k0 f^2 a cycle, f cycles a second
    sent_joule = 2.0 * 5000 / (1e6 * math.log2(1 + 2.0 * 1.5))  # B = 8 Mbit/s is 1e6 bytes/s
    np.testing.assert_allclose(two().energy_mj(8.0, energy), [1e3 * joule[0], 1e3 * (joule[1] + sent_joule)])


def test_a_millisecond_of_a_watt_is_a_millijoule():
    assert Energy().mj(0.0, 5.0) == pytest.approx(5.0)  # 1 W for 5 ms
    energy = Energy(k0_w_per_hz3=2e-27, frequency_hz=1e9, power_w=3.0)
    assert energy.compute_w == pytest.approx(2.0)
    assert energy.transmit_w == pytest.approx(1.5)  # 3 W at twice the bits per second and Hz
    assert energy.mj(10.0, 4.0) == pytest.approx(26.0)


def test_accuracy_counts_more_the_more_bandwidth_there_is():
    objective = Objective(sensitivity_mbps=8.0, full_mbps=80.0)
    assert objective.weight(0.0) == 0.0
    assert objective.weight(40.0) == pytest.approx(math.log(6) / math.log(11))
    assert objective.weight(80.0) == pytest.approx(1.0)
    assert objective.weight(1000.0) == 1.0


@pytest.mark.parametrize("budget_mj", [math.inf, 180.0])
@pytest.mark.parametrize("mbps", SWEEP)
def test_rewards_follow_equations_12_to_14(mbps, budget_mj):
    decisions = small_decisions(budget_mj=budget_mj)
    latency, energy = decisions.table.latency_ms(mbps, 3.0), decisions.table.energy_mj(mbps, Energy())
    a = min(1.0, math.log(1 + mbps / 80) / math.log(2))
    scaled = lambda x: (x - x.min()) / (x.max() - x.min())  # noqa: E731
    expected = a * scaled(decisions.table.accuracy) + (1 - a) * scaled(1 / latency)
    np.testing.assert_allclose(decisions.rewards(mbps), np.where(energy <= budget_mj, expected, 0), atol=1e-12)
    np.testing.assert_allclose(decisions.latency_ms(mbps), latency)
    np.testing.assert_allclose(decisions.energy_mj(mbps), energy)


@pytest.mark.parametrize("mbps", SWEEP)
def test_the_best_action_has_the_highest_reward_and_of_those_the_least_latency(mbps):
    decisions = small_decisions()
    rewards, latency = decisions.rewards(mbps), decisions.latency_ms(mbps)
    best = decisions.best(mbps)
    equals = np.flatnonzero(rewards > rewards.max() - 1e-9)
    assert best in equals
    assert latency[best] == latency[equals].min()


def test_the_exit_moves_back_and_the_cut_forward_as_bandwidth_grows():
    decisions = small_decisions()
    chosen = [decisions.best(mbps) for mbps in np.linspace(0.0, PAPER_MBPS, 201)]
    exits, table = [int(decisions.table.exit[a]) for a in chosen], decisions.table
    assert (exits[0], exits[-1]) == (1, 3)
    assert exits == sorted(exits)
    assert not table.sends[chosen[0]]
    assert table.sends[chosen[-1]]
    assert table.cut[chosen[-1]] < table.cut[chosen[0]]


@pytest.mark.parametrize("mbps", SWEEP)
def test_the_best_action_keeps_the_budget(mbps):
    free, decisions = small_decisions(), small_decisions(budget_mj=180.0)
    best = decisions.best(mbps)
    assert decisions.energy_mj(mbps)[best] <= 180.0
    assert decisions.rewards(mbps)[best] == pytest.approx(decisions.rewards(mbps).max())
    assert (free.energy_mj(0.0) > 180.0).any()


def test_a_budget_that_nothing_keeps_gives_the_least_energy_and_no_reward():
    decisions = small_decisions(budget_mj=1e-6)
    best = decisions.best(8.0)
    assert decisions.energy_mj(8.0)[best] == decisions.energy_mj(8.0).min()
    assert not decisions.rewards(8.0).any()


@pytest.mark.parametrize("mbps", SWEEP)
@pytest.mark.parametrize("budget_mj", [math.inf, 180.0])
@pytest.mark.parametrize("objective", [Objective(), Reward()])
def test_the_best_of_some_actions_is_the_best_of_all_once_the_better_ones_are_gone(mbps, budget_mj, objective):
    decisions = dataclasses.replace(small_decisions(budget_mj=budget_mj), objective=objective)
    among, order = np.ones(len(decisions), dtype=bool), []
    for _ in range(len(decisions)):
        order.append(decisions.best(mbps, among=among))
        among[order[-1]] = False
    assert order[0] == decisions.best(mbps)
    assert sorted(order) == list(range(len(decisions)))
    rewards, fits = decisions.rewards(mbps)[order], decisions.fits(mbps)[order]
    kept = rewards[fits]
    assert (np.diff(kept) <= 1e-8).all()
    assert fits[: kept.size].all()  # what breaks the budget comes last, the least energy first
    broken = np.minimum(decisions.energy_mj(mbps)[order][kept.size :], 1e300)
    assert (np.diff(broken) >= 0).all()


def test_a_choice_among_nothing_is_refused():
    decisions = small_decisions()
    with pytest.raises(ConfigError, match="among leaves none of the 54 actions"):
        decisions.best(8.0, among=np.zeros(54, dtype=bool))
    for bad in (np.ones(3, dtype=bool), np.ones(54)):
        with pytest.raises(ConfigError, match=r"it must be bool \(54,\)"):
            decisions.best(8.0, among=bad)


@pytest.mark.parametrize("mbps", SWEEP)
def test_the_reward_of_a_tree_can_be_the_objective(mbps):
    reward = Reward(accuracy_weight=100.0, latency_weight=300.0, max_latency_ms=200.0)
    decisions = dataclasses.replace(small_decisions(), objective=reward)
    latency = decisions.latency_ms(mbps)
    sent = np.isfinite(latency)
    worth = reward.of(decisions.table.accuracy[sent], latency[sent])
    np.testing.assert_allclose(decisions.rewards(mbps)[sent], np.clip(worth / 400, 0, 1))
    assert not decisions.rewards(mbps)[~sent].any()
    best = decisions.best(mbps)
    assert sent[best]
    assert reward.of(decisions.table.accuracy[best], latency[best]) == pytest.approx(worth.max())


def test_a_reward_that_time_does_not_matter_to_takes_the_most_accurate_even_in_an_outage():
    decisions = dataclasses.replace(small_decisions(), objective=Reward(latency_weight=0.0))
    best = decisions.best(0.0)
    assert decisions.table.accuracy[best] == decisions.table.accuracy.max()


def test_a_term_that_all_actions_share_counts_nothing():
    one = Decisions(table=two(accuracy=[80.0, 80.0]), rtt_ms=3.0)
    np.testing.assert_array_equal(one.rewards(80.0), [0.0, 0.0])
    assert one.best(80.0) == 1


def test_observations_stay_within_their_limits_and_keep_order():
    decisions = small_decisions()
    low = decisions.observe(State(0.0, 0.0, 70.0, 0.0))
    high = decisions.observe(State(math.inf, math.inf, 90.0, 1e9))
    np.testing.assert_array_equal(low, [-1.0, -1.0, -1.0, -1.0])
    np.testing.assert_allclose(high, [1.0, 1.0, 1.0, 1.0], atol=1e-6)
    seen = [decisions.observe(State(t, t, 75.7 + t / 100, t)) for t in (1.0, 10.0, 50.0, 300.0, 700.0)]
    assert seen[0].dtype == np.float32
    for before, after in itertools.pairwise(seen):
        assert (after > before).all()


def test_the_state_after_an_action_is_what_it_took_and_the_bandwidth_now():
    decisions = Decisions(table=two(), rtt_ms=3.0)
    assert decisions.after(1, 8.0, 2.0) == State(20.0, float(decisions.energy_mj(8.0)[1]), 80.0, 2.0)
    assert decisions.start(2.0) == decisions.after(0, 2.0, 2.0)  # all on the device


def test_actions_have_names_and_numbers():
    table = small_table()
    assert [table.index(*row) for row in zip(table.exit, table.cut, table.bits)] == list(range(54))
    assert table.name(table.index(2, 3, 8)) == "exit 2, cut 3, 8 bits"
    with pytest.raises(ConfigError, match="exit 9, cut 0, 8 bits is no action of the table: it has 54"):
        table.index(9, 0, 8)


def test_the_leaves_of_a_tree_are_actions():
    table = tree_table(small_tree())
    rows = list(zip(*(getattr(table, name).tolist() for name in ("leaf", "exit", "cut", "bits", "sent_bytes"))))
    assert rows == [(1, 3, 1, 32, 4000), (2, 2, 3, 32, 0), (3, 3, 2, 4, 125), (5, 1, 1, 32, 0), (6, 3, 4, 32, 0),
                    (7, 3, 0, 8, 3072)]  # fmt: skip
    # behind node 0 the head is asked as well: 2 ms
    np.testing.assert_allclose(table.device_ms, [4.0, 20 + 2 + 15, 20 + 2 + 1, 12.0, 60.0, 0.0])
    assert table.accuracy.tolist() == [92.0, 84.0, 90.0, 80.0, 91.0, 92.0]
    assert table.cloud_ms.tolist() == [0.5, 0.0, 0.5, 0.0, 0.0, 0.5]
    assert table.name(2) == "exit 3, cut 2, 4 bits, leaf 3"


def test_a_tree_is_a_decision_problem_over_its_link():
    decisions = tree_decisions(small_tree())
    assert decisions.rtt_ms == 10.0
    assert decisions.objective == Reward()
    np.testing.assert_allclose(decisions.latency_ms(8.0)[0], 4 + 10 + 4 + 0.5)
    chosen = {int(decisions.table.leaf[decisions.best(mbps)]) for mbps in (0.0, 0.5, 8.0, 1000.0)}
    assert len(chosen) > 1
    other = tree_decisions(small_tree(), objective=Objective(), rtt_ms=3.0, budget_mj=50.0, energy=Energy(power_w=2.0))
    assert (other.objective, other.rtt_ms, other.budget_mj, other.energy.power_w) == (Objective(), 3.0, 50.0, 2.0)


def test_two_leaves_may_have_exit_cut_and_bits_in_common():
    table = two(exit=[2, 2], cut=[3, 3], leaf=[4, 7])
    assert table.index(2, 3, 8) == 0
    assert two().leaf.tolist() == [-1, -1]


def test_a_table_keeps_its_own_copies():
    given = np.array([40.0, 10.0])
    table = two(device_ms=given)
    given[0] = 7.0
    assert table.device_ms[0] == 40.0
    with pytest.raises(ValueError, match="read-only"):
        table.device_ms[0] = 7.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cut": [1]}, "give every column one number an action"),
        ({"bits": [8.0, 8.0]}, "bits of a decision table is float64: it must be whole numbers"),
        ({"device_ms": ["a", "b"]}, "it must be numbers"),
        ({"device_ms": [40.0, math.nan]}, r"action 1 \(exit 2, cut 3, 8 bits\) has device_ms nan: it must be finite"),
        ({"sent_bytes": [0.0, -1.0]}, "sent_bytes -1.0: it must be finite and at least 0"),
        ({"accuracy": [70.0, 101.0]}, "accuracy 101.0: it must be a percentage"),
        ({"exit": [0, 2]}, "exit 0: it must be counted from 1"),
        ({"bits": [8, 17]}, "bits 17: it must be 1..16, or 32 for float32"),
        ({"cloud_ms": [1.0, 2.0]}, "cloud_ms 1.0: it must be 0 where nothing is sent"),
        ({"device_ms": [0.0, 10.0]}, "device_ms 0.0: it must be above 0"),
        ({"exit": [1, 1], "cut": [9, 9]}, "exit 1, cut 9, 8 bits is in the table twice"),
        ({"leaf": [4, -2]}, "leaf -2: it must be the number of a node, or -1"),
        ({"leaf": [4]}, "give every column one number an action"),
    ],
)
def test_a_table_that_cannot_be_is_refused(changed, message):
    with pytest.raises(DataError, match=message):
        two(**changed)


@pytest.mark.parametrize("mbps", [-1.0, math.nan, math.inf])
def test_a_bandwidth_that_cannot_be_is_refused(mbps):
    decisions = small_decisions()
    for asked in (decisions.best, decisions.rewards, decisions.latency_ms, decisions.energy_mj):
        with pytest.raises(ConfigError, match="the bandwidth is"):
            asked(mbps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_decisions(rtt_ms=-1.0),
        lambda: dataclasses.replace(small_decisions(), rtt_ms=math.nan),
        lambda: Objective(sensitivity_mbps=0.0),
        lambda: Objective(full_mbps=math.inf),
        lambda: small_decisions(budget_mj=0.0),
        lambda: Energy(power_w=-1.0),
    ],
)
def test_settings_that_cannot_be_are_refused(make):
    with pytest.raises(ConfigError, match="it must be"):
        make()
