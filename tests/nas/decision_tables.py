"""Small decision problems: made-up numbers that are physically consistent; and a tree whose leaves are one."""

import itertools

import numpy as np

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.offloading.decisions import Decisions, DecisionTable
from modeltree.tree import BandwidthFork, BitsFork, ExitFork, Handover, Leaf, ModelTree, Node

LAYER_MS = np.array([12.0, 20.0, 20.0, 15.0, 13.0])
ELEMENTS = np.array([150_528, 290_400, 69_984, 186_624, 64_896])
EXITS = {1: (3, 78.7), 2: (4, 81.7), 3: (5, 83.6)}
"""Layers of each exit, and its accuracy."""
LOST = {4: 3.0, 8: 0.5, 16: 0.0}
"""Points of accuracy that a code of so many bits costs."""
CLOUD_IS_FASTER, CODED = 10, 0.4


def small_table():
    """3 exits x 6 cuts x 3 bits; a cut at or behind an exit's last layer leaves all on the device."""
    columns = {name: [] for name in ("exit", "cut", "bits", "device_ms", "cloud_ms", "sent_bytes", "accuracy")}
    for (exit, (layers, accuracy)), cut, bits in itertools.product(EXITS.items(), range(6), LOST):
        local = cut >= layers
        device_ms = LAYER_MS[: min(cut, layers)].sum()
        row = (
            exit, cut, bits, device_ms, 0.0 if local else LAYER_MS[cut:layers].sum() / CLOUD_IS_FASTER,
            0.0 if local else ELEMENTS[cut] * bits / 8 * CODED, accuracy - (0.0 if local else LOST[bits]),
        )  # fmt: skip
        for column, value in zip(columns.values(), row):
            column.append(value)
    return DecisionTable(**columns)


def small_decisions(*, budget_mj=np.inf, rtt_ms=3.0):
    """The small table behind a link."""
    return Decisions(table=small_table(), rtt_ms=rtt_ms, budget_mj=budget_mj)


def small_tree(*, base="vgg11", rest_ms=40.0):
    """Six actions (leaves 1, 2, 3, 5, 6, 7) and a head that 2 ms are spent on behind node 0; exits at places 1 and 3.

    Slow: node 0 (20 ms), then exit 2 (leaf 2) or, fast, 4 bits (3). Fast: hand over at 1 (leaf 1). For policies: exit 1
    (5), all on the device (6), the image to the cloud (7). Node 4 is the head. rest_ms : behind a hand-over, here.
    """

    def node(id, parent, fork, device_ms, accuracy=None, chance=0.0, sent=None, children=()):
        handover = None
        if sent is not None:
            place, bits, size = sent
            handover = Handover(place=place, shape=(size * 8 // bits,), bytes=size, bits=bits, device_ms=rest_ms)
        leaf = None
        if accuracy is not None:
            leaf = Leaf(chance=chance, latency_ms=device_ms, accuracy=accuracy, accuracy_origin="measured")
        return Node(
            id=id, parent=parent, level=0 if parent is None else 1, fork=fork, partition=0 if sent else 2, segments=2,
            actions=(), device_ms=device_ms, cloud_ms=0.5 if sent else 0.0, handover=handover, leaf=leaf,
            children=children,
        )  # fmt: skip

    return ModelTree(
        base=base, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, classes=("a", "b"), places=(0, 2, 4),
        types=BandwidthTypes(
            representative_mbps=(1.0, 8.0), edges_mbps=(5.0,), transition=((0.5, 0.5),) * 2, initial=(0.5, 0.5)
        ),
        rtt_ms=10.0, device="pi4", cloud="cloud_gpu", trace="4g_indoor_slow", exits=(1, 3),
        nodes=(
            node(0, None, BandwidthFork(types=(0,)), 20.0, children=(2, 3, 4)),
            node(1, None, BandwidthFork(types=(1,)), 4.0, 92.0, 0.5, sent=(1, 32, 4000)),
            node(2, 0, ExitFork(exit=2, types=(0,)), 15.0, 84.0, 0.15),
            node(3, 0, BitsFork(types=(1,), bits=4), 1.0, 90.0, 0.15, sent=(2, 4, 125)),
            node(4, 0, ExitFork(exit=1, entropy=0.31), 2.0, 97.0, 0.2),
            node(5, None, ExitFork(exit=1), 12.0, 80.0),
            node(6, None, BandwidthFork(types=()), 60.0, 91.0),
            node(7, None, BandwidthFork(types=()), 0.0, 92.0, sent=(0, 8, 3072)),
        ),
    )  # fmt: skip
