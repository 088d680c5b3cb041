"""How long a transfer takes at a given bandwidth [Wang 2020, eq. 6]."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from modeltree.errors import ConfigError, DataError
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


def fit_transfer(
    sizes_bytes: Sequence[float], bandwidths_mbps: Sequence[float], times_ms: Sequence[float]
) -> TransferModel:
    """Fit f(S|W) of eq. 6 to measured transfers: least squares in ms with both coefficients at least 0.

    All three are (measurements,).

    Raises
    ------
    DataError : lengths differ, NaN or infinity, a bandwidth of 0, or fewer than two different sizes.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (sizes_bytes, bandwidths_mbps, times_ms)]
    sizes, bandwidths, times = columns
    if sizes.ndim != 1 or not sizes.shape == bandwidths.shape == times.shape:
        raise DataError(f"transfers have shapes {[c.shape for c in columns]}: give a size, bandwidth and time for each")
    if not (np.isfinite(columns).all() and (sizes >= 0).all() and (bandwidths > 0).all() and (times >= 0).all()):
        raise DataError("a transfer has a NaN, infinite or negative number, or no bandwidth: drop that measurement")
    if len(np.unique(sizes)) < 2:
        raise DataError(f"{len(sizes)} transfers of one size cannot part f's slope from its intercept: use two sizes")
    left = times - sizes / (bytes_per_ms(1.0) * bandwidths)
    largest = float(sizes.max())
    features = np.stack([np.ones_like(sizes), sizes / largest], axis=1)
    # Two coefficients: the non-negative optimum is the best feasible one among the four sets of free coefficients.
    candidates = [np.linalg.lstsq(features * mask, left, rcond=None)[0] * mask for mask in _MASKS]
    feasible = [c for c in candidates if (c >= 0).all()]
    best = min(feasible, key=lambda c: float(np.sum((features @ c - left) ** 2)))
    return TransferModel(rtt_ms=float(best[0]), per_byte_ns=float(best[1]) / largest / ms_from_ns(1.0))


_MASKS = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
