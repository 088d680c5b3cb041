"""nas bench: engines take turns in processes of their own, ratios are taken within a round, the machine is measured."""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compile.program_file import program_bytes
from modeltree.errors import ConfigError, NasError
from nas.bench import PEERS, base_cases, measured, results_text, run_cases, save_results
from nas.bench.cases import random_network
from nas.bench.engines import Runner
from nas.bench.paired import Results, Rounds
from nas.bench.processes import Child
from nas.bench.roofline import Ceilings, Machine
from nas.cli import main
from transforms import export

SMALL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10))
"""

SILENT = """
from torch import nn

def build():
    norm = nn.BatchNorm2d(8)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.Flatten(), nn.Linear(512, 10))
"""


class Counter:
    """Something to hold in a process."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("start is negative")
        self.value = start

    def add(self, number: int) -> int:
        self.value += number
        return self.value

    def told(self, name: str) -> tuple[int, str | None]:
        return os.getpid(), os.environ.get(name)


def rounds(engine, *ms, case="net", **rest):
    return Rounds(case=case, engine=engine, threads=1, round_ms=ms, **rest)


def results(*entries):
    return Results(machine="m", date="d", versions={}, load_before=0.0, what="w", rounds=tuple(entries), ceilings=())


def test_a_process_holds_its_object_between_calls_and_knows_its_environment():
    with Child(Counter, 3, environment={"NAS_TEST": "7"}) as child:
        assert [child.call("add", 2), child.call("add", 10)] == [5, 15]
        pid, told = child.call("told", "NAS_TEST")
    assert told == "7"
    assert pid != os.getpid()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: run on Linux")
def test_a_process_that_has_answered_is_stopped():
    with Child(Counter, 0) as child:
        pid, _ = child.call("told", "HOME")
        for _ in range(100):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                break
            time.sleep(0.01)
        assert state == "T"
        assert child.call("add", 1) == 1


def test_what_fails_in_a_process_is_told_here():
    with pytest.raises(NasError, match="Counter failed: ValueError: start is negative"):
        Child(Counter, -1)
    with Child(Counter, 0) as child, pytest.raises(NasError, match="TypeError"):
        child.call("add", "x")


def test_a_ratio_is_the_median_of_the_ratios_within_rounds():
    # medians alone would say 2 / 3; the rounds say 1/2, 2, 1/3
    ours, theirs = rounds("nas-f32", 1.0, 4.0, 2.0), rounds("ort", 2.0, 2.0, 6.0)
    assert ours.ratio_to(theirs) == pytest.approx(0.5)
    assert ours.ratio_to(rounds("torch", None, 8.0, None)) == pytest.approx(0.5)
    assert math.isnan(ours.ratio_to(rounds("torch", None, None, None)))
    assert (ours.median_ms, ours.quartiles_ms) == (2.0, (1.5, 3.0))


def test_the_geometric_mean_leaves_out_networks_that_failed():
    found = results(
        rounds("nas-f32", 1.0, case="a"), rounds("ort", 2.0, case="a"),
        rounds("nas-f32", 8.0, case="b"), rounds("ort", 1.0, case="b"),
        rounds("nas-f32", case="c", failure="no"), rounds("ort", 1.0, case="c"),
    )  # fmt: skip
    mean, worst = found.geometric_mean("nas-f32", "ort", 1)
    assert (mean, worst) == (pytest.approx(2.0), 8.0)
    assert math.isnan(found.geometric_mean("nas-f32", "openvino", 1)[0])


def test_a_roofline_is_the_slower_of_arithmetic_and_weights():
    limits = Ceilings(threads=1, gflops=100.0, stream_gbps={1000: 10.0})
    assert limits.roofline_ms(5000, 1000) == pytest.approx(1e-4)
    assert limits.roofline_ms(50_000, 1000) == pytest.approx(1e-3)


def test_the_machine_is_measured_by_kernels_that_do_the_work():
    machine = Machine(1)
    found = machine.ceilings([1 << 20], rounds=1)
    assert set(found.stream_gbps) == {1 << 20, 1 << 28}
    assert found.gflops > 0.1
    assert min(found.stream_gbps.values()) > 0.01


def test_the_streaming_kernel_reads_everything():
    import tvm

    from compile.targets import host
    from nas.bench.roofline import _built, stream_kernel

    lanes = host().lanes
    x = np.random.default_rng(0).standard_normal((2, 5, 8 * lanes)).astype(np.float32)
    out = tvm.runtime.empty((2, lanes), "float32")
    _built(stream_kernel(2, 5, lanes), host())(tvm.runtime.tensor(x), out)
    np.testing.assert_allclose(out.numpy(), x.reshape(2, 40, lanes).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*PEERS])
def test_every_peer_computes_what_torch_does(name, tmp_path):
    from nas.bench.engines import installed

    if not installed(PEERS[name]):
        pytest.skip(f"{name} is not installed: {PEERS[name].hint}")
    (tmp_path / "net.py").write_text(SMALL)
    (case,) = base_cases([f"{tmp_path / 'net.py'}:build"], tmp_path, image_size=16)
    with Child(Runner, name, 1, environment=PEERS[name].environment(1)) as runner:
        found = runner.call("load", case)
        assert runner.call("burst", 0.001) > 0
    tolerance = 0.05 if name in ("openvino-bf16", "openvino-int8") else 1e-4
    assert np.abs(found - case.expected).max() < tolerance * np.abs(case.expected).max()


def test_a_random_network_has_no_silent_branch_and_maps_of_a_trained_ones_size(tmp_path):
    (tmp_path / "net.py").write_text(SILENT)
    network = random_network(f"{tmp_path / 'net.py'}:build", image_size=8)
    scale = network[1].weight
    assert scale.abs().min() > 0
    torch.manual_seed(1)
    with torch.no_grad():
        maps = (network[1](network[0](torch.randn(64, 3, 8, 8))) - network[1].bias.reshape(1, -1, 1, 1)).flatten(2)
    assert torch.allclose(maps.std((0, 2)), scale.abs(), rtol=0.25)
    assert not any(module.training for module in network.modules())


def test_two_files_of_one_name_are_two_rows(tmp_path):
    bases = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(SMALL)
        bases.append(f"{tmp_path / folder / 'net.py'}:build")
    cases = base_cases(bases, tmp_path, image_size=16)
    assert [case.name for case in cases] == ["net-build", "net-build-2"]
    assert all(case.program.is_file() for case in cases)


def test_blocks_of_a_run_are_measured_in_turns_and_written(tmp_path):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()).eval()
    (tmp_path / "run" / "blocks").mkdir(parents=True)
    path = tmp_path / "run" / "blocks" / "0123456789abcdef.pt2"
    path.write_bytes(program_bytes(export(block, (8, 6, 6))))
    cases = run_cases(tmp_path / "run", tmp_path)
    assert [(case.name, case.shape_in, case.shape_out) for case in cases] == [("01234567", (1, 8, 6, 6), (1, 8, 6, 6))]
    found = measured(
        cases, threads=[1], weights=["f32", "int8"], peers=["torch"], rounds=2, burst_s=0.001,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert [(r.engine, len(r.round_ms), r.failure) for r in found.rounds] == [
        ("nas-f32", 2, ""), ("nas-int8", 2, ""), ("torch", 2, ""),
    ]  # fmt: skip
    ours = found.of("01234567", "nas-f32", 1)
    assert ours.error < 1e-5
    assert ours.macs == 8 * 8 * 9 * 36
    assert ours.weight_bytes >= 4 * 8 * 8 * 9
    assert ours.roofline_ms > 0
    text = results_text(found)
    assert "| 01234567 | nas-int8 |" in text
    assert "nas-f32, geometric mean of the time ratio:" in text
    save_results(found, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["rounds"][0]["case"] == "01234567"


def test_a_run_without_blocks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there are no blocks"):
        run_cases(tmp_path, tmp_path)


@pytest.mark.parametrize(("option", "value", "known"), [("--peer", "caffe", "openvino"), ("--weights", "int4", "int8")])
def test_an_unknown_name_lists_the_known(option, value, known, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nas", "bench", option, value])
    with pytest.raises(SystemExit):
        main()
    assert known in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_left_out_with_a_hint(monkeypatch, capsys, tmp_path):
    import nas.bench

    (tmp_path / "net.py").write_text(SMALL)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(nas.bench, "installed", lambda engine: False)
    words = (
        f"nas bench --base {tmp_path / 'net.py'}:build --peer ort --threads 1 --rounds 1 --burst-ms 1 --image-size 16"
    )
    monkeypatch.setattr(sys, "argv", words.split())
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().out
    assert not ended.value.code
    assert "ort is left out: onnxruntime is not installed: pip install" in told
    assert "| net-build | nas-f32 |" in told
