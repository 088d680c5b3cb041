"""Targets by name and from files."""

import os
import platform

import msgspec
import pytest

from compile.targets import TARGETS, Target, host, load_target, target_names
from modeltree.errors import ConfigError, DataError, FormatError

FILE = {"name": "board", "description": "mine", "triple": "aarch64-unknown-linux-gnu", "cpu": "cortex-a55"}


def test_every_named_target_is_loaded_by_its_name():
    assert set(target_names()) == {"host", *TARGETS}
    assert all(load_target(name).name == name for name in target_names())


def test_an_unknown_target_lists_the_known():
    with pytest.raises(ConfigError, match=r"'pi6'.*host.*phone.*pi4"):
        load_target("pi6")


def test_a_target_from_a_file_has_its_fields_and_the_defaults(tmp_path):
    path = tmp_path / "board.json"
    path.write_bytes(msgspec.json.encode(FILE | {"features": ["+dotprod"], "dot": ["sdot"]}))
    target = load_target(str(path))
    assert (target.name, target.features, target.dot, target.lanes) == ("board", ("+dotprod",), ("sdot",), 4)
    assert load_target(str(path)) == target


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vectors": 128}, "vectors"), ({"vector_bits": 100}, "128, 256 or 512"), ({"registers": 2}, "8..64"),
        ({"threads": 0}, "1..256"), ({"dot": ["amx"]}, "bf16, sdot, vnni"), ({"linker": "gold"}, "lld or cc"),
        ({"runtime": "none"}, "tvm or shim"), ({"threads": "four"}, "int"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_target_says_what_is_wrong(tmp_path, change, told):
    path = tmp_path / "board.json"
    path.write_bytes(msgspec.json.encode(FILE | change))
    with pytest.raises(FormatError, match=told) as caught:
        load_target(str(path))
    assert "board.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000, b"{}"])
def test_a_file_that_is_no_json_is_refused_by_name(tmp_path, content):
    path = tmp_path / "board.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"board\.json is not a target"):
        load_target(str(path))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"cannot read target .*none\.json"):
        load_target(str(tmp_path / "none.json"))


@pytest.mark.parametrize("name", ["pi3", "phone"])
def test_a_target_without_a_tvm_runtime_never_runs_here(name):
    assert not TARGETS[name].runs_here


def test_this_machine_runs_what_is_made_for_it():
    assert host().triple.split("-")[0] == platform.machine()
    assert host().runs_here
    assert 1 <= host().threads <= (os.cpu_count() or 1)


def test_lanes_and_architecture_follow_from_the_record():
    target = Target(name="x", description="", triple="armv7l-unknown-linux-gnueabihf", cpu="cortex-a7")
    assert (target.lanes, target.architecture) == (4, "arm")
    assert target.llvm()["mfloat-abi"] == "hard"
    assert [TARGETS[name].lanes for name in ("pi4", "x86-64-v3", "x86-64-v4")] == [4, 8, 16]
