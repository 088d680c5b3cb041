"""How long a transfer takes at a given bandwidth [Wang 2020, eq. 6]."""

import math

import msgspec

from modeltree.errors import ConfigError
from modeltree.units import bytes_per_ms, ms_from_ns


class TransferModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """T_t = f(S|W) + S/W [Wang 2020, eq. 6], f linear in the size S for a given bandwidth W.

    rtt_ms : intercept of f, the round trip: the request goes out and the (small) answer comes back on it.
    per_byte_ns : slope of f, for what grows with the size but not with the bandwidth (copies, encoding of frames).
    """

    rtt_ms: float
    per_byte_ns: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rtt_ms", "per_byte_ns"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}: it must be finite and at least 0")

    def ms(self, size_bytes: float, bandwidth_mbps: float) -> float:
        """Time to hand over `size_bytes` and have the answer; 0 bytes still cost the round trip."""
        if not (bandwidth_mbps > 0 and 0 <= size_bytes < math.inf):
            raise ConfigError(
                f"transfer of {size_bytes} bytes at {bandwidth_mbps} Mbit/s: the size must be finite and at least 0, "
                "the bandwidth above 0 (floor it with bandwidth.MIN_MBPS)"
            )
        return self.rtt_ms + ms_from_ns(self.per_byte_ns) * size_bytes + size_bytes / bytes_per_ms(bandwidth_mbps)
