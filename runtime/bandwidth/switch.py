"""Which fork to take: the bandwidth type of an estimate, with hysteresis so that noise around an edge does not flap."""

import math
from dataclasses import dataclass

from modeltree.errors import ConfigError
from modeltree.link.bandwidth import BandwidthTypes
from runtime.bandwidth.estimator import Estimate


@dataclass(frozen=True, kw_only=True)
class Hysteresis:
    """When a crossed edge counts.

    margin : |ln(mbps / edge)| that changes the type at once when the confidence is 0; it shrinks to 0 at confidence 1.
    patience : readings in a row beyond an edge, by however little, that change the type as well. 1: no hysteresis.
    """

    margin: float = 0.3
    patience: int = 3

    def __post_init__(self) -> None:
        if not (0 <= self.margin < math.inf and self.patience >= 1):
            raise ConfigError(
                f"margin is {self.margin} and patience {self.patience}: the margin must be finite and at least 0, the "
                "patience at least 1 reading"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """The type that is held, and what speaks against it so far.

    type : 0..K-1. beyond : readings in a row that matched a faster (> 0) or slower (< 0) one. readings : of the
    estimate last looked at, so that several forks between two readings count once.
    """

    type: int
    beyond: int = 0
    readings: int = 0


def matched(types: BandwidthTypes, estimate: Estimate | None, before: Match | None, hysteresis: Hysteresis) -> Match:
    """The type to take now, given the one held before. Pure; a few microseconds.

    With no estimate the type before is held, at the start the slowest: to stay local is never wrong for long. The first
    estimate decides alone. Between two types that are not neighbours it goes as far as edges are crossed by the
    margin, and one type at least when patience is at its end.
    """
    if estimate is None:
        return before or Match(type=0)
    kind = types.match(estimate.mbps)
    if before is None or before.readings == 0:
        return Match(type=kind, readings=estimate.readings)
    if kind == before.type:
        return Match(type=kind, readings=estimate.readings)
    way = 1 if kind > before.type else -1
    factor = math.exp(way * hysteresis.margin * (1 - estimate.confidence))
    clear = types.match(estimate.mbps / factor)
    if (clear - before.type) * way > 0:
        return Match(type=clear, readings=estimate.readings)
    beyond = before.beyond if before.beyond * way > 0 else 0
    beyond += way * (estimate.readings > before.readings or beyond == 0)
    if abs(beyond) >= hysteresis.patience:
        return Match(type=before.type + way, readings=estimate.readings)
    return Match(type=before.type, beyond=beyond, readings=estimate.readings)
