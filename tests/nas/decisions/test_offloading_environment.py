import math

import numpy as np
import pytest
from decision_tables import small_decisions
from gymnasium.utils.env_checker import check_env

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from nas.decisions.offloading.environment import DecisionEnv, Replayed, Uniform
from nas.decisions.offloading.evaluate import decision_ms, paper_bandwidths, sweep
from runtime.selection.policies import Exact, Greedy, on_device

TRACE = Trace(
    name="steps", time_s=np.array([0.0, 2.0, 4.0]), bandwidth_mbps=np.array([1.0, 0.0, 50.0]), end_s=6.0, rtt_ms=3.0,
    origin="by hand",
)  # fmt: skip
PROCESSES = {"uniform": Uniform(), "trace": Replayed(trace=TRACE, interval_s=1.0)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@every_process
def test_gymnasium_finds_nothing_to_complain_about(process):
    check_env(DecisionEnv(small_decisions(), process), skip_render_check=True)


def played(env, seed, actions):
    steps = [env.reset(seed=seed)]
    steps += [env.step(action) for action in actions]
    return steps


@every_process
def test_the_same_seed_plays_the_same_episode(process):
    actions = np.random.default_rng(0).integers(54, size=32)
    one, two, other = (played(DecisionEnv(small_decisions(), process), seed, actions) for seed in (3, 3, 4))
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:] == b[1:]
    assert any((a[0] != b[0]).any() for a, b in zip(one, other))


COMPUTE_W, TRANSMIT_W = 3.375, 1.0
"""1e-27 W/Hz^3 at 1.5 GHz; 1 W where the logarithm is 1."""


def by_hand(action, mbps):
    """(ms, mJ, percent) of an action of the small table: 3 exits by 6 cuts by 3 widths, 3 ms of round trip."""
    exit, cut, width = action // 18, action // 3 % 6, action % 3
    layers, accuracy = ((3, 78.7), (4, 81.7), (5, 83.6))[exit]
    bits, lost = ((4, 3.0), (8, 0.5), (16, 0.0))[width]
    ms = [12.0, 20.0, 20.0, 15.0, 13.0]
    here_ms = sum(ms[: min(cut, layers)])
    if cut >= layers:
        return here_ms, COMPUTE_W * here_ms, accuracy
    sent = (150_528, 290_400, 69_984, 186_624, 64_896)[cut] * bits / 8 * 0.4
    wire_ms = sent / (125 * mbps) if mbps else math.inf
    latency_ms = here_ms + 3.0 + wire_ms + sum(ms[cut:layers]) / 10
    return latency_ms, COMPUTE_W * here_ms + TRANSMIT_W * wire_ms, accuracy - lost


def niu_reward(costs, action, mbps):
    """[Niu 2022, eqs. 13, 14]: accuracy and speed, each brought to 0..1 over all actions."""
    a = min(1.0, math.log1p(mbps / 80) / math.log(2))
    speeds, accuracies = [1 / one[0] for one in costs], [one[2] for one in costs]
    speed = (speeds[action] - min(speeds)) / (max(speeds) - min(speeds))
    accuracy = (accuracies[action] - min(accuracies)) / (max(accuracies) - min(accuracies))
    return a * accuracy + (1 - a) * speed


def test_a_step_pays_the_reward_at_the_bandwidth_seen_and_shows_what_it_took():
    env = DecisionEnv(small_decisions(), steps=5)
    seen, _ = env.reset(seed=0)
    for action in (0, 17, 53, 30):
        following, reward, ended, cut_off, told = env.step(action)
        now = told["mbps"]
        assert seen[3] == pytest.approx(2 * now / (now + 10) - 1, abs=1e-6)  # an eighth of 80 Mbit/s is the middle
        costs = [by_hand(one, now) for one in range(54)]
        took = costs[action]
        assert reward == pytest.approx(niu_reward(costs, action, now))
        assert (told["latency_ms"], told["energy_mj"], told["accuracy"]) == pytest.approx(took)
        fast = [by_hand(one, 80.0) for one in range(54)]
        for i in (0, 1):  # latency and energy, against the median action at 80 Mbit/s
            middle = np.median([one[i] for one in fast])
            assert following[i] == pytest.approx(1 - 2 * middle / (middle + took[i]), abs=1e-6)
        assert following[2] == pytest.approx(2 * (took[2] - 75.7) / (83.6 - 75.7) - 1, abs=1e-6)
        assert (ended, cut_off) == (False, False)
        seen = following
    assert env.step(0)[2:4] == (False, True)


def test_an_episode_that_is_over_wants_a_reset():
    env = DecisionEnv(small_decisions(), steps=1)
    for prepare in (lambda: None, lambda: (env.reset(seed=0), env.step(0))):
        prepare()
        with pytest.raises(ConfigError, match="call reset first"):
            env.step(0)


def test_uniform_bandwidths_fill_the_papers_range():
    drawn = Uniform().draw(20_000, np.random.default_rng(0))
    assert 0 <= drawn.min() < 0.1 < 79.9 < drawn.max() <= 80
    assert drawn.mean() == pytest.approx(40.0, abs=0.8)


def test_a_trace_is_replayed_in_its_order():
    drawn = Replayed(trace=TRACE, interval_s=2.0).draw(9, np.random.default_rng(0)).tolist()
    assert set(drawn) == {1.0, 0.0, 50.0}
    order = [1.0, 0.0, 50.0]
    assert drawn == [order[(order.index(drawn[0]) + i) % 3] for i in range(9)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uniform(low_mbps=5.0, high_mbps=5.0),
        lambda: Uniform(high_mbps=math.inf),
        lambda: Uniform(low_share=1.5),
        lambda: Replayed(trace=TRACE, interval_s=0.0),
        lambda: DecisionEnv(small_decisions(), steps=0),
    ],
)
def test_settings_that_cannot_be_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_even_draws_cover_the_range_and_now_and_then_the_link_is_out():
    drawn = Uniform(high_mbps=80.0, low_share=0.1).draw(10_000, np.random.default_rng(0))
    out = drawn == 0
    assert 0.08 < out.mean() < 0.12
    counts, _ = np.histogram(drawn[~out], bins=4, range=(0.0, 80.0))
    assert counts.sum() == (~out).sum()
    assert (np.abs(counts - counts.mean()) < 0.1 * counts.mean()).all()
    assert (Uniform(low_mbps=5.0, low_share=0.0).draw(100, np.random.default_rng(0)) > 5).all()


def test_a_sweep_tells_what_a_policy_did_and_what_it_lost():
    decisions, mbps = small_decisions(), paper_bandwidths(21)
    exact, local = sweep(decisions, Exact(decisions=decisions), mbps), sweep(decisions, on_device(decisions), mbps)
    assert mbps[0] == 0
    assert mbps[-1] == pytest.approx(80.0)
    assert exact.share == pytest.approx(1.0)
    np.testing.assert_allclose(exact.regret, 0.0, atol=1e-8)
    np.testing.assert_allclose(local.reward + local.regret, exact.reward)
    assert (local.latency_ms == 80.0).all()
    assert (local.accuracy == 83.6).all()
    assert local.share < 0.9


def test_a_sweep_counts_a_broken_budget():
    decisions = small_decisions(budget_mj=240.0)
    local = sweep(decisions, on_device(decisions), [0.0, 40.0])
    assert not local.fits.any()
    assert not local.reward.any()
    assert sweep(decisions, Greedy(decisions=decisions), [0.0, 40.0]).fits.all()


def test_decision_time_is_the_median_by_the_clock():
    decisions = small_decisions()
    ticks = iter([0, 5_000, 10_000, 13_000, 20_000, 29_000])
    taken = decision_ms(decisions, Exact(decisions=decisions), [8.0], repeats=3, clock=lambda: next(ticks))
    assert taken == pytest.approx(0.005)


def test_a_sweep_of_nothing_is_refused():
    decisions = small_decisions()
    with pytest.raises(ConfigError, match="give at least one"):
        sweep(decisions, Exact(decisions=decisions), [])
