"""nas policy --env stream at the command line: the same seed, the same file; solvers beside it."""

import csv

import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_streams_policy_is_trained_kept_and_compared_with_every_solver(nas, tmp_path):
    words = ("policy", "train", "--env", "stream", "--steps", 2200, "--seed", 1, "--quiet")
    for name in ("one.npz", "two.npz"):
        status, told, error = nas(*words, "--out", name)
        assert (status, error) == (0, [])
        assert "ddqn, seed 1, p = 0.1, k = 3, 3 devices" in told
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    status, told, _ = nas("policy", "eval", "--env", "stream", "--policy", "one.npz", "--streams", 2, "--out", "seen")
    assert status == 0
    with (tmp_path / "seen" / "streams.csv").open() as file:
        rows = list(csv.DictReader(file))
    gains = {}
    for row in rows:
        gains.setdefault(row["solver"], []).append(float(row["gain"]))
    assert set(gains) == {"exact", "dp", "rolling", "one", "edf", "device", "greedy", "random"}
    assert all(len(values) == 2 for values in gains.values())
    assert all(max(gains["exact"]) + 1e-6 >= value for values in gains.values() for value in values)


def test_what_can_be_mended_is_one_line(nas):
    status, _, error = nas("policy", "train", "--env", "streams", "--out", "x.npz")
    assert status == 2
    assert "unknown environment 'streams': known are leaves, stream" in error[-1]
    status, _, error = nas("policy", "eval", "--env", "stream", "--rate", 2, "--out", "x")
    assert status == 2
    assert "p is 2.0" in error[-1]
