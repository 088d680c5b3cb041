"""A bundle for another processor is refused by name before anything of it is loaded."""

import shutil
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
from forked_run import compiled

from compile.targets import TARGETS, host
from modeltree.errors import ConfigError
from runtime.execution import processor
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device

V3 = frozenset(["ssse3", "sse4_1", "sse4_2", "popcnt", "cx16", "avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"])
V4 = V3 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
A72 = frozenset({"asimd"})


def entry(name="pi4", **changes):
    import msgspec

    return SimpleNamespace(record=msgspec.to_builtins(TARGETS[name]) | changes, roles=("device",))


@pytest.mark.parametrize(
    ("target", "machine", "features", "missing"),
    [
        ("pi4", "aarch64", A72, []),
        ("pi4", "aarch64", frozenset(), ["asimd"]),
        ("pi5", "aarch64", A72, ["asimddp", "asimdhp"]),
        ("pi5", "aarch64", A72 | {"asimddp", "asimdhp"}, []),
        ("pi4", "x86_64", V4, ["a aarch64-unknown-linux-gnu machine"]),
        ("pi3", "armv7l", frozenset({"neon", "idiva"}), []),
        ("pi3", "armv7l", frozenset({"neon"}), ["idiva"]),
        ("x86-64-v3", "x86_64", V3, []),
        ("x86-64-v3", "x86_64", V3 - {"fma"}, ["fma"]),
        ("x86-64-v4", "x86_64", V3, sorted(V4 - V3)),
        ("phone", "aarch64", A72 | {"asimddp", "asimdhp"}, ["Android"]),
    ],
)
def test_what_a_target_needs_is_held_against_what_the_machine_has(target, machine, features, missing):
    assert processor.lacking(entry(target), machine=machine, features=features, android=False) == missing


def test_what_runs_on_android_alone_runs_there():
    here = {"machine": "aarch64", "features": A72 | {"asimddp", "asimdhp"}, "android": True}
    assert processor.lacking(entry("phone"), **here) == []
    assert processor.lacking(entry("pi4"), **here) == ["Linux other than Android"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"cpu": "no-such-core"}, "no-such-core"), ({"features": ["+sve9"]}, "sve9"), ({"triple": ""}, "nameless")],
)
def test_what_is_not_known_is_not_taken_for_nothing(changes, why):
    (missing,) = processor.lacking(entry(**changes), machine="aarch64", features=A72, android=False)
    assert why in missing


@pytest.mark.parametrize("name", [*TARGETS])
def test_every_target_that_we_compile_for_is_known(name):
    needed, strange = processor._needs(TARGETS[name].cpu, TARGETS[name].features)
    assert strange == []
    assert needed


def test_this_machine_runs_what_is_compiled_for_it():
    import msgspec

    here = SimpleNamespace(record=msgspec.to_builtins(host()), roles=("device",))
    assert processor.lacking(here) == []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("bundle"))


def test_a_device_refuses_before_it_loads(bundle):
    with (
        mock.patch.object(processor, "processor_features", return_value=frozenset()),
        mock.patch("ctypes.CDLL", side_effect=AssertionError("loaded")),
        pytest.raises(ConfigError, match="target host needs"),
    ):
        Device(Bundle.open(bundle))


@pytest.mark.qemu
def test_a_small_processor_refuses_by_name_and_meets_no_illegal_instruction(bundle):
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None:
        pytest.skip("needs qemu-x86_64-static: apt-get install qemu-user-static")
    if host().vector_bits < 256:
        pytest.skip("needs a machine with AVX2 to compile what a smaller one cannot run")
    code = "import sys\nfrom runtime import Session\nSession.open(sys.argv[1])"
    ended = subprocess.run(
        [emulator, "-cpu", "Nehalem", sys.executable, "-c", code, str(bundle)], capture_output=True, text=True,
        timeout=200,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "ConfigError: target host needs" in ended.stderr
    assert "avx2" in ended.stderr
