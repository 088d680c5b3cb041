"""Early exits, coded hand-overs and policies in a session, against torch: real libraries, a real server."""

import math
import random
import time
from contextlib import contextmanager

import numpy as np
import pytest
from exits_run import (
    EIGHT_BITS,
    END,
    EXIT,
    FAST_MBPS,
    FEATURES,
    FIRST,
    FOUR_BITS,
    HEAD,
    MIDDLE_MBPS,
    REST,
    SECOND_EXIT,
    SLOW_MBPS,
    SURE,
    answered,
    compiled,
    entropy,
    image,
    threshold,
    tree,
)
from in_process_transport import InProcessTransport
from msgspec.structs import replace

from modeltree.errors import ConfigError, FormatError
from modeltree.offloading.decisions import tree_decisions
from modeltree.profiles import load_profile
from modeltree.tree import BandwidthFork
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.options import SessionOptions
from runtime.selection.battery import Exhausted
from runtime.selection.branch_selection import ByPolicy, BySwitch, Charge, Driver, LinkState, open_driver
from runtime.selection.early_exit import entropy_nats
from runtime.selection.policies import Dense, Trained, write_policy
from runtime.server.interface import Answer, Busy, ModelInfo
from runtime.server.serving import ServeConfig, Server
from runtime.session import Session
from runtime.wire.transports import open_transport

SEEDS = range(20)
AGES_S = 20.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("exits"))


@pytest.fixture(scope="module")
def url(bundle):
    with Server(ServeConfig(bundle=bundle, listen=("grpc://127.0.0.1:0",))) as server:
        yield server.urls[0]


def sure(seed):
    return entropy(answered(SURE, image(seed))) <= threshold()


UNSURE = next(seed for seed in SEEDS if not sure(seed))


def close_to(result, leaf, pixels, tolerance=1e-4):
    wanted = answered(leaf, pixels)
    return np.abs(result.output - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("policy", ["switch", "exact"])
def test_sure_samples_leave_and_others_cross_in_few_bits(bundle, url, policy):
    """On a fast link the switch hands over 4 bits, the exact rule 8; see `exits_run`."""
    crossing = FOUR_BITS if policy == "switch" else EIGHT_BITS
    device, options = Device(Bundle.open(bundle)), SessionOptions(timeout_s=20.0)
    link = FixedLink(FAST_MBPS)  # tiny messages on a busy machine may look slow
    with Session(device, link, open_transport(url), options, driver=open_driver(tree(), policy)) as session:
        for seed in SEEDS:
            result = session.infer(image(seed))
            leaf, who = (SURE, "device") if sure(seed) else (crossing, "cloud")
            assert (result.nodes, result.answered_by) == ((0, leaf), who), result.why
            # a number near the border between two codes may take the other: a step of the feature map
            assert close_to(result, leaf, image(seed), 1e-4 if leaf == SURE else 0.05)
            assert result.why.startswith("left through exit 1: entropy" if leaf == SURE else "handed over at place 1")
    assert 5 <= sum(map(sure, SEEDS)) <= 15


class Cloud:
    """An engine with the rest of the network; `trouble` is called before each answer."""

    def __init__(self, device):
        self.device, self.trouble, self.asked = device, lambda: None, 0
        self.models = {REST: ModelInfo(shape_in=FEATURES, shape_out=(4,))}

    def infer(self, model, x, *, deadline_s):
        self.asked += 1
        self.trouble()
        return Answer(output=self.device.run(model, x), seconds=1e-4)

    def ready(self):
        return True


class FixedLink:
    def __init__(self, mbps):
        self.mbps = mbps

    def bandwidth_type(self):
        return int(not self.mbps < 5.0), self.mbps

    def observe(self, exchange, *, finished=True):
        pass

    def expected_s(self, size_bytes):
        return None


@pytest.fixture
def opened(bundle):
    """(session, cloud, link, seconds that blocks claim to take: none), driven by the switch."""
    with opened_by(None, bundle) as made:
        yield made


@contextmanager
def opened_by(driver, bundle):
    device, cloud, link = Device(Bundle.open(bundle)), Cloud(Device(Bundle.open(bundle))), FixedLink(FAST_MBPS)
    takes_s = dict.fromkeys((FIRST, REST, HEAD, SECOND_EXIT), 0.0)
    device.within_s = takes_s.__getitem__
    options = SessionOptions(timeout_s=AGES_S)
    with Session(
        device, link, InProcessTransport(cloud), options, driver=driver, rng=random.Random(0)
    ) as session:  # fmt: skip
        yield session, cloud, link, takes_s


def refuse():
    raise Busy("no room")


def test_without_a_deadline_no_exit_is_taken_that_the_fork_does_not_take(opened):
    session, cloud, _, takes_s = opened
    takes_s[REST] = 10 * AGES_S
    cloud.trouble = refuse
    result = session.infer(image(UNSURE))
    assert (result.nodes, result.answered_by) == ((0, FOUR_BITS), "device")
    assert "went on here at place 1" in result.why
    assert close_to(result, END, image(UNSURE))  # what did not cross was not quantised


def test_an_exit_in_time_is_taken_where_the_path_would_be_late(opened):
    session, _, link, takes_s = opened
    link.mbps, takes_s[REST] = SLOW_MBPS, 10 * AGES_S
    result = session.infer(image(UNSURE), deadline_ms=1e3 * AGES_S)
    assert (result.nodes, result.met) == ((0, EXIT), True)
    assert result.why == "left through exit 2: what the forks would do is late"
    assert close_to(result, EXIT, image(UNSURE))


def test_where_only_a_head_is_in_time_it_answers_whether_it_is_sure_or_not(opened):
    session, _, link, takes_s = opened
    link.mbps = SLOW_MBPS
    takes_s |= {REST: 10 * AGES_S, SECOND_EXIT: 10 * AGES_S}
    result = session.infer(image(UNSURE), deadline_ms=1e3 * AGES_S)
    assert (result.nodes, result.why) == ((0, SURE), "left through exit 1: what the forks would do is late")
    assert close_to(result, SURE, image(UNSURE))


def test_where_nothing_can_be_in_time_the_forks_are_followed(opened):
    session, _, link, takes_s = opened
    link.mbps, takes_s[FIRST] = SLOW_MBPS, 10 * AGES_S
    assert session.infer(image(UNSURE), deadline_ms=1e3 * AGES_S).nodes == (0, END)


@pytest.mark.parametrize(("slow", "leaf"), [((REST,), EXIT), ((REST, SECOND_EXIT), SURE)])
def test_a_cloud_that_fails_before_a_deadline_is_answered_for_by_the_latest_exit_in_time(opened, slow, leaf):
    """The head has spoken by then; its answer is at hand where nothing else can be in time."""
    session, cloud, _, takes_s = opened
    takes_s |= dict.fromkeys(slow, 10 * AGES_S)
    assert session.infer(image(UNSURE), deadline_ms=1e3 * AGES_S).answered_by == "cloud"
    cloud.trouble = refuse
    result = session.infer(image(UNSURE), deadline_ms=1e3 * AGES_S)
    assert (result.nodes, result.answered_by, result.met) == ((0, leaf), "device", True)
    assert "the cloud did not answer: " in result.why
    assert close_to(result, leaf, image(UNSURE))


def test_a_cloud_that_is_silent_until_the_deadline_is_answered_for_by_an_exit(opened):
    session, cloud, _, takes_s = opened
    takes_s[REST] = 10 * AGES_S
    cloud.trouble = lambda: time.sleep(1.0)
    result = session.infer(image(UNSURE), deadline_ms=200.0)
    assert (result.nodes, result.answered_by) == ((0, EXIT), "device")
    assert "no answer" in result.why  # ours or the transport's, whoever wakes first


def test_a_device_without_a_cloud_ends_here_and_leaves_when_sure(bundle):
    with Session.open(bundle, policy="switch") as session:
        for seed in SEEDS:
            leaf = SURE if sure(seed) else END
            result = session.infer(image(seed))
            assert result.nodes == (0, leaf)
            assert close_to(result, leaf, image(seed))


@pytest.mark.parametrize(
    ("logits", "nats"),
    [([0.0] * 4, math.log(4)), ([1e4, 0.0, -1e4], 0.0), ([math.log(3), 0.0], 2 * math.log(2) - 0.75 * math.log(3))],
)
def test_entropy_by_hand(logits, nats):
    assert entropy_nats(np.array([logits], np.float32)) == pytest.approx(nats, abs=1e-6)


def test_entropy_is_torchs():
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32) * 5
    assert [entropy_nats(row) for row in logits] == pytest.approx([entropy(row) for row in logits], abs=1e-5)


@pytest.mark.parametrize(("mbps", "leaf"), [(SLOW_MBPS, EXIT), (MIDDLE_MBPS, FOUR_BITS), (FAST_MBPS, EIGHT_BITS)])
def test_the_exact_rule_goes_to_the_leaf_of_the_highest_reward(bundle, mbps, leaf):
    """Reward 2 a point, -0.6 a ms: slow, exit 2 (155) beats the end (143); then 4 bits (166), then 8 bits (170)."""
    with opened_by(open_driver(tree(), "exact"), bundle) as (session, _, link, _):
        link.mbps = mbps
        result = session.infer(image(UNSURE))
    assert result.nodes == (0, leaf)
    assert close_to(result, leaf, image(UNSURE), 0.05)


def test_a_policy_does_not_choose_what_sends_where_the_cloud_is_not_asked():
    driver = open_driver(tree(), "exact")
    for mbps in (SLOW_MBPS, FAST_MBPS, math.nan):
        assert driver.child(0, LinkState(type=1, mbps=mbps, asks=False)).id == EXIT


def test_a_policy_takes_a_link_that_nobody_knows_for_slow():
    driver = open_driver(tree(), "exact")
    assert driver.child(None, LinkState(type=0, mbps=math.nan, asks=True)).id == 0
    assert driver.child(0, LinkState(type=0, mbps=math.nan, asks=True)).id == EXIT


class LeastSeen:
    """A policy that takes the first action it may, and notes the states."""

    def __init__(self):
        self.states = []

    def choose(self, state, among=None):
        self.states.append(state)
        return int(np.flatnonzero(among)[0])


def test_a_policys_state_is_what_the_last_action_took_and_the_bandwidth_now():
    policy, decisions = LeastSeen(), tree_decisions(tree())
    driver: Driver = ByPolicy(tree(), policy, decisions)
    fast = LinkState(type=1, mbps=FAST_MBPS, asks=True)
    driver.child(None, fast)
    driver.answered(EIGHT_BITS, fast, 0.0, 0.0)
    driver.answered(SURE, fast, 0.0, 0.0)  # no action
    driver.child(None, fast._replace(mbps=SLOW_MBPS))
    action = int(np.flatnonzero(decisions.table.leaf == EIGHT_BITS)[0])
    assert policy.states == [decisions.start(FAST_MBPS), decisions.after(action, FAST_MBPS, SLOW_MBPS)]


def test_the_switch_stays_through_an_exit_of_the_link_and_never_by_one_for_policies():
    one = tree()
    assert BySwitch(one).child(0, LinkState(type=1, mbps=FAST_MBPS, asks=False)).id == END
    nodes = list(one.nodes)
    ended, left = nodes[END].leaf, nodes[EXIT].leaf
    nodes[END] = replace(nodes[END], fork=BandwidthFork(types=()), leaf=replace(ended, chance=0.0))
    nodes[EXIT] = replace(nodes[EXIT], fork=replace(nodes[EXIT].fork, types=(0,)), leaf=replace(left, chance=0.3))
    assert BySwitch(replace(one, nodes=tuple(nodes))).child(0, LinkState(type=1, mbps=FAST_MBPS, asks=False)).id == EXIT


ENERGY = load_profile("pi4").energy
CHEAPEST_MJ, SENDING_MJ = ENERGY.mj(1.0 + 1.0 + 20.0, 0.0), ENERGY.mj(1.0 + 1.0 + 60.0, 1000.0)
"""Worst cases on a Pi 4: exit 2; and a hand-over that comes to nothing within 1 s, and the rest here."""


@pytest.mark.parametrize(("sends", "budget_mj"), [(False, 3.01 * CHEAPEST_MJ), (True, 3.01 * CHEAPEST_MJ + SENDING_MJ)])
def test_a_battery_allows_what_it_can_pay_for_and_never_spends_more_than_it_holds(bundle, sends, budget_mj):
    """The link is fast, and the exact rule would send; a battery without the means for that does not let it."""
    driver = open_driver(tree(), "exact", Charge(budget_mj=budget_mj, inferences=3, timeout_ms=1000.0))
    with opened_by(driver, bundle) as (session, cloud, _, _):
        ends = [session.infer(image(UNSURE)).nodes[-1] for _ in range(3)]
        assert ends == ([EIGHT_BITS] * 3 if sends else [EXIT] * 3)  # an answer in time takes little
        assert cloud.asked == (3 if sends else 0)
        assert 0 < driver.battery.spent_mj <= budget_mj
        with pytest.raises(Exhausted, match="all been made"):
            session.infer(image(UNSURE))


def test_a_battery_pays_for_the_radio_that_waited_in_vain_and_for_the_rest_here(bundle):
    driver = open_driver(tree(), "exact", Charge(budget_mj=1e6, inferences=2, timeout_ms=1000.0))
    with opened_by(driver, bundle) as (session, cloud, _, _):
        cloud.trouble = lambda: time.sleep(0.05) or refuse()
        result = session.infer(image(UNSURE))
    assert (result.nodes, result.answered_by) == ((0, EIGHT_BITS), "device")
    least_mj, most_mj = (ENERGY.mj(result.parts.device, radio_ms) for radio_ms in (50.0, result.parts.total))
    assert least_mj <= driver.battery.spent_mj <= most_mj


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"battery_mj": 1e6}, "pass both"),
        ({"battery_mj": 1e6, "inferences": 2, "mode": "only-cloud"}, "any mode but only-cloud"),
        ({"battery_mj": 1e6, "inferences": 2}, "policy measured spares no battery"),
        ({"battery_mj": 1.0, "inferences": 2, "policy": "exact"}, "too small for 2 inferences"),
    ],
)
def test_a_battery_that_cannot_be_is_refused(bundle, options, why):
    with pytest.raises(ConfigError, match=why):
        Session.open(bundle, **options)


def test_a_policy_that_is_none_is_refused(bundle, tmp_path):
    (tmp_path / "policy.npz").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"policy\.npz"):
        Session.open(bundle, policy=tmp_path / "policy.npz")
    with pytest.raises(ConfigError, match="'greedy': it must be switch, measured, exact or the file"):
        Session.open(bundle, policy="greedy")


def test_a_trained_policy_drives_by_its_scores(bundle, tmp_path):
    """A network without weights that scores one leaf highest, whatever the state."""
    decisions = tree_decisions(tree())
    scores = (decisions.table.leaf == EXIT).astype(np.float32)
    network = Dense([np.zeros((4, len(scores)), np.float32)], [scores])
    trained = Trained(decisions=decisions, network=network)
    write_policy(tmp_path / "policy.npz", trained, agent="sac", seed=0, trained_on="nothing")
    with Session.open(bundle, policy=tmp_path / "policy.npz") as session:
        assert session.infer(image(UNSURE)).nodes == (0, EXIT)
