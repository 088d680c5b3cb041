"""When to send a few bytes for no other reason than to see how fast they go."""

import math
from dataclasses import dataclass

from modeltree.errors import ConfigError
from modeltree.units import bytes_per_ms
from runtime.bandwidth.estimator import Estimate
from runtime.bandwidth.reading import LATE


@dataclass(frozen=True, kw_only=True)
class ProbePolicy:
    """How much an idle device may spend on knowing its link.

    most_ms : a probe's bytes take at most so long at the last estimate; the round trip comes on top.
    least_bytes, most_bytes : limits of its size. On a link where `least_bytes` take over `most_ms`, they are sent
        all the same, for less would measure nothing but the round trip.
    first_bytes : size when nothing is known.
    young_s : no probe while the estimate is younger. old_s : a probe whenever it is older.
    confidence : in between, a probe once the estimate's confidence is under this.
    longer, longest_ms, rounds : a message that was too short to tell the link from the machine is followed by one that
        is at least so many times as long, takes at most so long, and comes after fewer than so many.
    asleep_s : no more probes when nobody has asked for an inference for so long.
    """

    most_ms: float = 20.0
    least_bytes: int = 2000
    most_bytes: int = 65_536
    first_bytes: int = 4096
    young_s: float = 1.0
    old_s: float = 15.0
    confidence: float = 0.5
    asleep_s: float = 60.0
    longer: float = 1.5
    longest_ms: float = 100.0
    rounds: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.least_bytes <= self.first_bytes <= self.most_bytes:
            sizes = (self.least_bytes, self.first_bytes, self.most_bytes)
            raise ConfigError(f"a probe's sizes are {sizes}: least, first and most must be above 0 and rise")
        if not (0 < self.most_ms < math.inf and 0 <= self.young_s <= self.old_s and self.asleep_s >= 0):
            raise ConfigError(
                f"most_ms is {self.most_ms}, young_s {self.young_s}, old_s {self.old_s}, asleep_s {self.asleep_s}: "
                "they must be above 0, young_s at most old_s"
            )
        if not (self.longer > 1 and self.longest_ms >= self.most_ms and self.rounds >= 1):
            raise ConfigError(
                f"longer is {self.longer}, longest_ms {self.longest_ms}, rounds {self.rounds}: they must be above 1, "
                f"at least most_ms, {self.most_ms}, and at least 1"
            )

    def fitting(self, mbps: float, ms: float | None = None) -> int:
        """Bytes that take so long on a link, `most_ms` unless said, within the limits of a probe's size."""
        wanted = int((self.most_ms if ms is None else ms) * bytes_per_ms(mbps))
        return min(self.most_bytes, max(self.least_bytes, wanted))


def probe_due(
    now_s: float,
    estimate: Estimate | None,
    policy: ProbePolicy,
    *,
    last_inference_s: float,
    last_probe_s: float = -math.inf,
    busy: bool = False,
    relied: bool = False,
) -> int:
    """Bytes to probe the link with now; 0: none is due.

    busy : a transfer or a probe is under way, and will tell for free.
    relied : hand-overs went out since the estimate last had a reading, and said nothing of the bandwidth, as small ones
        on a machine that wavers do not: so a small message asks whether the link is still what they take it for.
    last_probe_s : when one was last sent: an unanswered probe is not repeated before `young_s` are over.
    """
    if busy or now_s - last_inference_s > policy.asleep_s or now_s - last_probe_s < policy.young_s:
        return 0
    if estimate is None:
        return policy.first_bytes
    if estimate.age_s < policy.young_s:
        return 0
    if estimate.age_s < policy.old_s and estimate.confidence >= policy.confidence:
        return policy.least_bytes if relied else 0
    return policy.fitting(estimate.mbps)


def longer_probe(size_bytes: int, mbps: float, jitter_ms: float, policy: ProbePolicy) -> int:
    """Bytes of the message that should follow one of a probe; 0: none, it was long enough.

    What a message takes is the link's time and the machine's: threads that wait for a processor. A short one on a busy
    machine makes any link look slow. So a probe grows, as a connection does that starts slowly, until it takes
    `LATE` times the jitter, or `most_ms` if that is longer, at the bandwidth that it measures itself; on a link that
    really is slow it does at once.

    mbps : that the message measured. jitter_ms : of small messages.
    """
    fitting = policy.fitting(mbps, min(policy.longest_ms, max(policy.most_ms, LATE * jitter_ms)))
    return fitting if fitting >= policy.longer * size_bytes else 0
