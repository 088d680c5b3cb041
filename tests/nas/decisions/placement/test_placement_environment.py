"""The world of [Li 2023]: delays by hand, the environment, the exact optimum and the planners."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from modeltree.errors import ConfigError
from nas.agents.a3c import A3cConfig
from nas.agents.a3c.multitask import train_multitask
from nas.decisions.placement.blocks import NETWORKS, atoms_of, load_blocks, load_chain
from nas.decisions.placement.delays import KAPPA, Delays
from nas.decisions.placement.environment import PlacementEnv, PlacementVectorEnv
from nas.decisions.placement.exact import bound, exact
from nas.decisions.placement.planners import PLANNERS
from nas.decisions.placement.world import COUPLINGS, Slots, World, draw_slots
from nas.decisions.registration import register_environments

SMALL = {"blocks": 4, "servers": 2, "slots": 5}


def _slots(world, count=8, seed=0):
    rng = np.random.default_rng(seed)
    return draw_slots(world, world.chain(), world.distances_m(count, rng), rng)


def test_delays_and_energy_by_hand():
    world = World(network="alexnet", blocks=3, servers=2, devices=10, release=60.0, beta=2.0, coupling="work")
    delays = Delays(world)
    slots = Slots(
        cycles=np.array([[4e8, 2e8, 2e8]]), tolerance_s=np.array([[1.0, 1.0, 9.0]]), rate=np.array([[1e6, 2e6]])
    )
    f, one, _ = world.host_hz()
    hosts = np.array([[0, 1, 1]])
    sizes = delays.chain.in_bytes
    computes = [6 * 0.5 * 4e8 / f, 60 * 0.5 * 2e8 / one, 60 * 0.5 * 2e8 / one]
    moves = [0.0, 6 * sizes[1] / 1e6, 0.0]
    outcome = delays.outcome(slots, hosts)
    each = np.add(computes, moves)
    late = max(each[0] - 1, 0) + max(each[1] - 1, 0) + max(each[2] - 9, 0)
    assert outcome.total_s[0] == pytest.approx(each.sum())
    assert outcome.local_s[0] == pytest.approx(each[0])
    assert outcome.reward[0] == pytest.approx(-(each.sum() + 2 * late))
    assert outcome.energy_j[0] == pytest.approx(6 * KAPPA * f**2 * 4e8 + world.power_w * moves[1])
    back = delays.transfer_s(slots, np.array([[1, 2, 0]]))[0]
    assert back == pytest.approx([6 * sizes[0] / 1e6, sizes[1] / world.between_bytes_per_s, 6 * sizes[2] / 2e6])


def test_without_coupling_every_task_is_alone():
    world = World(**SMALL, coupling="none")
    slots = _slots(world)
    hosts = np.zeros((8, 4), int)
    np.testing.assert_allclose(Delays(world).compute_s(slots, hosts), slots.cycles / world.device_hz)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_nothing_beats_the_exact_placement_and_the_bound_beats_it(coupling):
    world = World(**SMALL, coupling=coupling)
    slots, rng, delays = _slots(world), np.random.default_rng(1), Delays(world)
    best = delays.reward(slots, exact(world, slots))
    every = np.indices((3,) * 4).reshape(4, -1).T
    for one in every:
        assert (delays.reward(slots, np.broadcast_to(one, (8, 4))) <= best + 1e-9).all()
    assert (bound(world, slots) >= best - 1e-9).all()
    for name, planner in PLANNERS.items():
        reward = delays.reward(slots, planner(world, slots, rng))
        assert (reward <= best + 1e-9).all(), name
        if name == "search":
            assert reward.mean() >= 1.02 * best.mean()


def test_rates_stay_within_the_papers():
    world = World()
    rate = _slots(world, 500).rate
    assert rate.min() >= 0.8e6
    assert rate.max() <= 2e6
    assert 0.9e6 < rate.mean() < 1.9e6


def test_the_environment_keeps_gymnasiums_contract():
    register_environments()
    env = gymnasium.make("nas/Placement-v0", **SMALL)
    check_env(env.unwrapped, skip_render_check=True)
    vector = gymnasium.make_vec("nas/Placement-v0", num_envs=3, vectorization_mode="vector_entry_point", **SMALL)
    assert vector.reset(seed=0)[0].shape == (3, 3 * 4 + 2 + 1)


def test_one_environment_and_a_vector_of_one_play_alike():
    one, many = PlacementEnv(**SMALL), PlacementVectorEnv(1, **SMALL)
    seen, seen_many = one.reset(seed=3)[0], many.reset(seed=3)[0][0]
    one.action_space.seed(0)
    for step in range(5):
        np.testing.assert_array_equal(seen, seen_many)
        action = one.action_space.sample()
        seen, reward, ended, over, info = one.step(action)
        rows, rewards, _, overs, _ = many.step(action[None])
        seen_many = rows[0]
        assert rewards[0] == reward
        assert (over, bool(overs[0])) == (step == 4, step == 4)
        assert not ended
    assert info["energy_left_j"] <= one.world.battery_j
    assert many.step(one.action_space.sample()[None])[1][0] == 0.0


def test_a_world_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="coupling"):
        World(coupling="queue")
    with pytest.raises(ConfigError, match="11 parts"):
        World(network="nin", blocks=12).chain()


@pytest.mark.parametrize("network", NETWORKS)
def test_blocks_hold_the_work_of_the_network(network):
    chain = load_chain(network)
    for count in (3, 6, 11):
        blocks = load_blocks(network, count)
        assert len(blocks) == count
        assert blocks.operations.sum() == sum(a[0] + a[1] for a in chain.atoms)
        assert blocks.in_bytes[0] == 3072


@pytest.mark.slow
def test_the_table_of_blocks_is_that_of_the_network():
    from nas.bases import build
    from transforms import analyse, export

    spec = analyse(export(build("alexnet", num_classes=10, image_size=32), (3, 32, 32))).spec
    assert tuple(atoms_of(spec)) == load_chain("alexnet").atoms


def test_multitask_a3c_learns_and_a_seed_repeats():
    def make(copies):
        return PlacementVectorEnv(copies, **SMALL)

    config = A3cConfig(episodes=80, slots=64, hidden=32, starts=2, start_share=0.5, seed=1)
    first, again = train_multitask(make, config), train_multitask(make, config)
    assert first.curve == again.curve
    assert np.mean(first.curve[-5:]) > np.mean(first.curve[:5])
    world = World(**SMALL)
    vector = PlacementVectorEnv(64, world)
    seen, _ = vector.reset(seed=5)
    slots = vector.episodes.slots
    reward = Delays(world).reward(slots, first.network.export().best(seen)).mean()
    assert reward > Delays(world).reward(slots, PLANNERS["greedy"](world, slots, np.random.default_rng(0))).mean()
