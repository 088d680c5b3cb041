"""Which exits, cuts and bits are deployed: those that are best somewhere, by numbers worked out by hand."""

from trees import RTT_MS, types

from modeltree.tree import BandwidthFork, BitsFork, ExitFork, Handover, Leaf, ModelTree, Node
from nas.finalise.action_tree import Chosen, worth_having

ALWAYS = BandwidthFork(types=(0, 1))


def leaf_node(number, accuracy, device_ms, *, fork=None, sent=None, cloud_ms=0.0):
    """A leaf at the root. sent : (place, bits, bytes, exit in the cloud or 0)."""
    handover = None
    if sent is not None:
        place, bits, size, exit = sent
        handover = Handover(place=place, shape=(size * 8 // bits,), bytes=size, bits=bits, exit=exit)
    return Node(
        id=number, level=0, parent=None, fork=fork or BandwidthFork(types=()), partition=0 if sent else 2, segments=2,
        actions=(), device_ms=device_ms, cloud_ms=cloud_ms, handover=handover,
        leaf=Leaf(chance=float(fork == ALWAYS), latency_ms=device_ms, accuracy=accuracy, accuracy_origin="measured"),
    )  # fmt: skip


def tree_of(*nodes):
    """Exit 1 stands at place 1, exit 2 is the network's end, place 2. The round trip is 10 ms."""
    return ModelTree(
        base="vgg11", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, classes=("a", "b"), places=(0, 1, 2),
        types=types(), rtt_ms=RTT_MS, device="pi4", cloud="gpu", trace="steps", nodes=nodes, exits=(1,),
    )  # fmt: skip


EXIT = leaf_node(0, 80.0, 10.0, fork=ExitFork(exit=1))
"""80 %, 10 ms at every bandwidth b: always the fastest."""
STAY = leaf_node(1, 90.0, 50.0, fork=ALWAYS)
CODED = leaf_node(2, 90.0, 5.0, fork=BitsFork(types=(), bits=4), sent=(1, 4, 125, 0), cloud_ms=0.5)
"""15.5 + 1 / b ms."""
FLOATS = leaf_node(3, 90.0, 5.0, sent=(1, 32, 1000, 0), cloud_ms=0.5)
"""15.5 + 8 / b ms, and no more accurate: CODED is better at every b."""
TO_EXIT = leaf_node(4, 80.0, 0.0, sent=(0, 8, 3072, 1), cloud_ms=0.3)
"""10.3 + 24.6 / b ms: EXIT gives the same sooner."""
IMAGE = leaf_node(5, 90.0, 0.0, sent=(0, 8, 3072, 0), cloud_ms=0.5)
"""10.5 + 24.6 / b ms: from 4.7 Mbit/s on sooner than CODED."""


def test_actions_that_others_beat_at_every_bandwidth_are_left_out():
    kept = worth_having(tree_of(EXIT, STAY, CODED, FLOATS, TO_EXIT, IMAGE))
    assert kept == [Chosen(1, 1, 32), Chosen(2, 2, 32), Chosen(2, 1, 4), Chosen(2, 0, 8)]


def test_what_stays_on_the_device_and_the_plain_image_are_kept_though_they_are_never_best():
    slow_exit = leaf_node(0, 60.0, 70.0, fork=ExitFork(exit=1))
    sooner = leaf_node(2, 95.0, 1.0, fork=BitsFork(types=(), bits=1), sent=(1, 1, 1, 0), cloud_ms=0.1)
    costly = leaf_node(3, 85.0, 1.0, sent=(1, 32, 4000, 0), cloud_ms=0.1)
    slow_image = leaf_node(4, 50.0, 400.0, sent=(0, 8, 30_720, 0), cloud_ms=90.0)
    kept = worth_having(tree_of(slow_exit, STAY, sooner, costly, slow_image))
    assert kept == [Chosen(1, 1, 32), Chosen(2, 2, 32), Chosen(2, 1, 1), Chosen(2, 0, 8)]


def test_an_action_that_one_of_the_two_rewards_asks_for_is_kept():
    """[Niu 2022, eq. 14] asks for 9 more points at 145 ms more from 80 Mbit/s on, where latency counts for nothing.

    [Wang 2020, eq. 7] never does: 9 points are worth 18, 145 ms 87.
    """
    accurate = leaf_node(2, 99.0, 150.0, fork=BitsFork(types=(), bits=4), sent=(1, 4, 125, 0), cloud_ms=0.5)
    kept = worth_having(tree_of(EXIT, STAY, accurate, FLOATS))
    assert kept == [Chosen(1, 1, 32), Chosen(2, 2, 32), Chosen(2, 1, 4), Chosen(2, 1, 32)]
