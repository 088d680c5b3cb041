"""Where a tree shall run, and what crossing the link takes there."""

from dataclasses import dataclass

import numpy as np

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.latency import TransferModel
from modeltree.profiles import DeviceProfile
from modeltree.reward import Reward


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Where a tree shall run: a device, a cloud, and the link between them."""

    device: DeviceProfile
    cloud: DeviceProfile
    types: BandwidthTypes
    transfer: TransferModel
    reward: Reward

    def transfer_ms(self, size_bytes: int) -> np.ndarray:
        """What a hand-over of so many bytes takes at each bandwidth type: (types,), the round trip included."""
        return np.array([self.transfer.ms(size_bytes, mbps) for mbps in self.types.representative_mbps])

    @property
    def no_transfer_ms(self) -> np.ndarray:
        """(types,) zeros: nothing crosses."""
        return np.zeros(self.types.count)
