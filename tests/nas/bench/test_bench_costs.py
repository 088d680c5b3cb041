"""nas bench --formats and --kernels: what is priced, as a table and as JSON."""

import json
import sys

import pytest

from compile.costs import FormatCost, KernelTime
from nas.bench.costs import CostResults, Costs, costs_json, costs_text
from nas.cli import main

SMALL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
"""


def results(*costs):
    return CostResults(machine="m", date="d", load_before=0.5, what="w", costs=costs)


def test_reckoned_times_are_told_from_measured_ones_and_refusals_are_named():
    formats = (
        FormatCost(format="f32", target="host", ms=1.25, origin="measured", library_bytes=5000, weight_bytes=4000,
                   workspace_bytes=100, relative_error=1e-7, checked="library"),
        FormatCost(format="int8", target="pi4", ms=2.5, origin="estimated"),
        FormatCost(format="int8-dot", target="pi4", refused="no dot products"),
    )  # fmt: skip
    text = costs_text(results(Costs(case="net", target="host", threads=1, formats=formats)))
    assert "| net | host | 1 | f32 | 1.250 | 5 | 4 | 0 | 1.0e-07 |" in text
    assert "| int8 | ~2.500 |" in text
    assert "net, int8-dot: no dot products" in text


def test_kernels_are_shown_with_their_shares_and_their_sum():
    kernels = (
        KernelTime(name="conv3x3", out=(1, 8, 4, 4), ms=0.3, macs=3_000_000),
        KernelTime(name="steps", out=(1, 8), ms=0.1, macs=0),
    )
    text = costs_text(results(Costs(case="net", target="host", threads=2, weights="int8", kernels=kernels)))
    assert "| conv3x3 | 1x8x4x4 | 0.3000 | 75.0 | 3.00 | 20.0 |" in text
    assert "| all |  | 0.4000 | 100.0 | 3.00 | 15.0 |" in text


def test_json_holds_every_number():
    kernel = KernelTime(name="steps", out=(1, 8), ms=0.1, macs=0)
    told = json.loads(costs_json(results(Costs(case="net", target="host", threads=1, kernels=(kernel,)))))
    assert told["costs"][0]["kernels"] == [{"name": "steps", "out": [1, 8], "ms": 0.1, "macs": 0}]


def called(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nas", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_network_is_priced_for_another_machine_at_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "net.py").write_text(SMALL)
    arguments = ["--base", f"{tmp_path / 'net.py'}:build", "--image-size", "8", "--target", "pi4", "--weights", "f32"]
    assert called(["bench", "--formats", "--json", *arguments, "--cache", str(tmp_path)], monkeypatch) == 0
    (costs,) = json.loads(capsys.readouterr().out)["costs"]
    assert [(one["format"], one["origin"]) for one in costs["formats"]] == [("f32", "estimated")]


def test_an_unknown_format_is_refused_before_anything_is_built(monkeypatch, capsys):
    assert called(["bench", "--formats", "--weights", "int7"], monkeypatch) == 2
    assert "unknown weight format 'int7'" in capsys.readouterr().err
