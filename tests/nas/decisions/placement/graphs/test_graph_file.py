"""Placement inputs from files."""

import json

import pytest

from modeltree.errors import FormatError
from nas.decisions.placement.graphs.graph_file import read_graph

GRAPH = {
    "maxSizePerFPGA": 10.0, "maxFPGAs": 1, "maxCPUs": 1, "comment": "ignored",
    "nodes": [{"id": 1, "name": "a", "supportedOnFpga": 1, "cpuLatency": 2.0, "fpgaLatency": 1, "isBackwardNode": 0},
              {"id": 2, "supportedOnFpga": False, "cpuLatency": 2.0, "fpgaLatency": 1.0, "colorClass": 7, "size": 3}],
    "edges": [{"sourceId": 1, "destId": 2, "cost": 0.5, "size": 4}],
}  # fmt: skip


def test_debug_information_is_ignored_and_what_may_be_missing_has_defaults(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH))
    graph = read_graph(path)
    assert [node.size for node in graph.nodes] == [0.0, 3.0]
    assert [bool(node.supported) for node in graph.nodes] == [True, False]
    assert graph.transfer_cost == {1: 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": [{"sourceId": 1, "destId": 3, "cost": 1}]}, "must join two nodes"),
        ({"nodes": [GRAPH["nodes"][0]] * 2}, "an id of its own"),
        ({"maxFPGAs": 0, "maxCPUs": 0}, "no processor"),
        ({"maxFPGAs": -1}, "negative"),
        ({"nodes": "none"}, "no placement input"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(tmp_path, change, message):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH | change))
    with pytest.raises(FormatError, match=message):
        read_graph(path)
