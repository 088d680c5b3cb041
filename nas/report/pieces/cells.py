"""Numbers as they stand on the page, and the tags that say of what kind they are. A dash where there is none."""

import math

from modeltree.render import ms_text
from nas.report.pieces.svg import escape
from nas.results.summary import Method

KINDS = {
    "measured": "run on test images that the search never saw",
    "predicted": "from the device and cloud profiles, or the search's accuracy predictor",
    "mixed": "of a measured accuracy and a predicted latency",
    "simulated": "predicted compute times played along the link's trace",
}


def kind(name: str) -> str:
    """The tag that says where a number comes from."""
    known = name if name in KINDS else ""
    return f'<span class="kind {known}">{escape(name)}</span>' if name else ""


def reward_kind(method: Method) -> str:
    """Of a reward: what its accuracy and its latency have in common."""
    return method.accuracy_origin if method.accuracy_origin == method.latency_origin else "mixed"


def number(value: float | None) -> float:
    """Not a number where there is none."""
    return math.nan if value is None else value


def plain(value: float, digits: int = 1) -> str:
    """A number of some digits."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def percent(value: float) -> str:
    """Percent."""
    return f"{value:.2f} %" if math.isfinite(value) else "–"


def ms(value: float) -> str:
    """A time in ms."""
    return ms_text(value) if math.isfinite(value) else "–"


def count(value: float) -> str:
    """A whole number; 0 means that nothing was counted."""
    return f"{value:,.0f}" if math.isfinite(value) and value > 0 else "–"


def seconds(value: float) -> str:
    """A time in s, without the unit; 0 means that nothing was timed."""
    if not math.isfinite(value) or value == 0:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def macs(macs: int) -> str:
    """Multiply-accumulates, in words."""
    for size, name in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if macs >= size:
            return f"{macs / size:.3g} {name} MACs"
    return f"{macs:,} MACs"
