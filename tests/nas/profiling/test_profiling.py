"""nas profile: stacks are compiled and timed, the fit finds what times are made of, branches are held against it."""

import dataclasses
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import msgspec
import numpy as np
import pytest
from networks import tiny
from torch import nn

from compile.program_file import program_bytes
from compile.targets import TARGETS, host
from modeltree.errors import ConfigError
from modeltree.layers import KINDS
from modeltree.profiles import FormatPrice, load_profile
from nas.profiling import jpeg_ns_per_pixel, open_timer, webp_ns_per_pixel
from nas.profiling.checking import random_branch, sample_values
from nas.profiling.fitting import Sample, error, fitted
from nas.profiling.measuring import _layers
from nas.profiling.stacks import Stack, stacks
from nas.profiling.timing import RemoteTimer, Timing, timed
from transforms import export

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
"""
HOST = msgspec.structs.replace(host(), threads=1)


class Made:
    """A timer whose programs take what they are told; every third burst is disturbed."""

    def __init__(self, seconds, drift=0.0):
        self.seconds, self.drift, self.bursts = seconds, drift, 0

    def add(self, program):
        raise AssertionError("nothing is added")

    def burst(self, number, seconds):
        self.bursts += 1
        return self.seconds[number] * (1 + self.drift * self.bursts)


@pytest.fixture(scope="module")
def samples():
    """All stacks, with times made of known coefficients."""
    truth = load_profile("pi4")  # a third of the stacks is enough to tell all coefficients apart
    truth = msgspec.structs.replace(
        truth, overhead_us=3.0, ns_per_weight_byte=0.02, ns_per_map_byte=0.03, strided_ratio=2.5
    )
    found = []
    for stack in stacks()[::3]:
        layers = _layers(export(stack.module, stack.input_shape))
        edge = math.prod(stack.input_shape) + layers[-1].elements
        ms = truth.compute_ms(layers) + 0.5e-6 * edge
        timing = Timing(ms=ms, low_ms=ms, high_ms=ms)
        found.append(Sample(name=stack.name, kind=stack.kind, layers=layers, edge_numbers=edge, timing=timing))
    return truth, found


def test_every_kind_is_measured_and_every_stack_has_a_name_of_its_own():
    made = stacks()
    assert {stack.kind for stack in made} == set(KINDS)
    assert Counter(stack.name for stack in made).most_common(1)[0][1] == 1


def test_the_fit_finds_the_coefficients_that_times_were_made_of(samples):
    truth, found = samples
    got = fitted(found)
    assert got.ns_per_mac == pytest.approx(truth.ns_per_mac, rel=1e-3)
    assert got.ns_per_element == pytest.approx(truth.ns_per_element, rel=1e-3, abs=1e-4)
    others = (got.overhead_us, got.ns_per_weight_byte, got.ns_per_map_byte, got.strided_ratio, got.edge_ns)
    assert others == pytest.approx((3.0, 0.02, 0.03, 2.5, 0.5), rel=1e-3)
    assert max(abs(error(sample, truth, 0.5)) for sample in found) < 1e-9


def test_a_number_format_is_priced_by_the_maps_too_and_a_profile_takes_its_price(samples):
    slower = []
    for sample in samples[1]:
        maps = sum(layer.map_bytes for layer in sample.layers if layer.op in ("conv", "fc"))
        timing = msgspec.structs.replace(sample.timing, ms=sample.timing.ms + 0.3e-6 * maps)
        slower.append(dataclasses.replace(sample, timing=timing))
    found = fitted(slower)
    assert found.ns_per_map_byte - fitted(samples[1]).ns_per_map_byte == pytest.approx(0.3, rel=0.02)
    price = FormatPrice(
        ns_per_mac=found.ns_per_mac, overhead_us=found.overhead_us, ns_per_weight_byte=found.ns_per_weight_byte,
        ns_per_map_byte=found.ns_per_map_byte, strided_ratio=found.strided_ratio,
    )  # fmt: skip
    profile = msgspec.structs.replace(load_profile("pi4"), number_formats={"int8": price})
    (layer,) = [layer for layer in samples[1][0].layers if layer.op == "conv"][:1]
    parts_ns = found.ns_per_mac[layer.kind] * layer.macs + found.ns_per_weight_byte * layer.weight_bytes
    expected_ms = (parts_ns + found.ns_per_map_byte * layer.map_bytes) * 1e-6 + found.overhead_us * 1e-3
    assert profile.layer_ms(layer, "int8") == pytest.approx(expected_ms)
    with pytest.raises(ConfigError, match=r"number format of profile pi4.*'bf16'.*f32, int8"):
        profile.compute_ms([layer], "bf16")


def test_a_coefficient_is_never_negative(samples):
    _, found = samples
    rng = np.random.default_rng(0)
    noisy = []
    for sample in found:
        ms = sample.timing.ms * float(rng.uniform(0.3, 3.0))
        timing = Timing(ms=ms, low_ms=ms, high_ms=ms)
        noisy.append(Sample(name=sample.name, kind=sample.kind, layers=sample.layers, edge_numbers=0, timing=timing))
    got = fitted(noisy)
    assert min([*got.ns_per_mac.values(), *got.ns_per_element.values(), got.overhead_us, got.ns_per_weight_byte,
                got.ns_per_map_byte, got.strided_ratio]) >= 0  # fmt: skip


def test_a_steady_machine_is_not_throttled_and_one_that_slows_down_is():
    rng = np.random.default_rng(0)
    steady = timed(Made([1e-3, 2e-3]), [0, 1], rounds=6, burst_s=0.0, rng=rng)
    assert [t.ms for t in steady.timings] == pytest.approx([1.0, 2.0])
    assert not steady.throttled
    slower = timed(Made([1e-3, 2e-3], drift=0.01), [0, 1], rounds=6, burst_s=0.0, rng=rng)
    assert slower.throttled
    for one in slower.timings:
        assert one.low_ms < one.ms < one.high_ms


def few():
    """One small stack of three kinds."""
    layers = (
        ("conv3x3", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()), (8, 4, 4)),
        ("conv1x1", nn.Conv2d(8, 8, 1), (8, 4, 4)),
        ("fc", nn.Linear(32, 8), (32,)),
    )
    return [Stack(name=kind, kind=kind, module=module, input_shape=shape) for kind, module, shape in layers]


def test_random_branches_are_legal_and_differ():
    network, rng = tiny(), np.random.default_rng(0)
    values = sample_values(network)
    said = set()
    for _ in range(12):
        choices, branch = random_branch(network, values, rng)
        said.add(choices)
        assert branch(values[network.spec.places[0].after]).shape == (16, 5)
    assert len(said) > 6


def listening(address):
    """A timer at a server that has bound its port, and listens a moment later."""
    for _ in range(100):
        try:
            return RemoteTimer(address, HOST, 1)
        except ConfigError:
            time.sleep(0.1)
    return RemoteTimer(address, HOST, 1)


def test_a_device_is_measured_over_rpc():
    """A server in a process group of its own, since it starts others."""
    words = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", "9290", "--port-end", "9390"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            found = next(match for line in server.stderr if (match := re.search(r"bind to 127\.0\.0\.1:(\d+)", line)))
            timer = listening(f"127.0.0.1:{found[1]}")
            assert timer.add(program_bytes(export(few()[0].module, few()[0].input_shape))) == 0
            assert 1e-7 < timer.burst(0, 0.001) < 1
        finally:
            os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("address", "target", "match"),
    [
        ("nowhere", HOST, "must be host:port"),
        ("127.0.0.1:1", HOST, "no RPC server answers"),
        ("127.0.0.1:1", TARGETS["pi3"], "has no TVM runtime"),
    ],
)
def test_a_device_that_cannot_be_asked_is_refused(address, target, match):
    with pytest.raises(ConfigError, match=match):
        RemoteTimer(address, target, 1)


def test_a_target_that_does_not_run_here_needs_a_device():
    elsewhere = "pi4" if HOST.architecture == "x86_64" else "x86-64-v3"
    with pytest.raises(ConfigError, match="pass --rpc"), open_timer(TARGETS[elsewhere], 1):
        pass


def test_jpeg_takes_some_time_and_webp_more():
    assert 0.01 < jpeg_ns_per_pixel(rounds=3) < webp_ns_per_pixel(rounds=3) < 100_000


def test_the_command_writes_a_profile_that_a_search_can_take(monkeypatch, capsys, tmp_path):
    import nas.profiling.measuring
    from nas.cli import main

    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nas.profiling.measuring, "stacks", few)
    (tmp_path / "net.py").write_text(NETWORK)
    words = f"nas profile --out {tmp_path / 'mine.json'} --threads 1 --rounds 3 --burst-ms 1 --check 1"
    words += f" --check-base {tmp_path / 'net.py'}:build --image-size 8"
    monkeypatch.setattr(sys, "argv", words.split())
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr().out
    found = load_profile(tmp_path / "mine.json")
    assert found.name == "mine"
    assert "Measured by nas profile on" in found.origin
    assert "per number that enters or leaves a block" in found.origin
    assert [m.network for m in found.fitted_to] == ["conv3x3", "conv1x1", "fc"]
    assert all(m.latency_ms > 0 for m in found.fitted_to)
    for line in (
        "Linear model against measurement",
        "1 random branches: mean error",
        f"--device {tmp_path / 'mine.json'}",
    ):
        assert line in told
