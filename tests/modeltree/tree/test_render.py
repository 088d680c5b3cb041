"""The tree in words: every fork, every layer's fate, every hand-over, and DOT that Graphviz can read."""

import re

import msgspec
import pytest
from trees import device_only, exits_tree, forked_tree, types

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import Action, BandwidthFork, BitsFork, ExitFork
from modeltree.tree.render import (
    bytes_text,
    fork_text,
    handover_text,
    layer_lines,
    ms_text,
    range_text,
    render_dot,
    render_text,
)

THREE = BandwidthTypes(
    representative_mbps=(1.0, 2.0, 4.0), edges_mbps=(1.5, 3.0), transition=((1 / 3,) * 3,) * 3, initial=(1 / 3,) * 3
)


def test_the_text_says_everything_about_a_tree():
    assert render_text(forked_tree()) == (
        "vgg11: 3x32x32 to 2 classes, sliced at places 0, 2, 4\n"
        "device pi4, cloud gpu, trace steps, round trip 10 ms\n"
        "expected: 29.6 ms (predicted), 90.50 % (measured)\n"
        "├─ type 0: below 5 Mbit/s → block 1, 20 ms on the device\n"
        "│  │    conv2d .. conv2d_2: keep (3 layers)\n"
        "│  │    conv2d_3: prune@0.5\n"
        "│  ├─ type 0: below 5 Mbit/s → block 2, 30 ms on the device\n"
        "│  │       linear: gap\n"
        "│  │       linear_1: absorbed\n"
        "│  │       leaf 2: 50 ms predicted, 88.00 % measured, chance 25 %\n"
        "│  └─ type 1: at least 5 Mbit/s → block 2, 0 ms on the device\n"
        "│          nothing runs on the device\n"
        "│          to the cloud at place 2: 250, 32 bits a number, 1 kB; 11 ms transfer, 0.5 ms cloud\n"
        "│          leaf 3: 31.5 ms predicted, 90.00 % measured, chance 25 %\n"
        "└─ type 1: at least 5 Mbit/s → block 1, 4 ms on the device\n"
        "        conv2d: keep\n"
        "        to the cloud at place 1: 1000, 32 bits a number, 4 kB; 14 ms transfer, 0.5 ms cloud\n"
        "        leaf 1: 18.5 ms predicted, 92.00 % measured, chance 50 %\n"
    )


def test_a_line_break_in_a_name_does_not_break_the_text():
    text = render_text(msgspec.structs.replace(device_only(), trace="evil\n└─ type 9"))
    assert len(text.splitlines()) == 6
    assert "evil └─ type 9" in text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ((0,), "below 1.5 Mbit/s"),
        ((1,), "1.5 to 3 Mbit/s"),
        ((2,), "at least 3 Mbit/s"),
        ((1, 2), "at least 1.5 Mbit/s"),
        ((2, 0), "below 1.5 or at least 3 Mbit/s"),
        ((0, 1, 2), "any bandwidth"),
    ],
)
def test_types_are_shown_as_the_bandwidths_they_cover(wanted, text):
    (only,) = device_only().nodes
    every = msgspec.structs.replace(only, fork=BandwidthFork(types=(0, 1, 2)))
    assert range_text(msgspec.structs.replace(device_only(), types=THREE, nodes=(every,)), wanted) == text


def test_every_kind_of_fork_has_words():
    tree = device_only()
    assert fork_text(tree, BandwidthFork(types=(0, 1))) == "any bandwidth"
    assert fork_text(tree, BitsFork(types=(1,), bits=8)) == "type 1: at least 5 Mbit/s, 8 bits"
    assert fork_text(tree, BitsFork(types=(), bits=8)) == "by a policy only, 8 bits"
    assert fork_text(tree, ExitFork(exit=2)) == "by a policy only, exit 2"
    assert fork_text(tree, ExitFork(exit=2, types=(0, 1))) == "any bandwidth, exit 2"
    assert fork_text(tree, ExitFork(exit=2, entropy=0.3125)) == "exit 2 if entropy <= 0.312"
    assert tree.types == types()


def test_exits_and_bits_are_in_the_text_and_in_dot():
    """Of the half that is slow 0.2 leave through exit 1: 40 %."""
    assert render_text(exits_tree()) == (
        "vgg11: 3x32x32 to 2 classes, sliced at places 0, 2, 4\n"
        "early exits at places 1, 3\n"
        "device pi4, cloud gpu, trace steps, round trip 10 ms\n"
        "expected: 24.1 ms (predicted), 91.50 % (measured)\n"
        "├─ type 0: below 5 Mbit/s → block 1, 20 ms on the device\n"
        "│  │    no layer with weights\n"
        "│  ├─ type 0: below 5 Mbit/s, exit 2 → block 2, 15 ms on the device\n"
        "│  │       the head of an exit\n"
        "│  │       leaf 2: 37 ms predicted, 84.00 % measured, chance 15 %\n"
        "│  ├─ type 1: at least 5 Mbit/s, 4 bits → block 2, 0 ms on the device\n"
        "│  │       nothing runs on the device\n"
        "│  │       to the cloud at place 2: 250, 4 bits a number, 125 bytes; 10.1 ms transfer, 0.5 ms cloud\n"
        "│  │       leaf 3: 32.6 ms predicted, 90.00 % measured, chance 15 %\n"
        "│  └─ exit 1 if entropy <= 0.31 (40 %) → head 1, 2 ms on the device\n"
        "│          the head of an exit\n"
        "│          leaf 4: 22 ms predicted, 97.00 % measured, chance 20 %\n"
        "├─ type 1: at least 5 Mbit/s → block 1, 4 ms on the device\n"
        "│       no layer with weights\n"
        "│       to the cloud at place 1: 1000, 32 bits a number, 4 kB; 14 ms transfer, 0.5 ms cloud\n"
        "│       leaf 1: 18.5 ms predicted, 92.00 % measured, chance 50 %\n"
        "└─ by a policy only, exit 1 → block 1, 12 ms on the device\n"
        "        the head of an exit\n"
        "        leaf 5: 12 ms predicted, 80.00 % measured, chance 0 %\n"
    )
    assert 'n0 -> n4 [label="exit 1 if entropy <= 0.31 (40 %)"]' in render_dot(exits_tree())
    handed = exits_tree().nodes[3].handover
    assert handover_text(msgspec.structs.replace(handed, exit=2)).endswith("4 bits a number, 125 bytes, through exit 2")


def test_a_rate_of_one_is_hidden_and_a_single_kept_layer_stands_alone():
    actions = [("a", "keep", 1.0), ("b", "fire", 0.25), ("c", "keep", 1.0), ("d", "keep", 1.0), ("e", "mobilenet", 1.0)]
    node = msgspec.structs.replace(
        device_only().nodes[0], actions=tuple(Action(layer=n, technique=t, rate=r) for n, t, r in actions)
    )
    assert layer_lines(node) == ["a: keep", "b: fire@0.25", "c .. d: keep (2 layers)", "e: mobilenet"]


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.4123, "0.412 ms"), (41.23, "41.2 ms"), (999.7, "1000 ms"), (4123.4, "4123 ms"), (float("nan"), "–")],
)
def test_times_keep_three_digits(ms, text):
    assert ms_text(ms) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (3072, "3.07 kB"), (999_700, "1 MB")])
def test_sizes_keep_three_digits(size, text):
    assert bytes_text(size) == text


def test_dot_has_every_node_and_every_fork_once():
    dot = render_dot(forked_tree())
    assert re.findall(r"^  (n\d) \[", dot, re.M) == ["n0", "n1", "n2", "n3"]
    assert re.findall(r"^  (\w+ -> \w+) ", dot, re.M) == ["start -> n0", "start -> n1", "n0 -> n2", "n0 -> n3"]
    assert dot.startswith("digraph modeltree {\n")
    assert dot.endswith("}\n")


def test_dot_strings_close_whatever_the_names_hold():
    dot = render_dot(msgspec.structs.replace(device_only(), base='a"];\nx\\', device="\\"))
    label = next(line for line in dot.splitlines() if line.startswith("  start"))
    assert label == r'  start [label="a\"]; x\\\l\\\l", shape=ellipse];'
    for line in dot.splitlines():
        assert re.sub(r"\\.", "", line).count('"') % 2 == 0
