"""What a field run met of what its trees had predicted, part by part."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from modeltree.link.traces import Trace
from modeltree.met import NOTHING_MS
from modeltree.tree import ModelTree, Node
from modeltree.tree.emulate import link_ms
from modeltree.units import mbps, s_from_ms
from nas.field.record import MethodRun, Shot
from nas.field.replay import Measured
from runtime.meter import Meter

PREDICTED = ("device", "encode", "transfer", "server")


@dataclass(frozen=True, kw_only=True)
class Miss:
    """How far off a part was. percent : median of |met - predicted| over met, of `count` inferences."""

    part: str
    predicted_ms: float
    met_ms: float
    percent: float
    count: int


def noted(meter: Meter, tree: ModelTree, measured: Measured, trace: Trace) -> Measured:
    """Tell the meter what one turn met; its shots then say what the tree had predicted of them.

    The round trip is the trace's, for it is no prediction of the tree's.
    """
    tree = msgspec.structs.replace(tree, rtt_ms=trace.rtt_ms)
    meter.knows(tree)
    meter.ran((block, ms) for block, times in measured.blocks_ms.items() for ms in times)
    return Measured(
        shots=tuple(_noted(meter, tree, shot, trace) for shot in measured.shots),
        blocks_ms=measured.blocks_ms, outputs=measured.outputs,
    )  # fmt: skip


def misses(runs: Sequence[MethodRun]) -> list[Miss]:
    """Of every part that was met, over all methods."""
    shots = [shot for run in runs for shot in run.shots if shot.predicted_ms is not None]
    found = [_miss(part, _pairs(shots, i)) for i, part in enumerate(PREDICTED)]
    return [one for one in found if one.count]


def misses_text(runs: Sequence[MethodRun]) -> list[str]:
    """For people, a line a part."""
    found = misses(runs)
    if not found:
        return []
    columns = f"{'part':>9} {'predicted ms':>13} {'met ms':>9} {'error %':>8} {'times':>6}"
    return [f"Predicted against met, medians: {columns}"] + [
        f"{'':32}{one.part:>9} {one.predicted_ms:13.2f} {one.met_ms:9.2f} {one.percent:8.1f} {one.count:6}"
        for one in found
    ]


def _noted(meter: Meter, tree: ModelTree, shot: Shot, trace: Trace) -> Shot:
    end = tree.nodes[shot.nodes[-1]] if shot.nodes else None
    if end is None or shot.answered_by != ("device" if end.handover is None else "cloud"):
        return shot
    sends_s = shot.start_s + s_from_ms(shot.device_ms + shot.encode_ms)
    transfer_ms = 0.0 if end.handover is None else link_ms(tree, trace, end.handover.bytes, sends_s)
    if end.handover is not None and shot.sent_bytes:
        bytes_ms = trace.transfer_ms(shot.sent_bytes, sends_s)
        meter.crossed(
            tree, end.id, encode_ms=shot.encode_ms, transfer_ms=shot.transfer_ms, server_ms=shot.cloud_ms,
            sent_bytes=shot.sent_bytes, carried_ms=trace.rtt_at(sends_s) + bytes_ms, predicted_ms=transfer_ms,
        )  # fmt: skip
        known, link_mbps = shot.mbps[-1] if shot.mbps else None, mbps(shot.sent_bytes, max(bytes_ms, 1e-6))
        right = bool(shot.types) and tree.types.match(link_mbps) == shot.types[-1]
        meter.estimated(math.nan if known is None else known, link_mbps, right=right)
    coding_ms = 0.0 if end.handover is None else end.handover.encode_ms
    device_ms = sum(node.device_ms for node in _walked(tree, end)) - coding_ms
    return msgspec.structs.replace(shot, predicted_ms=(device_ms, coding_ms, transfer_ms, end.cloud_ms))


def _walked(tree: ModelTree, end: Node) -> Iterable[Node]:
    """The nodes of a path, and the heads that were asked on its way."""
    path = tree.path(end.id)
    heads = (tree.confident(node.id) for node in path[:-1])
    return (*path, *(head for head in heads if head is not None and head.id != end.id))


def _pairs(shots: Sequence[Shot], part: int) -> list[tuple[float, float]]:
    """(predicted, met) where a part took anything."""
    pairs = []
    for shot in shots:
        assert shot.predicted_ms is not None
        met = (shot.device_ms, shot.encode_ms, shot.transfer_ms, shot.cloud_ms)[part]
        if max(met, shot.predicted_ms[part]) >= NOTHING_MS:
            pairs.append((shot.predicted_ms[part], met))
    return pairs


def _miss(part: str, pairs: Sequence[tuple[float, float]]) -> Miss:
    if not pairs:
        return Miss(part=part, predicted_ms=0.0, met_ms=0.0, percent=0.0, count=0)
    predicted, met = zip(*pairs, strict=True)
    errors = [abs(two - one) / two if two > 0 else math.inf for one, two in pairs]
    return Miss(
        part=part, predicted_ms=statistics.median(predicted), met_ms=statistics.median(met),
        percent=100 * statistics.median(errors), count=len(pairs),
    )  # fmt: skip
