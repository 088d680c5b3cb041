"""Numbers as they stand on a page. A dash where there is none."""

import math

from modeltree.render import ms_text
from nas.results.summary import MethodRow

NONE = "–"
"""Where there is no number."""


def reward_kind(method: MethodRow) -> str:
    """Of a reward: what its accuracy and its latency have in common."""
    return method.accuracy_origin if method.accuracy_origin == method.latency_origin else "mixed"


def number(value: float | None) -> float:
    """Not a number where there is none."""
    return math.nan if value is None else value


def plain(value: float, digits: int = 1) -> str:
    """A number of some digits."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def percent(value: float) -> str:
    """Percent."""
    return f"{value:.2f} %" if math.isfinite(value) else NONE


def ms(value: float) -> str:
    """A time in ms."""
    return ms_text(value) if math.isfinite(value) else NONE


def count(value: float) -> str:
    """A whole number; 0 means that nothing was counted."""
    return f"{value:,.0f}" if math.isfinite(value) and value > 0 else NONE


def seconds(value: float) -> str:
    """A time in s, without the unit; 0 means that nothing was timed."""
    if not math.isfinite(value) or value == 0:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def macs(macs: int) -> str:
    """Multiply-accumulates, in words."""
    for size, name in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if macs >= size:
            return f"{macs / size:.3g} {name} MACs"
    return f"{macs:,} MACs"


def share(percent: float) -> str:
    """Percent, one digit."""
    return f"{percent:.1f} %" if math.isfinite(percent) else NONE


def signed(percent: float | None) -> str:
    """Percent with its sign."""
    return NONE if percent is None or not math.isfinite(percent) else f"{percent:+.1f} %"
