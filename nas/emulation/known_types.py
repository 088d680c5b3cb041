"""At which moments of a link a device takes it to be of each type, and so what a hand-over then really meets.

A tree that is valued as if the type were known trades sure gains for gambles: with two types the runtime knows it about
seven times in ten. Here the runtime's own estimator and switch say which type they would take, all along the trace.
"""

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import Trace
from modeltree.tree import BandwidthFork, Handover, Leaf, ModelTree, Node
from modeltree.tree.emulate import spread_starts
from nas.emulation.estimated import emulate_estimated
from nas.treesearch.options.scenario import MetLink

STARTS = 400
_SENT_BYTES = 6000
"""Of what crosses at all types but the slowest while we listen: about a JPEG."""


def met_link(trace: Trace, types: BandwidthTypes, *, starts: int = STARTS) -> MetLink:
    """What a device that looks so often along a trace meets where it takes the link to be of each type."""
    starts_s = spread_starts(trace, starts)
    taken = emulate_estimated(_listening(trace, types), trace, starts_s=starts_s).leaf
    return MetLink(trace=trace, starts_s=tuple(starts_s[taken == kind] for kind in range(types.count)))


def _listening(trace: Trace, types: BandwidthTypes) -> ModelTree:
    """A tree that shows at its leaves which type was taken: it hands over, but for the slowest."""
    nodes = tuple(
        Node(
            id=kind, level=0, parent=None, fork=BandwidthFork(types=(kind,)), partition=0, segments=1, actions=(),
            device_ms=0.0,
            handover=Handover(place=0, shape=(3, 1, 1), bytes=_SENT_BYTES, bits=8, device_ms=1.0) if kind else None,
            leaf=Leaf(chance=types.initial[kind], latency_ms=0.0, accuracy=0.0, accuracy_origin="predicted"),
        )
        for kind in range(types.count)
    )  # fmt: skip
    return ModelTree(
        base="", input_shape=(3, 1, 1), mean=(0.0,) * 3, std=(1.0,) * 3, classes=(), places=(0, 1), types=types,
        rtt_ms=trace.rtt_ms, device="", cloud="", trace=trace.name, nodes=nodes,
    )  # fmt: skip
