"""Where a tree shall run, and what crossing the link takes there."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import Trace
from modeltree.link.transfer_time import TransferModel
from modeltree.profiles import DeviceProfile
from modeltree.reward import Reward
from runtime.selection.reweighing import LATE

PATIENCE_MS = 2000.0
"""A device waits so long for an answer, then it has gone on alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetLink:
    """A link, and the moments (s) at which a device takes it to be of each type, right or wrong: (types,) arrays."""

    trace: Trace
    starts_s: tuple[np.ndarray, ...]

    def transfer_ms(self, kind: int, size_bytes: int, rest_ms: float) -> float | None:
        """What so many bytes take on average when the type is taken to be `kind`, the round trip included.

        An answer that is overdue costs what a session then does: waiting until then, and the rest here. None where it
        never is of that type.
        """
        starts_s, trace = self.starts_s[kind].tolist(), self.trace
        times = np.array([trace.rtt_at(start_s) + trace.transfer_ms(size_bytes, start_s) for start_s in starts_s])
        if not times.size:
            return None
        return float(np.minimum(times, min(LATE * float(np.median(times)), PATIENCE_MS) + rest_ms).mean())


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Where a tree shall run: a device, a cloud, and the link between them.

    met : what hand-overs meet at each type as the device will know it; None where it will know the type, and each type
    is as its representative.
    extra_ms, message_bytes : what a hand-over takes, in time and bytes, beside the round trip and what crosses, as met.
    """

    device: DeviceProfile
    cloud: DeviceProfile
    types: BandwidthTypes
    transfer: TransferModel
    reward: Reward
    met: MetLink | None = None
    extra_ms: float = 0.0
    message_bytes: int = 0

    def transfer_ms(self, size_bytes: int, rest_ms: float = 0.0) -> np.ndarray:
        """What a hand-over of so many bytes takes at each bandwidth type: (types,), the round trip included.

        rest_ms : what the device takes alone from there, where the answer is overdue.
        """
        sent_bytes, kinds = size_bytes + self.message_bytes, range(self.types.count)
        return self.extra_ms + np.array([self._transfer_ms(kind, sent_bytes, rest_ms) for kind in kinds])

    def _transfer_ms(self, kind: int, size_bytes: int, rest_ms: float) -> float:
        met_ms = None if self.met is None else self.met.transfer_ms(kind, size_bytes, rest_ms)
        if met_ms is not None:
            return met_ms
        transfer = self.transfer
        if self.types.rtt_ms:
            transfer = msgspec.structs.replace(transfer, rtt_ms=self.types.rtt_ms[kind])
        return transfer.ms(size_bytes, self.types.representative_mbps[kind])

    def alone(self, kind: int) -> "Scenario":
        """The same where the link is of one type alone."""
        mbps = self.types.representative_mbps[kind]
        rtt_ms = self.types.rtt_ms[kind : kind + 1]
        constant = BandwidthTypes(
            representative_mbps=(mbps,), edges_mbps=(), transition=((1.0,),), initial=(1.0,), rtt_ms=rtt_ms
        )
        met = None if self.met is None else replace(self.met, starts_s=(self.met.starts_s[kind],))
        return replace(self, types=constant, met=met)

    @property
    def no_transfer_ms(self) -> np.ndarray:
        """(types,) zeros: nothing crosses."""
        return np.zeros(self.types.count)
