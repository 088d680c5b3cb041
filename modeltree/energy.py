"""What an inference takes from the device's battery [Niu 2022, eqs. 1-3], from the time it computes and sends."""

import math
from typing import TypeVar

import msgspec
import numpy as np

from modeltree.errors import ConfigError

Times = TypeVar("Times", float, np.ndarray)


class Energy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """e = E_compute + E_transmission, with the device's processor and radio.

    E_compute = sum k0 f^2 O X_p: O X_p, "computational intensity" times "data size to be processed", is read as CPU
    cycles. While the device computes, f of them pass in a second, so that they are f times the measured (or predicted)
    time, and E_compute is a power, k0 f^3, times that time; MACs do not come into it.
    E_transmission = P X_t / (B log2(1 + P gamma)): a rate where B is in Hz, but the paper's B is measured in MB/s
    everywhere else, and X_t / B is then the time on the wire already. The default gamma makes the logarithm 1, so that
    the energy is the radio's power times the measured time; another gamma is eq. 2 to the letter.

    Of the defaults only f is from the paper (sec. IV-A2, a Raspberry Pi 4 at its highest clock). The others were chosen
    by us and measured nowhere: k0 so that computing draws 3.4 W at that clock, P as the order of a WiFi radio that
    sends. Shipped device profiles have their own, and say where from (`DeviceProfile.energy`, its `origin`).

    k0_w_per_hz3 : k0, W / Hz^3. frequency_hz : f. power_w : P. gamma_per_w : gamma, signal to noise ratio per watt.

    Raises
    ------
    ConfigError : a number is not finite or not above 0.
    """

    k0_w_per_hz3: float = 1e-27
    frequency_hz: float = 1.5e9
    power_w: float = 1.0
    gamma_per_w: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")

    @property
    def compute_w(self) -> float:
        """k0 f^3: power while computing, W, which is mJ a millisecond [Niu 2022, eq. 1]."""
        return self.k0_w_per_hz3 * self.frequency_hz**3

    @property
    def transmit_w(self) -> float:
        """P / log2(1 + P gamma): power while something is on the wire, W, which is mJ a millisecond [eq. 2]."""
        return self.power_w / math.log2(1 + self.power_w * self.gamma_per_w)

    def mj(self, device_ms: Times, transfer_ms: Times) -> Times:
        """e in mJ [Niu 2022, eq. 3] of so much computing and so much time on the wire; numbers or arrays."""
        return self.compute_w * device_ms + self.transmit_w * transfer_ms
