"""When to send a few bytes for no other reason than to see how fast they go."""

import math
from dataclasses import dataclass

from modeltree.errors import ConfigError
from modeltree.units import bytes_per_ms
from runtime.bandwidth.estimator import Estimate


@dataclass(frozen=True, kw_only=True)
class ProbePolicy:
    """How much an idle device may spend on knowing its link.

    most_ms : a probe's bytes take at most so long at the last estimate; the round trip comes on top.
    least_bytes, most_bytes : limits of its size. On a link where `least_bytes` take over `most_ms`, they are sent
        all the same, for less would measure nothing but the round trip.
    first_bytes : size when nothing is known.
    young_s : no probe while the estimate is younger. old_s : a probe whenever it is older.
    confidence : in between, a probe once the estimate's confidence is under this.
    asleep_s : no more probes when nobody has asked for an inference for so long.
    """

    most_ms: float = 20.0
    least_bytes: int = 2000
    most_bytes: int = 65_536
    first_bytes: int = 4096
    young_s: float = 2.0
    old_s: float = 15.0
    confidence: float = 0.5
    asleep_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.least_bytes <= self.first_bytes <= self.most_bytes:
            sizes = (self.least_bytes, self.first_bytes, self.most_bytes)
            raise ConfigError(f"a probe's sizes are {sizes}: least, first and most must be above 0 and rise")
        if not (0 < self.most_ms < math.inf and 0 <= self.young_s <= self.old_s and self.asleep_s >= 0):
            raise ConfigError(
                f"most_ms is {self.most_ms}, young_s {self.young_s}, old_s {self.old_s}, asleep_s {self.asleep_s}: "
                "they must be above 0, young_s at most old_s"
            )


def probe_due(
    now_s: float,
    estimate: Estimate | None,
    policy: ProbePolicy,
    *,
    last_inference_s: float,
    last_probe_s: float = -math.inf,
    busy: bool = False,
) -> int:
    """Bytes to probe the link with now; 0: none is due.

    busy : a transfer or a probe is under way, and will tell for free.
    last_probe_s : when one was last sent: an unanswered probe is not repeated before `young_s` are over.
    """
    if busy or now_s - last_inference_s > policy.asleep_s or now_s - last_probe_s < policy.young_s:
        return 0
    if estimate is None:
        return policy.first_bytes
    if estimate.age_s < policy.young_s:
        return 0
    if estimate.age_s < policy.old_s and estimate.confidence >= policy.confidence:
        return 0
    fitting = int(policy.most_ms * bytes_per_ms(estimate.mbps))
    return min(policy.most_bytes, max(policy.least_bytes, fitting))
