import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stream_systems import changing_link, small_costs

from modeltree.errors import ConfigError
from nas.decisions.registration import register_environments
from nas.decisions.streams.environment import TaskStreamEnv, shipped_costs
from nas.decisions.streams.vector import TaskStreamVectorEnv


@pytest.fixture(autouse=True)
def _registered():
    register_environments()


def test_gymnasium_makes_it_and_finds_nothing_wrong_with_it():
    env = gymnasium.make("nas/TaskStream-v0", k=2.0, tasks=20)
    check_env(env.unwrapped, skip_render_check=True)
    vector = gymnasium.make_vec("nas/TaskStream-v0", num_envs=3, vectorization_mode="vector_entry_point")
    assert vector.reset(seed=0)[0].shape == (3, 3)
    with pytest.raises(ConfigError, match="call reset"):
        TaskStreamEnv().step(0)


def test_import_registers_it_without_torch():
    code = (
        "import sys, gymnasium, nas; gymnasium.make('nas/TaskStream-v0').reset(seed=0); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    subprocess.run([sys.executable, "-c", "import sys, nas; assert 'gymnasium' not in sys.modules"], check=True)


def test_an_episode_pays_the_gain_of_tasks_in_time_and_the_same_seed_gives_the_same_stream():
    env = TaskStreamEnv(costs=small_costs(), tasks=30, k=2.0, slot_ms=6.0)
    totals = []
    for _ in range(2):
        env.reset(seed=3)
        rewards, over = [], False
        while not over:
            _, reward, over, cut_off, told = env.step(3)
            assert not cut_off
            assert (reward > 0) == (told["run"] and not told["late"])
            rewards.append(reward)
        totals.append(rewards)
    assert totals[0] == totals[1]
    assert len(totals[0]) == 30
    assert set(np.round(totals[0], 9)) <= {0.0, 1.05}


@pytest.mark.parametrize("trace", [None, changing_link()], ids=["steady", "changing"])
def test_streams_that_step_at_once_are_what_one_alone_is(trace):
    of = {"costs": small_costs(server_ms=3.0), "tasks": 12, "k": 1.5, "slot_ms": 5.0, "trace": trace}
    vector = TaskStreamVectorEnv(num_envs=5, **of)
    observed, _ = vector.reset(seed=1)
    alone = [TaskStreamEnv(**of) for _ in range(5)]
    for i, env in enumerate(alone):
        env.reset(seed=0)
        env._stream = [
            task._replace(
                arrival_ms=vector._at_ms[i, n], device=int(vector._device[i, n]), images=int(vector._images[i, n]),
                deadline_ms=vector._deadline_ms[i, n],
            )
            for n, task in enumerate(env._stream)
        ]  # fmt: skip
        np.testing.assert_allclose(env._observed(), observed[i], atol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.integers(7, size=5)
        observed, rewards, over, _, _ = vector.step(actions)
        for i, env in enumerate(alone):
            seen, reward, ended, _, _ = env.step(actions[i])
            assert reward == pytest.approx(rewards[i])
            assert ended == over[i]
            np.testing.assert_allclose(seen, observed[i], atol=1e-6)
    _, rewards, over, _, _ = vector.step(actions)  # begins anew
    assert not over.any()
    assert not rewards.any()


def test_the_shipped_costs_are_the_papers_network_with_four_exits():
    table = shipped_costs().table()
    assert sorted(set(table.exit.tolist())) == [0, 1, 2, 3, 4]
    assert len(set(table.accuracy[1:].round(6))) == 4
