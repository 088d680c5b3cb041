"""The tree: walking it, and telling a true file from any other."""

import json

import msgspec
import pytest
from json_changes import both, setting
from trees import cloud_only, device_only, exits_tree, forked_tree, tree_of

from modeltree.errors import FormatError
from modeltree.tree import decode_tree, encode_tree

SLOW, FAST = 1.0, 8.0


@pytest.mark.parametrize(
    ("measured", "nodes"), [([SLOW, SLOW], [0, 2]), ([SLOW, FAST], [0, 3]), ([FAST], [1]), ([5.0], [1])]
)
def test_a_walk_measures_once_a_fork_and_follows_the_match(measured, nodes):
    """[Wang 2020, alg. 2]; the edge at 5 Mbit/s belongs to the type above it."""
    left = list(measured)
    assert [node.id for node in forked_tree().walk(lambda: left.pop(0))] == nodes
    assert not left


def test_the_bandwidth_is_measured_only_when_the_next_node_is_asked_for():
    asked = []
    walk = forked_tree().walk(lambda: asked.append(len(asked)) or SLOW)
    next(walk)
    assert asked == [0]
    next(walk)
    assert asked == [0, 1]


def test_paths_roots_and_leaves():
    tree = forked_tree()
    assert tree.roots == (0, 1)
    assert [node.id for node in tree.path(3)] == [0, 3]
    assert [node.id for node in tree.leaves()] == [1, 2, 3]
    assert device_only().child(None, 0) == device_only().child(None, 1)


@pytest.mark.parametrize(
    "tree", [forked_tree(), device_only(), cloud_only(), exits_tree()], ids=["forked", "device", "cloud", "exits"]
)
def test_a_tree_comes_back_from_json_and_gives_the_same_bytes(tree):
    data = encode_tree(tree)
    assert decode_tree(data, "tree.json") == tree
    assert encode_tree(decode_tree(data, "tree.json")) == data
    assert data.endswith(b"}\n")


def spoilt(change, tree=None):
    """The JSON of a good tree after `change` was done to it."""
    plain = json.loads(encode_tree(tree or forked_tree()))
    change(plain)
    return json.dumps(plain).encode()


HANDOVER = {"place": 2, "shape": [250], "bytes": 1000, "bits": 32, "block": ""}
LEAF = {"chance": 0.0, "latency_ms": 1.0, "accuracy": 90.0, "accuracy_origin": "measured"}

HOSTILE = {
    "newer version": (setting("version", value=6), "version 6"),
    "a latency of its own in an old version": (setting("max_latency_ms", value=5.0), "begins with version 5"),
    "no latency at all": (setting("max_latency_ms", value=0.0), "max_latency_ms is 0"),
    "another format": (setting("format", value="onnx"), "onnx"),
    "unknown key": (setting("colour", value="red"), "colour"),
    "unknown key in a node": (setting("nodes", 0, "colour", value="red"), "colour"),
    "wrong parent": (setting("nodes", 2, "parent", value=1), "names 1 as its parent|lists 2 as its child"),
    "parent behind its child": (setting("nodes", 1, "parent", value=3), "as its parent"),
    "parent out of range": (setting("nodes", 3, "parent", value=99), "as its parent|as its child"),
    "child out of range": (setting("nodes", 0, "children", value=[2, 9]), "lists 9"),
    "a node that is its own child": (setting("nodes", 0, "children", value=[0, 2, 3]), "lists 0"),
    "an orphan": (setting("nodes", 0, "children", value=[2]), "names 0 as its parent"),
    "wrong number": (setting("nodes", 1, "id", value=7), "has id 7"),
    "chances": (setting("nodes", 2, "leaf", "chance", value=0.5), "add up to 1.25"),
    "a leaf with children": (setting("nodes", 0, "leaf", value=LEAF), "either be a leaf"),
    "cut out of range": (setting("nodes", 0, "partition", value=3), "cut at 3"),
    "negative cut": (setting("nodes", 0, "partition", value=-1), "cut at -1"),
    "a parent from behind": (setting("nodes", 1, "parent", value=-99), "as its parent"),
    "no nodes": (setting("nodes", value=[]), "no fork for bandwidth type 0"),
    "a type without a first fork": (setting("nodes", 1, "fork", "types", value=[0]), "no fork for bandwidth type 1"),
    "a type without a later fork": (
        setting("nodes", 3, "fork", "types", value=[0]), "node 0 has no fork for bandwidth type 1"
    ),
    "a chance without a type": (setting("nodes", 3, "fork", "types", value=[]), "only a policy takes node 3"),
    "an exit that the tree does not have": (
        setting("nodes", 2, "fork", value={"type": "exit", "exit": 1}), "node 2 leaves through exit 1: the tree has 0"
    ),
    "an exit where a type should fork": (
        both(setting("exits", value=[1]), setting("nodes", 2, "fork", value={"type": "exit", "exit": 1}),
             setting("nodes", 2, "leaf", "chance", value=0.0), setting("nodes", 3, "leaf", "chance", value=0.5)),
        "node 0 has no fork for bandwidth type 0",
    ),
    "a hand-over with other bits than its fork": (
        setting("nodes", 3, "fork", value={"type": "bits", "types": [1], "bits": 4}), "over 32 bits on a fork of 4"
    ),
    "bits without a hand-over": (
        setting("nodes", 2, "fork", value={"type": "bits", "types": [0], "bits": 4}), "node 2 hands nothing over"
    ),
    "bits that no code has": (
        setting("nodes", 3, "fork", value={"type": "bits", "types": [1], "bits": 17}), "17 bits a number"
    ),
    "a hand-over that goes on": (setting("nodes", 0, "handover", value=HANDOVER), "node 0 hands over and goes on"),
    "a level left out": (setting("nodes", 2, "level", value=2), "node 2 is at level 2"),
    "a level that stays": (setting("nodes", 3, "level", value=0), "node 3 is at level 0"),
    "a first node below the first level": (setting("nodes", 1, "level", value=1), "node 1 is at level 1"),
    "a negative chance": (
        both(setting("nodes", 2, "leaf", "chance", value=-0.25), setting("nodes", 3, "leaf", "chance", value=0.75)),
        "a negative chance",
    ),
    "no mean": (lambda plain: plain.pop("mean"), "mean"),
    "no std": (lambda plain: plain.pop("std"), "std"),
    "a mean of two channels": (setting("mean", value=[0.5, 0.5]), "must have 3 numbers each"),
    "a std of four channels": (setting("std", value=[0.25] * 4), "must have 3 numbers each"),
    "a std of zero": (setting("std", value=[0.25, 0.0, 0.25]), "std above 0"),
    "an input without channels": (setting("input_shape", value=[]), "must have 0 numbers each"),
    "a number as text": (setting("nodes", 0, "device_ms", value="20"), "float"),
    "unknown fork": (setting("nodes", 0, "fork", "type", value="coin"), "coin"),
    "bandwidth types that do not fit": (setting("types", "edges_mbps", value=[]), "edges"),
    "chances of types": (setting("types", "initial", value=[0.5, 0.7]), "sum to 1"),
}  # fmt: skip


SURE = {"type": "exit", "exit": 1, "entropy": 0.31}
HOSTILE_EXITS = {
    "exits that do not rise": (setting("exits", value=[2, 1]), r"exits are at places \[2, 1\]"),
    "an exit at the end": (setting("exits", value=[1, 4]), r"exits are at places \[1, 4\]: .* 1..3"),
    "an exit beyond": (setting("nodes", 4, "fork", "exit", value=3), "node 4 leaves through exit 3: the tree has 2"),
    "two ways to take one": (setting("nodes", 2, "fork", "entropy", value=0.1), "bandwidth types .* by entropy 0.1"),
    "a negative entropy": (setting("nodes", 4, "fork", "entropy", value=-0.1), "at least 0 nats"),
    "sure at the start": (setting("nodes", 0, "fork", value=SURE), "node 0 .* must end on the device"),
    "an exit first of all": (setting("nodes", 5, "fork", value=SURE), "node 5 is an exit by confidence"),
    "two exits by confidence": (setting("nodes", 2, "fork", value=SURE), "node 2 is an exit by confidence"),
    "an exit that hands over": (setting("nodes", 3, "fork", value=SURE), "node 3 .* must end on the device"),
    "a hand-over to an exit that is not there": (
        setting("nodes", 3, "handover", "exit", value=3), "node 3 hands over to exit 3: the tree has 2"
    ),
    "a chance that the switch cannot give": (
        setting("nodes", 2, "fork", value={"type": "exit", "exit": 1}), "only a policy takes node 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE_EXITS)
def test_exits_that_are_not_consistent_are_refused(what):
    change, why = HOSTILE_EXITS[what]
    with pytest.raises(FormatError, match=rf"^t\.json is not a model tree: .*({why})"):
        decode_tree(spoilt(change, exits_tree()), "t.json")


def test_a_walk_leaves_through_exits_of_the_link_and_never_by_confidence():
    tree = exits_tree()
    assert [node.id for node in tree.walk(lambda: SLOW)] == [0, 2]
    assert [node.id for node in tree.walk(iter([SLOW, FAST]).__next__)] == [0, 3]
    assert tree.confident(0) == tree.nodes[4]
    assert tree.confident(1) is None
    assert tree.chances() == pytest.approx((0.5, 0.5, 0.15, 0.15, 0.2, 0.0))


def test_a_fork_that_only_a_policy_takes_is_on_no_walk():
    tree = exits_tree()
    assert tree.nodes[5].fork.types == ()
    assert 5 not in {node.id for mbps in (SLOW, FAST) for node in tree.walk(lambda mbps=mbps: mbps)}


def test_an_old_tree_has_the_bytes_it_always_had():
    assert "exits" not in json.loads(encode_tree(forked_tree()))
    assert {"format", "version"} <= json.loads(encode_tree(forked_tree())).keys()
    crossing = json.loads(encode_tree(forked_tree()))["nodes"][1]["handover"]
    assert list(crossing) == ["place", "shape", "bytes", "bits", "block", "device_ms"]
    assert json.loads(encode_tree(exits_tree()))["exits"] == [1, 3]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tree_that_is_not_consistent_is_refused_and_says_why(what):
    change, why = HOSTILE[what]
    with pytest.raises(FormatError, match=rf"^runs/t\.json is not a model tree: .*({why})"):
        decode_tree(spoilt(change), "runs/t.json")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(share):
    data = encode_tree(forked_tree())
    with pytest.raises(FormatError, match="is not a model tree"):
        decode_tree(data[: int(share * len(data))], "t.json")


@pytest.mark.parametrize("data", [b"\xff\xfe{", b"[]", b"null", b"[" * 100_000, b'{"nodes": 1}'])
def test_what_is_no_tree_at_all_is_refused(data):
    with pytest.raises(FormatError, match="is not a model tree"):
        decode_tree(data, "t.json")


def test_a_tree_with_a_type_that_no_fork_takes_cannot_be_made():
    nodes = forked_tree().nodes
    leaf = msgspec.structs.replace(nodes[1].leaf, chance=1.0)
    with pytest.raises(FormatError, match="no fork for bandwidth type 0"):
        tree_of(msgspec.structs.replace(nodes[1], id=0, leaf=leaf))


@pytest.mark.parametrize("node", [None, 0])
def test_a_type_that_the_tree_does_not_know_has_no_child(node):
    with pytest.raises(FormatError, match=f"node {node} has no fork for bandwidth type 2"):
        forked_tree().child(node, 2)


def test_where_latency_is_worth_nothing_is_kept_and_weighed_with():
    tree = msgspec.structs.replace(forked_tree(), max_latency_ms=5.0, version=5)
    assert decode_tree(encode_tree(tree), "t.json") == tree
    assert tree.reward.of(100.0, 0.0) - tree.reward.of(100.0, 1.0) == pytest.approx(60.0)
    assert tree.reward.per_ms == pytest.approx(60.0)
    assert b"max_latency_ms" not in encode_tree(forked_tree())
    assert forked_tree().reward.per_ms == pytest.approx(0.6)
