"""What a session meets, inference by inference, kept in bounded room (`modeltree.met`)."""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from modeltree.image_codes import image_code
from modeltree.met import Crossed, Encoded, Estimated, Met, Timed, code_of, predicted_ms
from modeltree.tree import ModelTree

KEPT = 200
"""Of each thing the latest so many times count, so that what has changed is forgotten."""


class Meter:
    """Counts what the trees of one search meet; several may share one. Lock it to share it between threads."""

    def __init__(self, tree: ModelTree) -> None:
        self._device, self._cloud = tree.device, tree.cloud
        self._predicted: dict[str, float] = {}
        self._blocks: dict[str, deque[float]] = {}
        self._rests: dict[str, tuple[float, deque[float]]] = {}
        self._encodings: dict[tuple[str, int], tuple[float, deque[float]]] = {}
        self._crossed: deque[tuple[float, float, float, float]] = deque(maxlen=KEPT)
        self._estimates: deque[tuple[float, bool]] = deque(maxlen=KEPT)  # |ln|, whether the type was right
        self.knows(tree)

    def knows(self, tree: ModelTree) -> None:
        """A further tree: what it predicts of its blocks."""
        self._predicted |= predicted_ms(tree)

    def ran(self, blocks_ms: Iterable[tuple[str, float]]) -> None:
        """Blocks that ran here."""
        for block, ms in blocks_ms:
            self._blocks.setdefault(block, deque(maxlen=KEPT)).append(ms)

    def crossed(
        self, tree: ModelTree, end: int, *, encode_ms: float, transfer_ms: float, server_ms: float, sent_bytes: int,
        carried_ms: float, predicted_ms: float,
    ) -> None:  # fmt: skip
        """A hand-over that was answered.

        end : the node that ended the path. carried_ms : round trip and bytes, as the link was. predicted_ms : likewise,
        of the bytes that the tree says cross, and with what it knows that hand-overs take beside.
        """
        node = tree.nodes[end]
        handover = node.handover
        assert handover is not None
        code, units = code_of(handover), math.prod(handover.shape)
        if handover.code:
            units = image_code(handover.code).pixels(*handover.shape[1:])
        rests = self._rests.setdefault(f"{handover.block} {code}", (node.cloud_ms, deque(maxlen=KEPT)))
        rests[1].append(server_ms)
        coding = self._encodings.setdefault((code, units), (handover.encode_ms, deque(maxlen=KEPT)))
        coding[1].append(encode_ms)
        above = sent_bytes - (handover.bytes - tree.message_bytes)
        self._crossed.append((predicted_ms, carried_ms, transfer_ms, above))

    def estimated(self, mbps: float, met_mbps: float, *, right: bool) -> None:
        """A bandwidth that was taken for so much and was another; NaN, where nothing was known, says nothing."""
        if mbps > 0 and met_mbps > 0:
            self._estimates.append((abs(math.log(met_mbps / mbps)), right))

    def met(self, kind: Literal["field", "session"], origin: str, *, rtt_ms: float) -> Met:
        """All of it up to now. rtt_ms : the link's usual round trip."""
        return Met(
            kind=kind, device=self._device, cloud=self._cloud, origin=origin,
            blocks={
                name: _timed(self._predicted.get(name, 0.0), times) for name, times in sorted(self._blocks.items())
            },
            rests={name: _timed(*timed) for name, timed in sorted(self._rests.items())},
            encodings=tuple(
                Encoded(code=code, units=units, predicted_ms=known, ms=statistics.median(times), count=len(times))
                for (code, units), (known, times) in sorted(self._encodings.items())
            ),
            crossed=self._crossings(rtt_ms), estimates=self._estimations(),
        )  # fmt: skip

    def _crossings(self, rtt_ms: float) -> Crossed | None:
        if not self._crossed:
            return None
        foreseen, carried, took, above = zip(*self._crossed, strict=True)
        extra = [b - a for a, b in zip(carried, took, strict=True)]
        usual = statistics.median(extra)
        return Crossed(
            predicted_ms=statistics.median(foreseen), ms=statistics.median(took), rtt_ms=rtt_ms,
            extra_ms=usual, message_bytes=statistics.median(above), count=len(took),
            error=_error(foreseen, took), mended_error=_error([a + max(0.0, usual) for a in carried], took),
        )  # fmt: skip

    def _estimations(self) -> Estimated | None:
        if not self._estimates:
            return None
        errors, right = zip(*self._estimates, strict=True)
        return Estimated(error=statistics.median(errors), right=sum(right) / len(right), count=len(errors))


def _timed(known_ms: float, times: Sequence[float]) -> Timed:
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else (times[0],) * 3
    return Timed(predicted_ms=known_ms, ms=middle, count=len(times), spread=(high - low) / 2)


def _error(said_ms: Sequence[float], took_ms: Sequence[float]) -> float | None:
    """Median of |said - took| over took; None where nothing took time."""
    errors = [abs(said / took - 1) for said, took in zip(said_ms, took_ms, strict=True) if took > 0]
    return statistics.median(errors) if errors else None
