"""What one inference answered and how it came about."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(kw_only=True)
class Parts:
    """Milliseconds of one inference by what they went into; `wait` is what no other part explains."""

    device: float = 0.0
    encode: float = 0.0
    transfer: float = 0.0
    cloud: float = 0.0
    wait: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """An answer and how it came about.

    output : (classes,) logits. nodes : ids of the tree's nodes, in order. answered_by : `device` or `cloud`.
    why : one sentence. types, mbps : bandwidth type and estimate at every fork. met : whether the deadline was kept.
    blocks_ms : (block, ms) of every block that ran here for this answer, in order.
    """

    output: np.ndarray
    nodes: tuple[int, ...]
    answered_by: str
    why: str
    types: tuple[int, ...]
    mbps: tuple[float, ...]
    parts: Parts = field(default_factory=Parts)
    met: bool = True
    blocks_ms: tuple[tuple[str, float], ...] = ()
