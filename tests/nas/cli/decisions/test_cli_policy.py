"""nas policy at the command line: training to a file, comparing, a page; one line for what can be mended."""

import csv
import dataclasses
import re

import msgspec
import numpy as np
import pytest
import torch
from decision_tables import small_tree
from html_pages import alone, charts_of

from modeltree.link.scenes import load_trace
from modeltree.link.traces import Trace
from modeltree.offloading.decisions import Objective, Reward, tree_decisions
from modeltree.tree import encode_tree
from nas.decisions.offloading.inputs import parse_sweep, read_tree
from nas.decisions.offloading.replay import play
from runtime.selection.battery import Battery, stay_ms, worst_mj
from runtime.selection.policies import Dense, Exact, Fixed, Trained, cloud_only, on_device, read_policy, write_policy

RULES = ["exact", "greedy", "on_device", "cloud_only"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tree_file(tmp_path):
    path = tmp_path / "tree.json"
    path.write_bytes(encode_tree(small_tree()))
    return path


def row_of(told, policy):
    return next(line.split() for line in told.splitlines() if line.split()[:1] == [policy])


def choices(folder):
    with (folder / "policies.csv").open() as file:
        return list(csv.DictReader(file))


def a_link(*mbps):
    """A second of each bandwidth, with a round trip of 10 ms."""
    return Trace(name="steps", origin="made up", time_s=np.arange(len(mbps)), bandwidth_mbps=np.array(mbps),
                 end_s=float(len(mbps)), rtt_ms=10.0)  # fmt: skip


@pytest.mark.parametrize("agent", ["sac", "dqn"])
def test_a_trained_policy_is_written_compared_and_the_same_again(nas, tree_file, tmp_path, agent):
    words = ("policy", "train", tree_file, "--agent", agent, "--steps", 600, "--seed", 3, "--quiet")
    status, told, error = nas(*words, "--out", "one.npz", "--energy-budget-mj", 150)
    assert (status, error) == (0, [])
    assert "6 actions, round trip 10 ms, energy: profile pi4" in told
    assert f"one.npz: {agent}, seed 3, 0..80 Mbit/s, evenly, 2 % at the lowest, objective wang" in told
    policy = read_policy(tmp_path / "one.npz", small_tree())
    assert policy.decisions.objective == Reward()
    assert (policy.decisions.budget_mj, policy.decisions.energy.power_w) == (150.0, 0.7)
    nas(*words, "--out", "two.npz", "--energy-budget-mj", 150)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()

    status, told, error = nas("policy", "eval", tree_file, "--policy", "one.npz", "--sweep", "0:40:2", "--out", "seen")
    assert (status, error) == (0, [])
    shares = [float(row_of(told, name)[2]) for name in [*RULES, "one"]]
    assert shares[0] == 100.0
    assert max(shares) == 100.0
    assert "exact:\n" in told
    assert "one:\n" in told
    assert "Predicted times and energy, accuracy as the tree says" in told
    assert {row["policy"] for row in choices(tmp_path / "seen")} == {*RULES, "one"}
    html = (tmp_path / "seen" / "policies.html").read_text()
    text, charts = alone(html).text, charts_of(html)
    assert all(name in text for name in [*RULES, "one", "predicted"])
    assert [chart["layer"][0]["encoding"]["x"]["title"] for chart in charts] == ["bandwidth in Mbit/s"] * len(charts)
    assert len(charts) >= 4


def test_a_policy_learns_from_a_recorded_link(nas, tree_file, tmp_path):
    (tmp_path / "t.csv").write_text("# rtt_ms=15\n# end_s=10\ntime_s,bandwidth_mbps\n0,8\n5,1\n")
    words = ("--link", "t.csv", "--objective", "niu", "--steps", 600, "--quiet", "--out", "p.npz")
    status, told, _ = nas("policy", "train", tree_file, *words)
    assert status == 0
    assert "round trip 15 ms" in told
    assert "p.npz: sac, seed 0, link t, objective niu" in told
    assert read_policy(tmp_path / "p.npz", small_tree()).decisions.objective == Objective()
    status, told, _ = nas("policy", "eval", tree_file, "--policy", "p.npz", "--link", "t.csv", "--out", "seen")
    assert status == 0
    assert "200 inferences on t, 4.50 Mbit/s on average" in told
    html = (tmp_path / "seen" / "policies.html").read_text()
    alone(html)
    (along,) = charts_of(html)
    titles = [panel["layer"][0]["encoding"]["y"]["title"] for panel in along["vconcat"][1:]]
    assert [title.removesuffix(" (log scale)") for title in titles] == [
        "latency in ms, simulated", "energy spent in mJ, simulated", "exit",
    ]  # fmt: skip


def test_a_sweep_tells_what_is_best_where(nas, tree_file, tmp_path):
    _, told, _ = nas("policy", "eval", tree_file, "--sweep", "0:80:8", "--objective", "niu", "--out", "seen")
    decisions = tree_decisions(small_tree(), objective=Objective())
    best = {name: row for row in choices(tmp_path / "seen") for name in [row["policy"]] if float(row["mbps"]) == 80}
    table, action = decisions.table, decisions.best(80.0)
    assert [int(best["exact"][key]) for key in ("exit", "cut", "bits", "leaf")] == table.keys[action].tolist()
    assert float(best["exact"]["latency_ms"]) == pytest.approx(decisions.latency_ms(80.0)[action], rel=1e-4)
    assert re.search(rf"to +80 Mbit/s  {re.escape(table.name(action))}", told)
    assert float(row_of(told, "cloud_only")[8]) == pytest.approx(100 * 10 / 11, abs=0.1)  # none comes at 0 Mbit/s


def test_a_run_is_known_by_its_menu_of_actions_then_by_its_tree(nas, tmp_path):
    run = tmp_path / "run"
    (run / "methods").mkdir(parents=True)
    for name, base in (("tree.json", "nin"), ("methods/branch.json", "alexnet")):
        (run / name).write_bytes(encode_tree(small_tree(base=base)))
    assert read_tree(run)[0].base == "nin"
    (run / "methods" / "actions.json").write_bytes(encode_tree(small_tree(base="vgg16")))
    assert read_tree(run)[0].base == "vgg16"
    assert read_tree(run, "branch")[0].base == "alexnet"
    status, _, error = nas("policy", "eval", run, "--method", "surgery", "--out", "seen")
    assert status == 2
    assert error == ["nas: unknown method of this run 'surgery': known are actions, branch"]


def test_on_a_link_every_transfer_takes_what_the_trace_gives(tmp_path):
    decisions = tree_decisions(small_tree())
    link, starts = a_link(8.0, 1.0), np.array([0.5, 1.0, 1.5])
    seen = play(decisions, Fixed(decisions, 0), link, starts, timeout_ms=2000.0)
    # leaf 1: 4 ms, 4000 bytes (4 ms at 8 Mbit/s, 32 at 1), 10 ms round trip, 0.5 ms in the cloud
    np.testing.assert_allclose(seen.latency_ms, [18.5, 46.5, 46.5])
    watts = decisions.energy
    np.testing.assert_allclose(seen.energy_mj, 4 * watts.compute_w + watts.transmit_w * np.array([4.0, 32.0, 32.0]))
    np.testing.assert_allclose(seen.reward, Reward().of(92.0, seen.latency_ms) / 400)
    assert not seen.gave_up.any()


def test_an_answer_that_does_not_come_is_given_up_and_the_rest_runs_here():
    decisions = tree_decisions(small_tree())
    rest = stay_ms(small_tree(), decisions.table)
    link = a_link(8.0, 0.0)
    seen = play(decisions, Fixed(decisions, 0), link, np.array([0.0, 1.2]), stay_ms=rest, timeout_ms=100.0)
    assert seen.gave_up.tolist() == [False, True]
    assert seen.latency_ms[1] == pytest.approx(4 + 100 + 40)
    worst = worst_mj(decisions, rest, timeout_ms=100.0)
    assert seen.energy_mj[1] == pytest.approx(worst[0])
    assert seen.energy_mj[0] < worst[0]


@pytest.mark.parametrize("scene", ["4g_outdoor_quick", "wifi_weak_outdoor"])
@pytest.mark.parametrize("generous", [1.01, 1.5, 4.0])
def test_whatever_the_link_does_no_policy_spends_more_than_its_battery_holds(scene, generous):
    decisions = dataclasses.replace(tree_decisions(small_tree()), rtt_ms=70.0)
    rest = stay_ms(small_tree(), decisions.table)
    worst = worst_mj(decisions, rest, timeout_ms=150.0)
    trace, count = load_trace(scene, seed=1), 300
    budget = float(generous * count * worst.min())
    for policy in (Exact(decisions=decisions), on_device(decisions), cloud_only(decisions)):
        battery = Battery(budget_mj=budget, inferences=count, worst_mj=worst)
        starts = np.linspace(0.0, 290.0, count)
        seen = play(decisions, policy, trace, starts, stay_ms=rest, timeout_ms=150.0, battery=battery)
        assert seen.energy_mj.sum() <= budget
        assert len(seen.action) == count
    free = play(decisions, on_device(decisions), trace, starts, stay_ms=rest, timeout_ms=150.0)
    assert free.energy_mj.sum() > budget  # it is the battery that holds it


def test_the_battery_of_the_command_line_is_kept(nas, tree_file):
    words = ("--link", "wifi_weak_outdoor", "--inferences", 50, "--timeout-ms", 100, "--out", "seen")
    _, told, _ = nas("policy", "eval", tree_file, *words, "--battery-mj", 3000)
    assert "battery 3000 mJ" in told
    assert all(float(row_of(told, name)[7]) <= 3000 for name in RULES)
    _, told, _ = nas("policy", "eval", tree_file, *words)
    assert float(row_of(told, "on_device")[7]) == pytest.approx(50 * 180, rel=0.001)
    status, _, error = nas("policy", "eval", tree_file, *words, "--battery-mj", 100)
    assert status == 2
    assert "a battery of 100 mJ is too small for 50 inferences" in error[0]


def test_a_tree_that_does_not_know_its_rests_gives_nothing_up_and_takes_no_battery(nas, tmp_path):
    (tmp_path / "tree.json").write_bytes(encode_tree(small_tree(rest_ms=0.0)))
    words = ("policy", "eval", "tree.json", "--link", "wifi_weak_outdoor", "--out", "seen")
    status, told, _ = nas(*words, "--timeout-ms", 1)
    assert status == 0
    assert float(row_of(told, "cloud_only")[9]) == 0.0
    status, _, error = nas(*words, "--battery-mj", 1e6)
    assert status == 2
    assert "does not say how long the rest behind node 1 takes" in error[0]


def test_energy_is_the_devices_or_a_profiles_that_is_named(nas, tmp_path):
    own = msgspec.structs.replace(small_tree(), device="my_board")
    (tmp_path / "tree.json").write_bytes(encode_tree(own))
    _, told, _ = nas("policy", "eval", "tree.json", "--out", "seen")
    assert "energy: the default (there is no shipped profile my_board; pass --device)" in told
    _, told, _ = nas("policy", "eval", "tree.json", "--out", "seen", "--device", "tx2")
    assert "energy: profile tx2" in told
    assert float(row_of(told, "on_device")[6]) == pytest.approx(60 * 9.0, rel=0.001)
    status, _, error = nas("policy", "eval", "tree.json", "--out", "seen", "--device", "cloud_gpu")
    assert (status, error[0][:44]) == (2, "nas: profile cloud_gpu has no energy: add it")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "tree.json", "--out", "p.npz", "--agent", "ppo"), "unknown agent 'ppo': known are ddqn, dqn, sac"),
        (("train", "tree.json", "--out", "p.zip"), "a policy's file must end in .npz"),
        (("train", "tree.json", "--out", "p.npz", "--objective", "x"), "unknown objective 'x': known are niu, wang"),
        (("train", "none.json", "--out", "p.npz"), "cannot read none.json"),
        (("eval", ".", "--out", "seen", "--method", "tree"), "unknown method of this run"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "8"), "must be LOW:HIGH or LOW:HIGH:STEP"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "a:b"), "must be LOW:HIGH or LOW:HIGH:STEP"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "5:1"), "it must rise"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "0:80:0"), "it must rise"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "0:80:1e-9"), "it must rise"),
        (("eval", "tree.json", "--out", "seen", "--sweep", "0:8", "--link", "4g_indoor_slow"), "both --link and"),
        (("eval", "tree.json", "--out", "seen", "--battery-mj", "5"), "needs a link to be spent on"),
        (("eval", "tree.json", "--out", "seen", "--policy", "none.npz"), "cannot read policy none.npz"),
        (("eval", "tree.json", "--out", "seen", "--policy", "tree.json"), "tree.json is not a policy"),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_one_line(nas, tree_file, words, message):
    status, _, error = nas("policy", *words)
    assert status == 2
    assert len(error) == 1
    assert message in error[0]


@pytest.mark.parametrize(("text", "first", "last", "count"), [("0:80:1", 0, 80, 81), ("2:4", 2, 4, 101)])
def test_a_sweep_has_both_its_ends(text, first, last, count):
    mbps = parse_sweep(text).mbps()
    assert (mbps[0], mbps[-1], len(mbps)) == (first, pytest.approx(last), count)


def a_policy(path, **rest):
    decisions = tree_decisions(small_tree(), **rest)
    network = Dense([np.ones((4, 6), np.float32)], [np.arange(6, dtype=np.float32)])
    write_policy(path, Trained(decisions=decisions, network=network), agent="sac", seed=0, trained_on="nothing")


def test_policies_are_compared_under_the_objective_they_were_trained_for(nas, tree_file, tmp_path):
    a_policy(tmp_path / "a.npz", objective=Objective())
    a_policy(tmp_path / "b.npz")
    _, asked, _ = nas("policy", "eval", tree_file, "--objective", "niu", "--out", "seen")
    _, told, _ = nas("policy", "eval", tree_file, "--policy", "a.npz", "--out", "seen")
    assert row_of(told, "exact")[1] == row_of(asked, "exact")[1]
    both = ("policy", "eval", tree_file, "--policy", "a.npz", "--policy", "b.npz", "--out", "seen")
    status, _, error = nas(*both)
    assert status == 2
    assert "trained for different objectives: say which one counts with --objective" in error[0]
    assert nas(*both, "--objective", "wang")[0] == 0


def test_a_policys_file_is_not_called_like_a_rule_or_another(nas, tree_file, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("exact.npz", "a.npz", "more/a.npz"):
        a_policy(tmp_path / name)
    _, _, error = nas("policy", "eval", tree_file, "--policy", "exact.npz", "--out", "seen")
    assert error == ["nas: a policy's file is called exact, like a rule: rename it"]
    _, _, error = nas("policy", "eval", tree_file, "--policy", "a.npz", "--policy", "more/a.npz", "--out", "seen")
    assert error == ["nas: two policies' files have the same name: rename one"]
