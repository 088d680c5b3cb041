"""Emulated methods beside each other: by hand on constant links, with the runtime's own estimator on changing ones."""

import json

import exits_run
import msgspec
import numpy as np
import pytest
from bundles import manifest, tree, write_bundle

from modeltree.errors import ConfigError
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import Trace
from modeltree.manifest import Provenance, encode_manifest
from modeltree.reward import Reward
from modeltree.tree import BandwidthFork, Leaf, encode_tree
from modeltree.tree.emulate import emulate
from nas.config import SearchConfig, encode_config
from nas.emulation.estimated import emulate_estimated
from nas.emulation.methods import emulate_methods, mean_over, verdicts
from nas.results.trees import read_methods, searched_links

RTT_MS = 10.0
FAST_MS = RTT_MS + 3072 / 1000 + 0.9
"""At 8 Mbit/s a millisecond carries 1000 bytes: the image crosses, and the cloud takes 0.9 ms."""
SLOW_MS = 20.0 + 60.0


def trace_of(bandwidth_mbps, *, interval_s=50.0, name="link"):
    n = len(bandwidth_mbps)
    return Trace(
        name=name, time_s=np.arange(n) * interval_s, bandwidth_mbps=np.array(bandwidth_mbps), end_s=n * interval_s,
        rtt_ms=RTT_MS, origin="test",
    )  # fmt: skip


def device_only(device_ms=100.0, accuracy=93.0):
    """One node for all types of the tree by hand, cut to its first block."""
    whole = tree()
    node = msgspec.structs.replace(
        whole.nodes[0], fork=BandwidthFork(types=(0, 1)), device_ms=device_ms, children=(), actions=(),
        leaf=Leaf(chance=1.0, latency_ms=device_ms, accuracy=accuracy, accuracy_origin="measured"),
    )  # fmt: skip
    return msgspec.structs.replace(whole, nodes=(node,))


@pytest.mark.parametrize(
    ("mbps", "latency_ms", "accuracy", "handed_over", "leaf"),
    [(8.0, FAST_MS, 92.0, 1.0, 1), (1.0, SLOW_MS, 90.5, 0.0, 2)],
)
def test_a_constant_link_gives_what_a_hand_would(mbps, latency_ms, accuracy, handed_over, leaf):
    """The round trip is the link's 10 ms, not the 30 that the tree was searched for."""
    row = emulate_methods({"tree": tree()}, trace_of([mbps]), starts=7).row("tree")
    assert row.latency_ms == pytest.approx(latency_ms)
    assert row.p95_latency_ms == pytest.approx(latency_ms)
    assert (row.accuracy, row.handed_over, dict(row.paths)) == (pytest.approx(accuracy), handed_over, {leaf: 1.0})
    assert row.reward == pytest.approx(Reward().of(accuracy, latency_ms))


@pytest.mark.parametrize("measure", ["perfect", "estimated"])
def test_sure_samples_leave_early_and_pay_for_the_head_as_the_others_do(measure):
    """Slow: 1 + 1 ms to leave, 0.4 do; 60 ms more for the others."""
    seen = emulate_methods({"tree": exits_run.tree()}, trace_of([1.0]), starts=500, measure=measure)
    row = seen.row("tree")
    assert row.left_early == pytest.approx(0.4, abs=0.005)
    assert row.latency_ms == pytest.approx(2 + 60 * (1 - row.left_early))
    assert set(seen.latency_ms["tree"]) == {2.0, 62.0}
    assert dict(row.paths) == {exits_run.END: 1 - row.left_early, exits_run.SURE: row.left_early}


def test_on_a_link_of_two_halves_the_shares_and_the_comparisons_are_halves():
    seen = emulate_methods({"surgery": device_only(), "tree": tree()}, trace_of([8.0, 1.0]), starts=10)
    row = seen.row("tree")
    mean_ms = (FAST_MS + SLOW_MS) / 2
    assert row.latency_ms == pytest.approx(mean_ms)
    assert (row.handed_over, dict(row.paths)) == (0.5, {1: 0.5, 2: 0.5})
    assert row.over_percent(seen.surgery_of("tree")) == pytest.approx(mean_ms - 100.0)
    assert seen.row("surgery").over_percent(seen.surgery_of("surgery")) == 0.0
    assert seen.oracle.reward >= max(one.reward for one in seen.rows)
    assert seen.latency_ms["tree"].tolist() == pytest.approx([FAST_MS] * 5 + [SLOW_MS] * 5)


def test_the_mean_over_links_counts_each_alike():
    links = [emulate_methods({"tree": tree()}, trace_of([mbps]), starts=n) for mbps, n in ((8.0, 3), (1.0, 90))]
    whole = mean_over(links)
    assert whole.row("tree").latency_ms == pytest.approx((FAST_MS + SLOW_MS) / 2)
    assert whole.oracle.reward == pytest.approx((links[0].oracle.reward + links[1].oracle.reward) / 2)
    assert whole.row("tree").over_percent(whole.surgery_of("tree")) is None


def test_the_verdict_says_how_far_the_tree_is_under_surgery():
    trees = {"surgery": device_only(), "tree": tree()}
    (said,) = verdicts(emulate_methods(trees, trace_of([8.0]), starts=5), trees)
    assert "The model tree is the best choice" in said
    assert "86 % under surgery and level with the oracle" in said  # 13.97 ms to 100 ms


def test_the_verdict_says_when_splitting_does_not_help():
    trees = {"device_only": device_only(12.0, 93.0), "tree": tree()}
    (said,) = verdicts(emulate_methods(trees, trace_of([1.0]), starts=5), trees)
    assert said.startswith("Splitting does not help here: keep everything on the device")
    assert "the tree is 567 % over it" in said  # 80 ms to 12 ms


def test_trees_of_two_folders_are_judged_apart():
    trees = {"a/surgery": device_only(), "a/tree": tree(), "b/tree": device_only(50.0)}
    said = verdicts(emulate_methods(trees, trace_of([8.0]), starts=5), trees)
    assert [one.split(":")[0] for one in said] == ["a", "b"]
    assert "under surgery" in said[0]
    assert "surgery" not in said[1]


@pytest.mark.parametrize(
    ("trees", "options", "why"),
    [
        ({}, {}, "0 trees"),
        ({"tree": tree()}, {"starts": 0}, "at least 1"),
        ({"tree": tree()}, {"measure": "guessed"}, "unknown measure 'guessed': known are estimated, perfect"),
    ],
)
def test_what_cannot_be_emulated_is_refused(trees, options, why):
    with pytest.raises(ConfigError, match=why):
        emulate_methods(trees, trace_of([1.0]), **options)


def here():
    return msgspec.structs.replace(tree(), rtt_ms=RTT_MS)


def test_before_anything_is_known_the_device_stays_alone_and_then_it_is_as_if_the_link_were_known():
    """The first probe is answered after 24 ms, the second fork comes at 20: both of its forks take the slowest."""
    seen = emulate_estimated(here(), trace_of([8.0]), starts_s=np.arange(20) + 0.5)
    assert seen.leaf.tolist() == [2] + [1] * 19
    np.testing.assert_allclose(seen.latency_ms, [SLOW_MS] + [FAST_MS] * 19)


def test_what_has_not_been_answered_yet_is_not_known():
    seen = emulate_estimated(here(), trace_of([8.0]), starts_s=np.array([0.0, 0.001, 0.003, 0.1]))
    assert seen.leaf.tolist() == [2, 2, 2, 1]


def test_a_link_that_breaks_is_noticed_by_the_hand_over_that_meets_it():
    """At 50 s 8 Mbit/s become 1: the first hand-over after it takes 24.6 ms for the bytes, and the next stays here."""
    seen = emulate_estimated(here(), trace_of([8.0, 1.0]), starts_s=np.arange(100) + 0.5)
    known = emulate(here(), trace_of([8.0, 1.0]), starts_s=np.arange(100) + 0.5)
    assert (known.leaf[50], seen.leaf[50]) == (2, 1)
    assert seen.latency_ms[50] == pytest.approx(RTT_MS + 3072 / 125 + 0.9)
    assert set(seen.leaf[55:].tolist()) == {2}


def test_a_link_that_recovers_while_nothing_is_handed_over_is_noticed_by_probes():
    """An estimate that has been right all along is probed every 15 s only."""
    seen = emulate_estimated(here(), trace_of([1.0, 8.0]), starts_s=np.arange(100) + 0.5)
    assert set(seen.leaf[:50].tolist()) == {2}
    assert set(seen.leaf[70:].tolist()) == {1}


def test_starts_in_any_order_give_the_same_inferences():
    starts_s = np.arange(40) * 0.7
    order = np.random.default_rng(1).permutation(40)
    trace = trace_of([8.0, 1.0, 3.0, 0.2, 20.0], interval_s=5.0)
    straight, mixed = (emulate_estimated(here(), trace, starts_s=one) for one in (starts_s, starts_s[order]))
    np.testing.assert_array_equal(straight.latency_ms[order], mixed.latency_ms)


def test_measuring_costs_what_the_wrong_forks_cost():
    trace = trace_of([8.0, 1.0], interval_s=5.0)
    trees = {"device_only": device_only(), "tree": tree()}
    seen = emulate_methods(trees, trace, starts=20, measure="estimated")
    known = emulate_methods(trees, trace, starts=20)
    assert seen.row("device_only").over_perfect_percent == 0.0
    assert seen.row("tree").perfect_latency_ms == known.row("tree").latency_ms
    assert seen.row("tree").paths != known.row("tree").paths


def write_run(folder, trees, *, seed=3):
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(encode_config(SearchConfig(seed=seed)))
    (folder / "summary.json").write_text(json.dumps({"version": 1, "config": {"seed": seed}}))
    (folder / "tree.json").write_bytes(encode_tree(tree()))
    for name, one in trees.items():
        (folder / "methods").mkdir(exist_ok=True)
        (folder / "methods" / f"{name}.json").write_bytes(encode_tree(one))
    return folder


def test_a_run_gives_the_trees_of_its_methods_the_simplest_first(tmp_path):
    found = read_methods([write_run(tmp_path / "run", {"tree": tree(), "mine": tree(), "device_only": device_only()})])
    assert list(found.trees) == ["device_only", "tree", "mine"]
    assert found.links == (("wifi_weak_indoor", 3, 30.0),)


def test_an_older_run_gives_its_tree_alone(tmp_path):
    assert read_methods([write_run(tmp_path / "run", {})]).trees == {"tree": tree()}


def test_bundles_and_folders_of_bundles_say_whose_tree_they_hold(tmp_path):
    for method in ("surgery", "tree"):
        folder = write_bundle(tmp_path / "bundles" / method)
        whole = msgspec.structs.replace(manifest(), provenance=Provenance(method=method, config={"seed": 5}))
        (folder / "manifest.json").write_bytes(encode_manifest(whole))
    assert list(read_methods([tmp_path / "bundles"]).trees) == ["surgery", "tree"]
    found = read_methods([tmp_path / "bundles" / "tree", tmp_path / "bundles"])  # the same tree twice is one
    assert list(found.trees) == ["surgery", "tree"]
    assert found.links == (("wifi_weak_indoor", 5, 30.0),)


def test_methods_that_differ_under_one_name_are_told_apart_by_their_folders(tmp_path):
    one = write_run(tmp_path / "one", {"tree": tree(), "surgery": device_only()})
    other = write_run(tmp_path / "other", {"tree": device_only(70.0)})
    assert list(read_methods([one, other]).trees) == ["one/surgery", "one/tree", "other/tree"]
    twin = write_run(tmp_path / "x" / "one", {"tree": device_only(70.0)})
    assert list(read_methods([one, twin]).trees) == [f"{one}/surgery", f"{one}/tree", f"{twin}/tree"]


def test_trees_that_do_different_things_are_not_compared(tmp_path):
    one = write_run(tmp_path / "one", {"tree": tree()})
    other = write_run(tmp_path / "other", {"tree": msgspec.structs.replace(tree(), classes=("cat", "bird"))})
    with pytest.raises(ConfigError, match="tell different classes apart"):
        read_methods([one, other])


def test_the_link_that_was_searched_for_is_played_with_its_seed_and_round_trip(tmp_path):
    found = read_methods([write_run(tmp_path / "run", {})])
    (trace,) = searched_links(found, seed=None, rtt_ms=None)
    assert (trace.origin, trace.rtt_ms) == ("synthetic scene wifi_weak_indoor, seed 3", 30.0)
    (trace,) = searched_links(found, seed=4, rtt_ms=12.0)
    assert (trace.origin, trace.rtt_ms) == ("synthetic scene wifi_weak_indoor, seed 4", 12.0)


def test_a_link_that_is_not_here_must_be_named(tmp_path):
    gone = write_run(tmp_path / "run", {"tree": msgspec.structs.replace(tree(), trace="gone.csv")})
    with pytest.raises(ConfigError, match=r"gone\.csv.*pass --trace"):
        searched_links(read_methods([gone]), seed=None, rtt_ms=None)


def test_types_that_a_tree_never_saw_still_have_a_fork():
    """A tree of one type has no edges; any bandwidth takes its only path, estimated or not."""
    one = BandwidthTypes(representative_mbps=(1.0,), edges_mbps=(), transition=((1.0,),), initial=(1.0,))
    alone = msgspec.structs.replace(
        device_only(),
        types=one,
        nodes=(msgspec.structs.replace(device_only().nodes[0], fork=BandwidthFork(types=(0,))),),
    )
    assert emulate_estimated(alone, trace_of([0.0, 9.0]), starts_s=np.arange(5.0)).leaf.tolist() == [0] * 5


def sends(rest_ms):
    """One path: the image crosses, and the rest would take so long here."""
    first = msgspec.structs.replace(here().nodes[1], id=0, fork=BandwidthFork(types=(0, 1)))
    handover = msgspec.structs.replace(first.handover, device_ms=rest_ms)
    leaf = msgspec.structs.replace(first.leaf, chance=1.0)
    return msgspec.structs.replace(here(), nodes=(msgspec.structs.replace(first, handover=handover, leaf=leaf),))


def test_an_outage_is_not_waited_out_but_once_and_then_the_server_is_left_alone_until_it_answered():
    """Out from 50 s to 51: the first hand-over waits until overdue, those behind it do not wait at all."""
    out = Trace(
        name="out", origin="test", time_s=np.array([0.0, 50.0, 51.0]), bandwidth_mbps=np.array([8.0, 0.0, 8.0]),
        end_s=100.0, rtt_ms=RTT_MS,
    )  # fmt: skip
    starts_s = 40.05 + 0.25 * np.arange(80)
    ms = emulate_estimated(sends(30.0), out, starts_s=starts_s).latency_ms
    before, during, after = ms[starts_s < 50], ms[(starts_s > 50) & (starts_s < 51)], ms[starts_s > 51.5]
    np.testing.assert_allclose(before, FAST_MS)
    assert FAST_MS + 30 < during[0] < 200
    np.testing.assert_allclose(during[1:], 30.0)
    np.testing.assert_allclose(after, FAST_MS)
    waits = emulate_estimated(sends(0.0), out, starts_s=starts_s).latency_ms  # who cannot go on alone
    assert waits[(starts_s > 50) & (starts_s < 51)][0] > 900


@pytest.mark.parametrize("measure", ["perfect", "estimated"])
def test_forks_are_taken_as_the_policy_says(measure):
    """At 4 Mbit/s the switch stays, as the type is the slow one; who weighs hands over, for that is faster."""
    trees, link = {"tree": here()}, trace_of([4.0])
    switch, measured = (
        emulate_methods(trees, link, starts=20, measure=measure, policy=policy) for policy in ("switch", "measured")
    )
    assert switch.row("tree").handed_over < 0.1
    assert measured.row("tree").handed_over > 0.9
    assert (switch.policy, measured.policy) == ("switch", "measured")
