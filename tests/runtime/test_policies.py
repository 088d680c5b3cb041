import ast
import inspect
import math

import numpy as np
import pytest
from decision_tables import small_decisions, small_table

import runtime.policies
from modeltree.decisions import Decisions, DecisionTable, State
from modeltree.errors import ConfigError, DataError
from runtime.policies import Dense, Exact, Fixed, Greedy, Trained, cloud_only, on_device

SWEEP = np.linspace(0.0, 80.0, 41)


def some_network(seed=0, sizes=(4, 8, 8, 54)):
    rng = np.random.default_rng(seed)
    shapes = list(zip(sizes, sizes[1:]))  # noqa: RUF007 - shapes, not steps
    return Dense(
        [rng.normal(size=shape).astype(np.float32) for shape in shapes],
        [rng.normal(size=shape[1]).astype(np.float32) for shape in shapes],
    )


def at(mbps):
    return State(50.0, 100.0, 80.0, mbps)


def part_of_the_table(keep):
    table = small_table()
    columns = {name: getattr(table, name)[keep(table)] for name in DecisionTable.__dataclass_fields__}
    return Decisions(table=DecisionTable(**columns), rtt_ms=3.0)


def test_the_exact_rule_takes_the_highest_reward():
    decisions = small_decisions()
    for mbps in SWEEP:
        rewards = decisions.rewards(mbps)
        assert rewards[Exact(decisions=decisions).choose(at(mbps))] == pytest.approx(rewards.max())


def test_the_greedy_rule_takes_the_least_latency():
    decisions = small_decisions()
    for mbps in SWEEP:
        assert Greedy(decisions=decisions).choose(at(mbps)) == decisions.latency_ms(mbps).argmin()


def test_on_device_runs_the_whole_network_here_and_cloud_only_none_of_it():
    decisions = small_decisions()
    table = decisions.table
    here, there = on_device(decisions).action, cloud_only(decisions).action
    assert (table.exit[here], table.sends[here]) == (3, False)
    assert (table.exit[there], table.cut[there], table.bits[there]) == (3, 0, 16)
    assert {on_device(decisions).choose(at(mbps)) for mbps in SWEEP} == {here}


def test_yardsticks_say_what_a_table_lacks():
    with pytest.raises(ConfigError, match="add one with sent_bytes 0"):
        on_device(part_of_the_table(lambda table: table.sends))
    with pytest.raises(ConfigError, match="add one with sent_bytes above 0"):
        cloud_only(part_of_the_table(lambda table: ~table.sends))
    with pytest.raises(ConfigError, match=r"action is 54: it must be in 0\.\.53"):
        Fixed(small_decisions(), 54)


def test_a_network_is_its_layers_with_relu_between_them():
    network = Dense(
        [np.array([[1.0, -1.0]], np.float32), np.array([[2.0], [3.0]], np.float32)],
        [np.array([0.5, 0.5], np.float32), np.array([-1.0], np.float32)],
    )
    # 2 -> (2.5, -1.5) -> (2.5, 0) -> 4;  -2 -> (-1.5, 2.5) -> (0, 2.5) -> 6.5
    np.testing.assert_allclose(network(np.array([[2.0], [-2.0]], np.float32)), [[4.0], [6.5]])
    np.testing.assert_allclose(network(np.array([2.0], np.float32)), [4.0])


def test_a_trained_policy_takes_the_highest_score():
    decisions, network = small_decisions(), some_network()
    policy = Trained(decisions=decisions, network=network)
    for mbps in SWEEP:
        assert policy.choose(at(mbps)) == network(decisions.observe(at(mbps))).argmax()


@pytest.mark.parametrize("seed", [0, 1, 2, 4])  # each would break it if left alone
def test_a_trained_policy_keeps_the_budget_whatever_it_learnt(seed):
    decisions = small_decisions(budget_mj=240.0)
    free = Trained(decisions=small_decisions(), network=some_network(seed))
    kept = Trained(decisions=decisions, network=some_network(seed))
    assert all(decisions.energy_mj(mbps)[kept.choose(at(mbps))] <= 240.0 for mbps in SWEEP)
    assert any(decisions.energy_mj(mbps)[free.choose(at(mbps))] > 240.0 for mbps in SWEEP)


def test_a_network_survives_a_file_without_pickle(tmp_path):
    network = some_network()
    np.savez(tmp_path / "policy.npz", **network.arrays())
    with np.load(tmp_path / "policy.npz", allow_pickle=False) as arrays:
        again = Dense.from_arrays(dict(arrays))
    x = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_array_equal(again(x), network(x))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight9": np.zeros((2, 2), np.float32)}, "they must be weight0, bias0"),
        ({"bias1": np.zeros(3, np.float32)}, "layer 1 has weights"),
        ({"weight1": np.zeros((7, 8), np.float32)}, "layer 1 has weights"),
        ({"weight0": np.full((4, 8), math.nan, np.float32)}, "layer 0 has a number that is not finite"),
        ({"weight0": np.zeros((4, 8))}, "weight0 of a network is float64"),
        ({"bias0": np.array(1.0, np.float32)}, "layer 0 has weights"),
    ],
)
def test_arrays_that_are_no_network_are_refused(changed, message):
    with pytest.raises(DataError, match=message):
        Dense.from_arrays({**some_network().arrays(), **changed})


def test_no_arrays_are_no_network():
    with pytest.raises(DataError, match="0 weights and 0 biases"):
        Dense.from_arrays({})


@pytest.mark.parametrize("sizes", [(3, 54), (4, 53)])
def test_a_network_for_another_table_is_refused(sizes):
    with pytest.raises(ConfigError, match="it must map a state's 4 to the table's 54 actions"):
        Trained(decisions=small_decisions(), network=some_network(sizes=sizes))


def test_policies_import_numpy_and_modeltree_only():
    tree = ast.parse(inspect.getsource(runtime.policies))
    modules = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"collections", "dataclasses", "typing", "numpy", "modeltree"}
