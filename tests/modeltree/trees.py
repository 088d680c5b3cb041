"""A model tree made by hand: two blocks, two bandwidth types, every kind of ending."""

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import Action, BandwidthFork, BitsFork, ExitFork, Handover, Leaf, ModelTree, Node

RTT_MS = 10.0
SLOW_MBPS, EDGE_MBPS, FAST_MBPS = 1.0, 5.0, 8.0
"""At 1 Mbit/s a millisecond carries 125 bytes, at 8 Mbit/s 1000."""


def types():
    half = (0.5, 0.5)
    return BandwidthTypes(
        representative_mbps=(SLOW_MBPS, FAST_MBPS), edges_mbps=(EDGE_MBPS,), transition=(half, half), initial=half
    )


def keep(*layers):
    return tuple(Action(layer=layer, technique="keep") for layer in layers)


def leaf(chance, latency_ms, accuracy):
    return Leaf(chance=chance, latency_ms=latency_ms, accuracy=accuracy, accuracy_origin="measured")


def node(number, parent, bandwidth_types, device_ms, **rest):
    fork = BandwidthFork(types=bandwidth_types)
    rest = {"level": 0 if parent is None else 1, "partition": 2, "segments": 2, "actions": (), "fork": fork} | rest
    return Node(id=number, parent=parent, device_ms=device_ms, **rest)


def handover(place, size_bytes, mbps, bits=32):
    """The fields of a node that hands over, at a constant bandwidth."""
    return {
        "partition": 0,
        "handover": Handover(place=place, shape=(size_bytes * 8 // bits,), bytes=size_bytes, bits=bits),
        "transfer_ms": RTT_MS + size_bytes / (125 * mbps),
        "cloud_ms": 0.5,
    }


def tree_of(*nodes, exits=()):
    return ModelTree(
        base="vgg11", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3,
        classes=("a", "b"), places=(0, 2, 4), types=types(), rtt_ms=RTT_MS,
        device="pi4", cloud="gpu", trace="steps", nodes=nodes, exits=exits,
    )  # fmt: skip


def forked_tree():
    """Slow: prune and stay (node 0), then stay (2) or hand over 1000 bytes (3). Fast: hand 4000 bytes over (1)."""
    first = (*keep("conv2d", "conv2d_1", "conv2d_2"), Action(layer="conv2d_3", technique="prune", rate=0.5))
    pooled = (Action(layer="linear", technique="gap"), Action(layer="linear_1", technique="absorbed"))
    return tree_of(
        node(0, None, (0,), 20.0, actions=first, children=(2, 3)),
        node(1, None, (1,), 4.0, **{**handover(1, 4000, FAST_MBPS), "partition": 1}, actions=keep("conv2d"),
             leaf=leaf(0.5, 4 + 10 + 4 + 0.5, 92.0)),
        node(2, 0, (0,), 30.0, actions=pooled, leaf=leaf(0.25, 50.0, 88.0)),
        node(3, 0, (1,), 0.0, **handover(2, 1000, FAST_MBPS), leaf=leaf(0.25, 20 + 10 + 1 + 0.5, 90.0)),
    )  # fmt: skip


def exits_tree():
    """Slow: 20 ms, then 0.4 of the samples leave as sure (4); then, slow, exit 2 (2), or, fast, 4 bits (3).

    Fast: hand over (1). Node 5, exit 1, is for policies alone.
    """
    return tree_of(
        node(0, None, (0,), 20.0, children=(2, 3, 4)),
        node(1, None, (1,), 4.0, **{**handover(1, 4000, FAST_MBPS), "partition": 1},
             leaf=leaf(0.5, 4 + 10 + 4 + 0.5, 92.0)),
        node(2, 0, (), 15.0, fork=ExitFork(exit=2, types=(0,)), leaf=leaf(0.15, 37.0, 84.0)),
        node(3, 0, (), 0.0, **handover(2, 125, FAST_MBPS, bits=4), fork=BitsFork(types=(1,), bits=4),
             leaf=leaf(0.15, 20 + 2 + 10 + 0.125 + 0.5, 90.0)),
        node(4, 0, (), 2.0, fork=ExitFork(exit=1, entropy=0.31), leaf=leaf(0.2, 22.0, 97.0)),
        node(5, None, (), 12.0, fork=ExitFork(exit=1), leaf=leaf(0.0, 12.0, 80.0)),
        exits=(1, 3),
    )  # fmt: skip


def device_only():
    """A fixed strategy: one fork for all types, everything on the device."""
    return tree_of(node(0, None, (0, 1), 60.0, actions=keep("conv2d", "linear"), leaf=leaf(1.0, 60.0, 92.0)))


def cloud_only(size_bytes=4000, mbps=SLOW_MBPS):
    """A fixed strategy: the input goes to the cloud whatever the bandwidth."""
    fields = handover(0, size_bytes, mbps)
    latency_ms = fields["transfer_ms"] + fields["cloud_ms"]
    return tree_of(node(0, None, (0, 1), 0.0, **fields, leaf=leaf(1.0, latency_ms, 92.0)))
