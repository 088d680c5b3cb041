"""Emulated latencies, by hand: constant links, links that change under way, and a bound nobody beats."""

import numpy as np
import pytest
from trees import (
    EDGE_MBPS,
    FAST_MBPS,
    RTT_MS,
    SLOW_MBPS,
    cloud_only,
    device_only,
    exits_tree,
    forked_tree,
    leaf,
    node,
    tree_of,
)

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.reward import Reward
from modeltree.tree import ExitFork
from modeltree.tree.emulate import emulate, oracle, ranks, spread_starts, sure_exits


def trace_of(time_s, bandwidth_mbps, end_s):
    return Trace(
        name="t", time_s=np.array(time_s), bandwidth_mbps=np.array(bandwidth_mbps), end_s=end_s, rtt_ms=99.0, origin=""
    )


def constant(mbps):
    return trace_of([0.0], [mbps], 7.0)


ZERO = np.zeros(1)


@pytest.mark.parametrize(("mbps", "leaf"), [(SLOW_MBPS, 2), (FAST_MBPS, 1)])
def test_a_constant_link_gives_the_predicted_latency(mbps, leaf):
    tree, starts_s = forked_tree(), np.array([0.0, 3.3, 6.999, 123.4])
    seen = emulate(tree, constant(mbps), starts_s=starts_s)
    assert seen.leaf.tolist() == [leaf] * 4
    np.testing.assert_allclose(seen.latency_ms, tree.nodes[leaf].leaf.latency_ms, rtol=1e-9)
    np.testing.assert_array_equal(seen.accuracy, tree.nodes[leaf].leaf.accuracy)
    np.testing.assert_array_equal(seen.starts_s, starts_s)


def test_the_edge_belongs_to_the_faster_type():
    assert emulate(forked_tree(), constant(EDGE_MBPS), starts_s=ZERO).leaf.tolist() == [1]


def test_a_fixed_strategy_never_looks_at_the_link():
    trace = trace_of([0.0, 1.0], [0.0, 8.0], 2.0)
    seen = emulate(device_only(), trace, starts_s=np.array([0.5, 1.5]))
    np.testing.assert_allclose(seen.latency_ms, 60.0)


def test_a_link_that_steps_up_in_the_middle_of_a_transfer():
    """4000 bytes: 16 ms at 125 bytes/ms carry 2000, the other 2000 take 2 ms at 1000 bytes/ms."""
    trace = trace_of([0.0, 0.116], [SLOW_MBPS, FAST_MBPS], 10.0)
    seen = emulate(cloud_only(), trace, starts_s=np.array([0.1]))
    np.testing.assert_allclose(seen.latency_ms, RTT_MS + 16 + 2 + 0.5, rtol=1e-9)


def test_an_outage_is_waited_out():
    trace = trace_of([0.0, 0.2], [0.0, FAST_MBPS], 10.0)
    seen = emulate(cloud_only(), trace, starts_s=np.array([0.1]))
    np.testing.assert_allclose(seen.latency_ms, RTT_MS + 100 + 4 + 0.5, rtol=1e-9)


def test_the_branch_changes_when_the_link_recovers_under_way():
    """Slow at the start, so block 1 is pruned (20 ms); fast at 15 ms, so block 2 goes to the cloud at once."""
    trace = trace_of([0.0, 0.015], [SLOW_MBPS, FAST_MBPS], 10.0)
    seen = emulate(forked_tree(), trace, starts_s=ZERO)
    assert seen.leaf.tolist() == [3]
    np.testing.assert_allclose(seen.latency_ms, 20 + RTT_MS + 1 + 0.5, rtol=1e-9)


def test_a_link_that_breaks_after_the_measurement_is_not_foreseen():
    """Fast at the start, so the device hands over after 4 ms; by then it is slow, and 4000 bytes take 32 ms."""
    trace = trace_of([0.0, 0.002], [FAST_MBPS, SLOW_MBPS], 10.0)
    seen = emulate(forked_tree(), trace, starts_s=ZERO)
    assert seen.leaf.tolist() == [1]
    np.testing.assert_allclose(seen.latency_ms, 4 + RTT_MS + 32 + 0.5, rtol=1e-9)


def test_the_oracle_takes_the_branch_that_turned_out_best():
    """As above, but with hindsight: leaf 3 sends 1000 bytes in 8 ms where leaf 1 sends 4000 in 32."""
    trace = trace_of([0.0, 0.002], [FAST_MBPS, SLOW_MBPS], 10.0)
    latency_only = Reward(accuracy_weight=0.0)
    best = oracle([device_only(), forked_tree()], trace, ZERO, latency_only)
    assert (best.tree.tolist(), best.leaf.tolist()) == ([1], [3])
    np.testing.assert_allclose(best.latency_ms, 20 + RTT_MS + 8 + 0.5, rtol=1e-9)
    np.testing.assert_allclose(best.reward, latency_only.of(90.0, 38.5), rtol=1e-9)


def test_the_oracle_weighs_accuracy_too():
    best = oracle([device_only(), forked_tree()], constant(SLOW_MBPS), ZERO, Reward(latency_weight=0.0))
    assert best.accuracy.tolist() == [92.0]


def test_no_strategy_beats_the_oracle():
    rng = np.random.default_rng(5)
    trace = trace_of(np.arange(200) * 0.013, rng.choice([0.0, 0.3, 1.0, 4.0, 20.0], 200), 2.6)
    trees = [device_only(), cloud_only(), forked_tree(), exits_tree()]
    starts_s, reward = spread_starts(trace, 150), Reward()
    best = oracle(trees, trace, starts_s, reward)
    alone = [emulate(tree, trace, starts_s=starts_s) for tree in trees]
    rewards = np.array([reward.of(seen.accuracy, seen.latency_ms) for seen in alone])
    assert (best.reward >= rewards.max(axis=0) - 1e-9).all()
    assert best.reward.mean() > rewards.mean(axis=1).max() + 0.1
    assert len(set(alone[2].leaf.tolist())) == 3


def test_a_head_costs_everybody_who_reaches_it_and_ends_the_path_of_its_share():
    """Slow throughout: 20 + 2 ms, and exit 2 takes 15 more; 0.4 of those who are slow leave as sure."""
    tree, starts_s = exits_tree(), np.linspace(0.0, 6.0, 500)
    seen = emulate(tree, constant(SLOW_MBPS), starts_s=starts_s)
    assert set(seen.leaf.tolist()) == {2, 4}
    np.testing.assert_allclose(seen.latency_ms, np.where(seen.leaf == 4, 22.0, 37.0))
    assert np.mean(seen.leaf == 4) == pytest.approx(0.4, abs=0.005)
    np.testing.assert_array_equal(seen.leaf, emulate(tree, constant(SLOW_MBPS), starts_s=starts_s).leaf)


def test_every_later_exit_takes_its_share_of_those_who_reach_it():
    """Half leave at the first head; of the half that is left, half at the second: under rank 0.5, then under 0.75."""
    first, second = (ExitFork(exit=exit, entropy=0.3) for exit in (1, 2))
    tree = tree_of(
        node(0, None, (0, 1), 1.0, children=(1, 2)),
        node(1, 0, (0, 1), 1.0, children=(3, 4)),
        node(2, 0, (), 1.0, fork=first, leaf=leaf(0.5, 2.0, 99.0)),
        node(3, 1, (0, 1), 1.0, level=2, leaf=leaf(0.25, 5.0, 80.0)),
        node(4, 1, (), 1.0, level=2, fork=second, leaf=leaf(0.25, 4.0, 90.0)),
        exits=(1, 3),
    )
    assert {i: (exit.id, below) for i, (exit, below) in sure_exits(tree).items()} == {0: (2, 0.5), 1: (4, 0.75)}
    seen = emulate(tree, constant(SLOW_MBPS), starts_s=np.zeros(1000))
    assert [np.mean(seen.leaf == end) for end in (2, 4, 3)] == pytest.approx([0.5, 0.25, 0.25], abs=0.003)
    np.testing.assert_allclose(seen.latency_ms.mean(), 0.5 * 2 + 0.25 * 4 + 0.25 * 5, rtol=2e-3)
    assert sorted(ranks(1000)) == pytest.approx(np.arange(1000) / 1000, abs=0.003)


def test_only_a_sure_sample_leaves_by_confidence_even_in_hindsight():
    """Leaf 4 has the highest accuracy by far; who is not sure can take 92 % at best."""
    tree = exits_tree()
    best = oracle([tree], constant(SLOW_MBPS), np.zeros(200), Reward(latency_weight=0.0))
    sure = emulate(tree, constant(SLOW_MBPS), starts_s=np.zeros(200)).leaf == 4
    np.testing.assert_array_equal(best.leaf == 4, sure)
    assert set(best.accuracy[~sure]) == {92.0}


def test_starts_are_spread_evenly_over_the_trace():
    np.testing.assert_allclose(spread_starts(constant(1.0), 7), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])


def test_what_cannot_be_emulated_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        spread_starts(constant(1.0), 0)
    with pytest.raises(ConfigError, match="row of finite"):
        emulate(device_only(), constant(1.0), starts_s=np.array([0.0, np.nan]))
    with pytest.raises(ConfigError, match="row of finite"):
        emulate(device_only(), constant(1.0), starts_s=np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="0 trees"):
        oracle([], constant(1.0), ZERO, Reward())
