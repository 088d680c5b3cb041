"""What is known of the link at a fork."""

import math
from typing import NamedTuple


class LinkState(NamedTuple):
    """What is known at a fork.

    type, mbps : the bandwidth type that the switch holds, and the estimate behind it, NaN while nothing is known.
    asks : whether the cloud may be asked.
    """

    type: int
    mbps: float
    asks: bool


UNKNOWN_LINK = LinkState(type=0, mbps=math.nan, asks=False)
