import io
import math
import subprocess
import sys
import zipfile

import msgspec
import numpy as np
import pytest
from decision_tables import small_decisions, small_table, small_tree

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.offloading.decisions import Decisions, DecisionTable, Energy, Objective, Reward, State, tree_decisions
from modeltree.tree import BitsFork
from runtime.selection.policies import (
    Dense,
    Exact,
    Fixed,
    Greedy,
    Trained,
    cloud_only,
    on_device,
    read_policy,
    write_policy,
)
from runtime.selection.policy_files import MAX_BYTES, PolicyHeader, load

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
    decisions = small_decisions(budget_mj=180.0)
    free = Trained(decisions=small_decisions(), network=some_network(seed))
    kept = Trained(decisions=decisions, network=some_network(seed))
    assert all(decisions.energy_mj(mbps)[kept.choose(at(mbps))] <= 180.0 for mbps in SWEEP)
    assert any(decisions.energy_mj(mbps)[free.choose(at(mbps))] > 180.0 for mbps in SWEEP)


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


@pytest.mark.parametrize("allowed", [1.0, 0.3, 0.02])
def test_every_rule_stays_among_what_is_allowed(allowed):
    decisions, rng = small_decisions(), np.random.default_rng(0)
    rules = [
        Exact(decisions=decisions), Greedy(decisions=decisions), on_device(decisions), cloud_only(decisions),
        Trained(decisions=decisions, network=some_network()),
    ]  # fmt: skip
    for mbps in SWEEP:
        among = rng.random(54) < allowed
        among[rng.integers(54)] = True
        for rule in rules:
            chosen = rule.choose(at(mbps), among)
            assert among[chosen]
            free = rule.choose(at(mbps))
            assert chosen == free or not among[free]


def test_a_fixed_action_gives_way_to_the_one_most_like_it():
    decisions = small_decisions()
    table, policy = decisions.table, on_device(decisions)
    among = np.ones(54, dtype=bool)
    among[~table.sends & (table.exit == 3)] = False
    other = policy.choose(at(8.0), among)
    assert (table.exit[other], table.sends[other]) == (2, False)
    other = policy.choose(at(8.0), table.sends)  # nothing local is left: the last exit, the latest cut
    assert (table.exit[other], table.cut[other]) == (3, 4)


def trained_on_a_tree(**rest):
    decisions = tree_decisions(small_tree(), **rest)
    return Trained(decisions=decisions, network=some_network(sizes=(4, 8, 6)))


WRITTEN = {"agent": "sac", "seed": 3, "trained_on": "0..80 Mbit/s, even"}


@pytest.mark.parametrize("rest", [
    {}, {"budget_mj": 90.0}, {"objective": Objective(full_mbps=40.0), "energy": Energy(power_w=0.5), "rtt_ms": 3.0},
])  # fmt: skip
def test_a_trained_policy_survives_a_file(tmp_path, rest):
    policy, path = trained_on_a_tree(**rest), tmp_path / "policy.npz"
    write_policy(path, policy, **WRITTEN)
    again = read_policy(path, small_tree())
    for name in ("rtt_ms", "energy", "objective", "budget_mj"):
        assert getattr(again.decisions, name) == getattr(policy.decisions, name)
    assert [again.choose(at(mbps)) for mbps in SWEEP] == [policy.choose(at(mbps)) for mbps in SWEEP]
    header = load(path).header
    assert (header.agent, header.seed, header.trained_on) == ("sac", 3, "0..80 Mbit/s, even")
    with np.load(path, allow_pickle=False) as arrays:  # plain arrays for anyone else, too
        assert {"header", "actions", "weight0", "bias1"} <= set(arrays)
    before = path.read_bytes()
    write_policy(path, policy, **WRITTEN)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.npz"]


def test_a_policy_of_another_tree_is_refused(tmp_path):
    path = tmp_path / "policy.npz"
    write_policy(path, Trained(decisions=small_decisions(), network=some_network()), **WRITTEN)
    with pytest.raises(FormatError, match=r"policy.npz chooses among 54 actions, the tree has 6, .*nas policy train"):
        read_policy(path, small_tree())
    tree = small_tree()
    write_policy(path, trained_on_a_tree(), **WRITTEN)
    nodes = list(tree.nodes)
    nodes[3] = msgspec.structs.replace(nodes[3], handover=msgspec.structs.replace(nodes[3].handover, bits=8),
                                       fork=BitsFork(types=(1,), bits=8))  # fmt: skip
    with pytest.raises(FormatError, match="chooses among 6 actions, the tree has 6, and they must be the same"):
        read_policy(path, msgspec.structs.replace(tree, nodes=tuple(nodes)))


def spoilt(**changed):
    """A policy's file with other arrays in it; None takes one out."""
    policy = trained_on_a_tree()
    header = PolicyHeader(rtt_ms=10.0, energy=Energy(), reward=Reward(), **WRITTEN)
    told = changed.pop("told", {})
    plain = msgspec.to_builtins(header) | told
    arrays = {"header": np.frombuffer(msgspec.json.encode(plain), np.uint8), "actions": policy.decisions.table.keys}
    arrays |= policy.network.arrays() | changed
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
    return stream.getvalue()


def packed(name, data, compression=zipfile.ZIP_STORED):
    """A zip with one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as out:
        out.writestr(name, data)
    return stream.getvalue()


def npy(header, data=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be unpacked"),
        (b"PK\x03\x04 nonsense", "cannot be unpacked"),
        (spoilt()[:-40], "cannot be unpacked"),
        (spoilt().replace(b"nas-policy", b"nas-polity"), "cannot be unpacked"),  # the checksum
        (spoilt(told={"format": "else"}), "Invalid enum value"),
        (spoilt(told={"version": 2}), "version is 2: we read 1"),
        (spoilt(told={"kind": "code"}), "Invalid enum value"),
        (spoilt(told={"more": 1}), "unknown field"),
        (spoilt(told={"reward": None}), "an objective or a reward"),
        (spoilt(told={"rtt_ms": -1.0}), "rtt_ms is -1"),
        (spoilt(told={"budget_mj": 0.0}), "budget_mj is 0"),
        (spoilt(told={"energy": {"power_w": 0.0}}), "power_w is 0"),
        (spoilt(header=None), "it has no header"),
        (spoilt(actions=None), "it has no actions"),
        (spoilt(actions=np.zeros((6, 3), np.int64)), r"actions are \(6, 3\)"),
        (spoilt(actions=np.zeros((6, 4))), "actions.npy is float64"),
        (spoilt(weight0=np.full((4, 8), math.nan, np.float32)), "weight0.npy has a number that is not finite"),
        (spoilt(weight0=np.zeros((4, 8))), "weight0.npy is float64"),
        (spoilt(weight0=np.asfortranarray(np.ones((4, 8), np.float32))), "row by row"),
        (spoilt(weight0=np.array([None, 1], dtype=object)), "weight0.npy is object"),
        (spoilt(weight0=None), "a network's arrays are"),
        (spoilt(bias1=np.zeros(5, np.float32)), "layer 1 has weights"),
        (spoilt(**{f"extra{i}": np.zeros(1, np.float32) for i in range(70)}), "a policy at most 64"),
        (packed("header.npy", b"no array"), "header.npy is no array"),
        (packed("weight0.npy", npy(HUGE)), "weight0.npy is float32 .* in 0 bytes"),
        (packed("weight0.npy", npy("__import__('os')")), "weight0.npy is no array"),
        (packed("weight0.npy", npy(HUGE) + bytes(10_000_000), zipfile.ZIP_DEFLATED), "stored as they are"),
        (bytes(MAX_BYTES + 1), "and a policy at most"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_policy_is_refused(tmp_path, data, message):
    path = tmp_path / "policy.npz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"policy.npz is not a policy: .*{message}"):
        read_policy(path, small_tree())


def test_no_damage_to_a_file_does_anything_but_being_refused(tmp_path):
    whole, path, rng = spoilt(), tmp_path / "policy.npz", np.random.default_rng(0)
    read = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_policy(path, small_tree())
            read += 1  # what a zip says twice, such as a date
        except FormatError:
            pass
    assert read < 100


def test_a_policy_that_is_not_there_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read policy"):
        read_policy(tmp_path / "none.npz", small_tree())


def test_a_device_needs_neither_torch_nor_gymnasium_for_a_policy():
    told = subprocess.run(
        [
            sys.executable, "-c",
            "import sys, runtime.selection.policies, runtime.selection.battery; print(*sys.modules)",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"torch", "gymnasium", "tvm", "scipy"} & set(told.stdout.split())
