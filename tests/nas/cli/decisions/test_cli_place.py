"""nas place at the command line."""

import json
import sys

import pytest

from nas.cli import main


@pytest.fixture
def nas(monkeypatch, capsys):
    """Run `nas` in this process; returns (status, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def graph(tmp_path):
    """Four nodes in a chain; two accelerators, of which each holds half."""
    nodes = [
        {"id": i, "supportedOnFpga": 1, "cpuLatency": 9.0, "fpgaLatency": 1.0 + i, "isBackwardNode": 0, "size": 1.0}
        for i in range(4)
    ]
    edges = [{"sourceId": i, "destId": i + 1, "cost": 0.25} for i in range(3)]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(
        {"maxSizePerFPGA": 3.0, "maxFPGAs": 2, "maxCPUs": 0, "nodes": nodes, "edges": edges}
    ))  # fmt: skip
    return path


def test_the_largest_load_as_json(nas, graph):
    status, out, _ = nas("place", "--graph", graph, "--objective", "load", "--contiguous", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["objective"] == pytest.approx(1 + 2 + 3 + 0.25)
    assert document["exact"]
    first, last = document["placement"]["0"], document["placement"]["3"]
    assert document["placement"] == {"0": first, "1": first, "2": first, "3": last}
    assert sorted(len(device["nodes"]) for device in document["fpgas"]) == [1, 3]


def test_the_latency_at_the_terminal(nas, graph):
    status, out, _ = nas("place", "--graph", graph, "--objective", "latency", "--contiguous")
    assert status == 0
    assert "latency 10.5000" in out


def test_an_unknown_objective_names_the_known(nas, graph):
    status, _, err = nas("place", "--graph", graph, "--objective", "speed")
    assert status == 2
    assert "latency, load" in err
