"""What every agent and every rule promises, on a table whose best answers are known; and the agents' losses by hand."""

import dataclasses
import functools
import math

import gymnasium
import numpy as np
import pytest
import torch
from decision_tables import small_decisions

from modeltree.errors import ConfigError
from nas.agents import AGENTS
from nas.agents.dqn import DqnConfig, loss_of
from nas.agents.networks import Stack, follow_
from nas.agents.replay_buffer import Batch, Replay
from nas.agents.sac import Sac, SacConfig, actor_loss, critic_loss, critic_targets, temperature_loss
from nas.decisions.offloading.environment import DecisionEnv
from nas.decisions.offloading.evaluate import paper_bandwidths, sweep
from runtime.selection.policies import Exact, Fixed, Greedy, Trained, cloud_only, on_device

STEPS = 3000
BUDGET_MJ = 240.0
RULES = {
    "exact": lambda decisions: Exact(decisions=decisions),
    "greedy": lambda decisions: Greedy(decisions=decisions),
    "on_device": on_device,
    "cloud_only": cloud_only,
}
every_agent = pytest.mark.parametrize("name", AGENTS)
every_policy = pytest.mark.parametrize("name", [*RULES, *AGENTS])


pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def learnt(name, seed=0, steps=STEPS, repeat=0):
    """`repeat` only parts two trainings that must come out alike."""
    agent = AGENTS[name]
    return agent.train(DecisionEnv(small_decisions()), agent.config(steps=steps, warmup=100, batch=64, seed=seed))


def policy_of(name, decisions):
    if name in RULES:
        return RULES[name](decisions)
    return Trained(decisions=decisions, network=learnt(name).export())


@every_agent
def test_the_same_seed_learns_the_same_whatever_ran_before(name):
    one = learnt(name, 3, 300, 0)
    torch.rand(5)
    np.random.default_rng().random(5)
    two, other = learnt(name, 3, 300, 1), learnt(name, 4, 300)
    for a, b in zip(one.export().arrays().values(), two.export().arrays().values()):
        np.testing.assert_array_equal(a, b)
    assert one.returns == two.returns != other.returns
    assert (one.export().weights[0] != other.export().weights[0]).any()


@every_policy
def test_the_same_state_gives_the_same_valid_action_and_never_more_than_the_best(name):
    decisions = small_decisions()
    policy = policy_of(name, decisions)
    one, two = (sweep(decisions, policy, paper_bandwidths(41)) for _ in range(2))
    np.testing.assert_array_equal(one.action, two.action)
    assert set(one.action) <= set(range(54))
    assert (one.regret >= -1e-8).all()
    assert 0 <= one.share <= 1 + 1e-8


@every_agent
def test_exported_arrays_choose_as_torch_does(name):
    found = learnt(name)
    dense = found.export()
    seen = np.random.default_rng(0).uniform(-1, 1, (500, 4)).astype(np.float32)
    torchs, ours = found.scores(seen), dense(seen)
    assert len(dense.weights) == AGENTS[name].config().layers
    # a dueling network's scores differ by what all actions share
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True), torchs - torchs.mean(axis=1, keepdims=True), atol=1e-3
    )
    np.testing.assert_array_equal(ours.argmax(axis=1), torchs.argmax(axis=1))
    assert [found.act(row) for row in seen[:20]] == ours[:20].argmax(axis=1).tolist()


@every_agent
def test_agents_do_far_better_than_random_choices(name):
    decisions = small_decisions()
    mbps = paper_bandwidths(41)
    random = np.mean([decisions.rewards(b).mean() for b in mbps])
    found, best = (sweep(decisions, policy_of(which, decisions), mbps).reward.mean() for which in (name, "exact"))
    assert found > random + 0.7 * (best - random)


def test_soft_actor_critic_comes_within_a_few_percent_of_the_exact_reward():
    decisions = small_decisions()
    assert sweep(decisions, policy_of("sac", decisions), paper_bandwidths()).share > 0.98


@pytest.mark.parametrize("name", ["exact", "greedy", *AGENTS])
def test_no_policy_that_decides_breaks_the_energy_budget(name):
    decisions = small_decisions(budget_mj=BUDGET_MJ)
    done = sweep(decisions, policy_of(name, decisions), paper_bandwidths(41))
    assert done.fits.all()
    assert (done.energy_mj <= BUDGET_MJ).all()
    assert not all(decisions.fits(mbps).all() for mbps in done.mbps)


@every_agent
def test_training_tells_how_far_it_is(name):
    agent, told = AGENTS[name], []
    env = DecisionEnv(small_decisions(), steps=10)
    found = agent.train(env, agent.config(steps=45, warmup=20, batch=4), lambda *step: told.append(step))
    assert [(done, total) for done, total, _ in told] == [(10, 45), (20, 45), (30, 45), (40, 45)]
    assert [text for *_, text in told] == [f"return {value:.1f}" for value in found.returns]


@every_agent
@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 0},
        {"gamma": 1.0},
        {"lr": 0.0},
        {"warmup": -1},
        {"layers": 0},
        {"batch": 0},
        {"buffer": 0},
        {"last_lr": 0.0},
    ],
)
def test_a_config_that_cannot_be_is_refused(name, changed):
    with pytest.raises(ConfigError, match=f"{next(iter(changed))} is .*: it must be"):
        AGENTS[name].config(**changed)


@every_agent
@pytest.mark.parametrize(
    ("space", "which"),
    [
        (gymnasium.spaces.Box(-1, 1, (2, 2), np.float32), "observation_space"),
        (gymnasium.spaces.Box(-1, 1, (2,), np.float32), "action_space"),
        (gymnasium.spaces.Discrete(3, start=1), "action_space"),
    ],
)
def test_an_environment_of_another_kind_is_refused(name, space, which):
    env = DecisionEnv(small_decisions())
    setattr(env, which, space)
    with pytest.raises(ConfigError, match="they must be"):
        AGENTS[name].train(env, AGENTS[name].config(steps=1))


# The losses, against sums written out in plain numpy.

ACTIONS, GAMMA, ALPHA = 3, 0.9, 0.25
BATCH = Batch(
    observation=torch.tensor([[0.1, -0.4], [0.7, 0.2], [-0.5, 0.9], [0.3, 0.3]]),
    action=torch.tensor([2, 0, 1, 2]),
    reward=torch.tensor([1.0, -0.5, 0.25, 0.0]),
    following=torch.tensor([[0.2, -0.1], [-0.9, 0.4], [0.6, 0.6], [0.0, -0.8]]),
    ended=torch.tensor([0.0, 1.0, 0.0, 0.0]),
)


def stack(seed, **rest):
    return Stack([2, 6, ACTIONS], generator=torch.Generator().manual_seed(seed), **rest)


def by_hand(network, which, x):
    """One network of a stack at one observation, layer by layer."""
    (w0, w1), (b0, b1) = ([p[which].detach().numpy() for p in held] for held in (network.weights, network.biases))
    hidden = np.maximum(np.asarray(x) @ w0 + b0[0], 0)
    out = hidden @ w1 + b1[0]
    return out[0] + out[1:] - out[1:].mean() if network.dueling else out


def probabilities(network, x):
    grown = np.exp(by_hand(network, 0, x))
    return grown / grown.sum()


def lower_value(networks, x):
    return np.minimum(by_hand(networks, 0, x), by_hand(networks, 1, x))


def networks():
    return stack(0), stack(1, count=2, dueling=True), stack(2, count=2, dueling=True)


def targets_by_hand(actor, targets):
    made = []
    for i in range(4):
        x, value = BATCH.following[i].numpy(), 0.0
        pi, low = probabilities(actor, x), lower_value(targets, x)
        for a in range(ACTIONS):
            value += pi[a] * (low[a] - ALPHA * math.log(pi[a]))
        made.append(float(BATCH.reward[i]) + GAMMA * (0.0 if BATCH.ended[i] else value))
    return made


def test_the_critics_targets_are_equation_9():
    actor, _, targets = networks()
    ours = critic_targets(actor, targets, BATCH, ALPHA, GAMMA)
    np.testing.assert_allclose(ours.numpy(), targets_by_hand(actor, targets), rtol=1e-5)
    assert not ours.requires_grad


def test_the_critics_loss_is_equation_8():
    actor, critics, targets = networks()
    aims = targets_by_hand(actor, targets)
    expected = 0.0
    for which in range(2):
        for i in range(4):
            q = by_hand(critics, which, BATCH.observation[i].numpy())[int(BATCH.action[i])]
            expected += 0.5 * (q - aims[i]) ** 2 / 4
    ours = critic_loss(critics, BATCH, critic_targets(actor, targets, BATCH, ALPHA, GAMMA))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_the_policys_loss_is_equation_10():
    actor, critics, _ = networks()
    expected, entropies = 0.0, []
    for x in BATCH.observation.numpy():
        pi, low = probabilities(actor, x), lower_value(critics, x)
        expected += sum(pi[a] * (ALPHA * math.log(pi[a]) - low[a]) for a in range(ACTIONS)) / 4
        entropies.append(-sum(p * math.log(p) for p in pi))
    ours, entropy = actor_loss(actor, critics, BATCH, ALPHA)
    assert ours.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(entropy.numpy(), entropies, rtol=1e-5)
    ours.backward()
    assert all(p.grad is None for p in critics.parameters())
    assert any(p.grad.abs().sum() > 0 for p in actor.parameters())


@pytest.mark.parametrize(("entropies", "way"), [([0.2, 0.4], 1), ([0.8, 1.0], -1)])
def test_the_temperature_loss_is_equation_11_and_drives_entropy_to_its_target(entropies, way):
    log_alpha = torch.tensor(math.log(ALPHA), requires_grad=True)
    loss = temperature_loss(log_alpha, torch.tensor(entropies), 0.6)
    assert loss.item() == pytest.approx(ALPHA * (np.mean(entropies) - 0.6))
    loss.backward()
    assert -float(log_alpha.grad) * way > 0  # too little entropy: alpha rises


def test_the_q_networks_loss_is_hubers_against_the_best_next_value():
    network, target = stack(3, dueling=True), stack(4, dueling=True)
    errors = []
    for i in range(4):
        best = by_hand(target, 0, BATCH.following[i].numpy()).max()
        aim = float(BATCH.reward[i]) + GAMMA * (0.0 if BATCH.ended[i] else best)
        errors.append(abs(by_hand(network, 0, BATCH.observation[i].numpy())[int(BATCH.action[i])] - aim))
    expected = np.mean([0.5 * e**2 if e < 1 else e - 0.5 for e in errors])
    assert loss_of(network, target, BATCH, GAMMA).item() == pytest.approx(expected, rel=1e-5)


def test_an_update_moves_every_network_and_the_targets_by_their_share():
    agent = Sac(2, ACTIONS, SacConfig(hidden=6, layers=2, follow=0.25))
    before = {name: [p.detach().clone() for p in getattr(agent, name).parameters()] for name in ("actor", "critics")}
    old_targets, alpha = [p.clone() for p in agent.targets.parameters()], float(agent.log_alpha.detach())
    agent.update_(BATCH)
    for name, held in before.items():
        assert any((a != b).any() for a, b in zip(held, getattr(agent, name).parameters()))
    for old, new, critic in zip(old_targets, agent.targets.parameters(), agent.critics.parameters()):
        torch.testing.assert_close(new.data, 0.75 * old + 0.25 * critic.data)
    assert float(agent.log_alpha.detach()) != alpha


def test_the_learning_rate_falls_in_a_straight_line_to_its_last_share():
    agent = Sac(2, ACTIONS, SacConfig(hidden=6, layers=2, steps=14, warmup=10, lr=0.1, last_lr=0.2))
    rates = []
    for _ in range(6):
        agent.update_(BATCH)
        rates.append([optimiser.param_groups[0]["lr"] for optimiser in agent.optimisers])
    np.testing.assert_allclose(rates, np.repeat([[0.1], [0.08], [0.06], [0.04], [0.02], [0.02]], 3, axis=1))


def test_critics_that_are_lifted_rise_by_as_much_for_every_action_and_a_q_network_does_too():
    agent, x = Sac(2, ACTIONS, SacConfig(hidden=6, layers=2)), BATCH.observation
    held = (agent.critics, agent.targets)
    before = [network(x).detach() for network in held]
    agent.begin_(12.5)
    for network, old in zip(held, before):
        torch.testing.assert_close(network(x), old + 12.5)
    plain = stack(0)
    old = plain(x).detach()
    plain.lift_(-3.0)
    torch.testing.assert_close(plain(x), old - 3.0)


def test_the_level_of_a_task_is_what_its_mean_reward_comes_to():
    endless, ending = Replay(10, 1), Replay(10, 1)
    for i in range(4):
        endless.add_(np.zeros(1), 0, float(i), np.zeros(1), False)
        ending.add_(np.zeros(1), 0, 1.0, np.zeros(1), True)
    assert endless.level(0.9) == pytest.approx(1.5 + 0.9 * 1.5 + 0.81 * 1.5 + 0.729 * 1.5 / (1 - 0.9), rel=1e-5)
    assert ending.level(0.9) == pytest.approx(1.0)


def test_the_plain_q_network_has_one_output_an_action():
    config = DqnConfig(steps=30, warmup=10, batch=4, hidden=6, dueling=False, begin_at_mean=False)
    found = AGENTS["dqn"].train(DecisionEnv(small_decisions()), config)
    assert found.network.weights[-1].shape[-1] == 54
    assert not found.network.dueling


def test_a_target_that_follows_wholly_is_a_copy():
    slow, fast = stack(0), stack(1)
    follow_(slow, fast, 1.0)
    for a, b in zip(slow.parameters(), fast.parameters()):
        torch.testing.assert_close(a, b)


def test_the_buffer_forgets_the_oldest_step():
    replay = Replay(3, 1)
    for i in range(5):
        replay.add_(np.array([i], np.float32), i, float(i), np.array([i + 1], np.float32), i == 4)
    batch = replay.sample(200, np.random.default_rng(0))
    assert len(replay) == 3
    assert set(batch.action.tolist()) == {2, 3, 4}
    for i in range(200):
        step = batch.action[i]
        assert batch.observation[i, 0] == batch.reward[i] == batch.following[i, 0] - 1 == step
        assert bool(batch.ended[i]) == (step == 4)


def test_a_random_share_falls_in_a_straight_line_and_stays():
    config = DqnConfig(steps=1000, warmup=100, explore=0.5, last_epsilon=0.1)
    assert config.epsilon(99) == 1.0
    assert config.epsilon(250) == pytest.approx(0.55)
    assert config.epsilon(500) == config.epsilon(999) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="last_epsilon"):
        dataclasses.replace(config, last_epsilon=1.5)


def test_no_single_action_is_the_best_at_every_bandwidth():
    decisions = small_decisions()
    shares = [sweep(decisions, Fixed(decisions, action), paper_bandwidths(11)).share for action in range(54)]
    assert max(shares) < 1
