"""What a field run is told, frozen."""

import math
from dataclasses import dataclass
from pathlib import Path

from modeltree.errors import ConfigError, unknown
from modeltree.link.traces import Trace
from modeltree.units import ms_from_s
from runtime.selection.branch_selection import MEASURED

LINKS = ("auto", "namespaces", "relay")
"""How the link is made; auto takes namespaces where there is root and `tc`."""

NO_SLOWDOWN, PROFILE = "none", "profile"
MOST_APART_MS = 250.0
"""From one inference's start to the next, unless said: a device that looks four times a second."""


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """What to play, over what link, how often.

    bundles : bundles, and folders of them. trace : with the round trip to play.
    link : one of `LINKS`. count : inferences of each method.
    every_ms : from one start to the next; None spreads them over the trace, `MOST_APART_MS` apart at most.
    offset_s : where in the trace it begins. images : folder of images; None takes test images of the digits, or noise.
    slowdown : `none`; `profile` for what the tree predicts of the device; a number makes every block take so many times
        what it takes here.
    target, weights, threads, mode, policy, deadline_ms : of the session on the device.
    interleaved : all methods at once, their inferences alternating, instead of one method after the other.
    check : run directory whose exported blocks every answer is compared with; None compares nothing.
    """

    bundles: tuple[Path, ...]
    trace: Trace
    link: str = "auto"
    count: int = 200
    every_ms: float | None = None
    offset_s: float = 0.0
    images: Path | None = None
    slowdown: str = NO_SLOWDOWN
    target: str | None = None
    weights: str = "f32"
    threads: int | None = None
    mode: str = "prefer-cloud"
    policy: str = MEASURED
    deadline_ms: float | None = None
    interleaved: bool = False
    check: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise unknown("link", self.link, LINKS)
        if self.interleaved and self.link != "relay":
            raise ConfigError(f"link is {self.link}: interleaved methods need a relay each, pass --link relay")
        if self.count < 1:
            raise ConfigError(f"count is {self.count}: it must be at least 1")
        if self.every_ms is not None and not 0 <= self.every_ms < math.inf:
            raise ConfigError(f"every_ms is {self.every_ms}: it must be finite and at least 0")
        if not 0 <= self.offset_s < math.inf:
            raise ConfigError(f"offset_s is {self.offset_s}: it must be finite and at least 0")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: it must be 0 or more")
        factor_of(self.slowdown)

    @property
    def apart_ms(self) -> float:
        """From one start to the next."""
        if self.every_ms is not None:
            return self.every_ms
        return min(MOST_APART_MS, ms_from_s(self.trace.end_s) / self.count)


def factor_of(slowdown: str) -> float | None:
    """The number that a slowdown is; None for one that is a word.

    Raises
    ------
    ConfigError : it is neither.
    """
    if slowdown in (NO_SLOWDOWN, PROFILE):
        return None
    try:
        factor = float(slowdown)
    except ValueError:
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise ConfigError(f"slowdown is {slowdown!r}: it must be {NO_SLOWDOWN}, {PROFILE} or a number from 1 on")
    return factor
