"""Where a network is sliced into blocks."""

from collections.abc import Sequence

import numpy as np

from modeltree.errors import ConfigError
from modeltree.network import NetworkSpec


def slice_blocks(spec: NetworkSpec, blocks: int, exits: Sequence[int] = ()) -> tuple[int, ...]:
    """Places at which a network is sliced into blocks whose largest cost (in MACs) is least; (blocks + 1,).

    exits : places of early exits. As many of them as there are cuts, the earliest first, are cuts: the tree forks
        there, so that samples may leave by confidence.

    Raises
    ------
    ConfigError : there are fewer segments than blocks.
    """
    segments = len(spec.segments)
    if not 1 <= blocks <= segments:
        raise ConfigError(f"N is {blocks} but the network can be cut into 1 to {segments} blocks: choose one of those")
    through = sorted(exits)[: blocks - 1]
    cost = np.array([sum(layer.macs + layer.elements for layer in spec.layers(s, s + 1)) for s in range(segments)])
    total = np.concatenate([[0.0], np.cumsum(cost, dtype=float)])
    best = np.full((blocks + 1, segments + 1), np.inf)
    back = np.zeros((blocks + 1, segments + 1), dtype=int)
    best[0, 0] = 0.0
    for n in range(1, blocks + 1):
        for stop in range(n, segments - (blocks - n) + 1):
            for start in range(n - 1, stop):
                if any(start < place < stop for place in through):
                    continue
                worst = max(best[n - 1, start], total[stop] - total[start])
                if worst < best[n, stop]:
                    best[n, stop], back[n, stop] = worst, start
    cuts = [segments]
    for n in range(blocks, 0, -1):
        cuts.append(int(back[n, cuts[-1]]))
    return tuple(reversed(cuts))
