"""What things take in this session, as met of late: what `reweighing` weighs with.

Of the server's time old news is forgotten: half of what it was slower than predicted, every `FORGETS_S` in which it is
not asked, so that a server that was slow once is tried again.
"""

import math
import threading

from modeltree.tree import ModelTree, Node
from runtime.bandwidth import Estimate
from runtime.execution.device import Device
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Cloud, Link
from runtime.result import Result
from runtime.selection.link_state import LinkState
from runtime.selection.reweighing import DEVIATIONS, AsPredicted, LinkNow

SHARE = 0.2
"""Weight of the newest in running means."""

FORGETS_S = 30.0


def link_now(estimate: Estimate | None, rtt_ms: float) -> LinkNow | None:
    """From an estimate of the bandwidth, whose deciles say how it errs."""
    if estimate is None:
        return None
    spread = math.log(estimate.high_mbps / estimate.low_mbps) / (DEVIATIONS[-1] - DEVIATIONS[0])
    return LinkNow(estimate.mbps, spread, rtt_ms)


class MetTimes:
    """Fed by a session with its results."""

    def __init__(self, tree: ModelTree, device: Device, link: Link, cloud: Cloud | None) -> None:
        self._tree, self._device, self._link, self._cloud = tree, device, link, cloud
        self._predicted = AsPredicted(tree)
        self._encode_ms: dict[int, float] = {}
        self._bytes: dict[int, float] = {}
        self._lock = threading.Lock()

    def note(self, result: Result) -> None:
        """A result of this session's."""
        if result.answered_by != "cloud" or not result.nodes:
            return
        with self._lock:
            end = result.nodes[-1]
            for means, new in ((self._encode_ms, result.parts.encode), (self._bytes, float(result.sent_bytes))):
                before = means.get(end, new)
                means[end] = before + SHARE * (new - before)

    def block_ms(self, block: str, predicted_ms: float) -> float:
        return 1e3 * self._device.expected_s(block) or predicted_ms

    def encode_ms(self, node: Node) -> float:
        with self._lock:
            return self._encode_ms.get(node.id, self._predicted.encode_ms(node))

    def server_ms(self, node: Node) -> float:
        assert node.handover is not None
        known = None if self._cloud is None else self._cloud.served(node.handover.block)
        if known is None:
            return node.cloud_ms
        above_ms = 1e3 * known.seconds - node.cloud_ms
        return node.cloud_ms + above_ms * (0.5 ** (known.age_s / FORGETS_S) if above_ms > 0 else 1.0)

    def sent_bytes(self, node: Node) -> float:
        with self._lock:
            return self._bytes.get(node.id, self._predicted.sent_bytes(node))

    def link(self, seen: LinkState) -> LinkNow | None:
        if not isinstance(self._link, LinkWatch):
            return self._predicted.link(seen)
        return link_now(self._link.estimate(), self._link.usual_rtt_ms + self._tree.extra_ms)
