"""Numbers as they stand on a page. A dash where there is none."""

import math
from collections.abc import Callable

from modeltree.tree.render import ms_text
from nas.results.summary import MethodRow

NONE = "–"
"""Where there is no number."""

Show = Callable[[float | None], str]


def form(pattern: str | Callable[[float], str]) -> Show:
    """How to write a number, as a pattern of `format` or a function: for one that is none or not finite, a dash."""
    write = pattern.format if isinstance(pattern, str) else pattern
    return lambda value: NONE if value is None or not math.isfinite(value) else write(value)


plain, rank, points = form("{:.1f}"), form("{:.3f}"), form("{:.2f}")
percent, share, signed = form("{:.2f} %"), form("{:.1f} %"), form("{:+.1f} %")
whole, ms = form("{:.0f}"), form(ms_text)
count = form(lambda value: f"{value:,.0f}" if value > 0 else NONE)
"""0 means that nothing was counted."""
seconds = form(lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value else NONE)
"""Without the unit; 0 means that nothing was timed."""


def reward_kind(method: MethodRow) -> str:
    """Of a reward: what its accuracy and its latency have in common."""
    return method.accuracy_origin if method.accuracy_origin == method.latency_origin else "mixed"


def macs(macs: int) -> str:
    """Multiply-accumulates, in words."""
    for size, name in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if macs >= size:
            return f"{macs / size:.3g} {name} MACs"
    return f"{macs:,} MACs"
