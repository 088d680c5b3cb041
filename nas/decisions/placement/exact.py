"""The best placement of a slot: by dynamic programming where blocks do not couple, by enumeration where they do.

Without coupling a block's delay depends on its host and the host in front alone, penalty included, so a walk through
(block, host) finds the optimum. With coupling it depends on every block's host; while there are at most `MOST`
placements, all of them are tried. Where there are more, `planners.search` is as good as we can plan, and `bound` says
what no placement beats: for coupling by blocks the best walk under any division of blocks among hosts, for coupling by
work the division of work that could be cut anywhere (C / sum_n F_n / tasks_n), transfers and penalties left out.
"""

import itertools

import numpy as np

from modeltree.errors import ConfigError
from nas.decisions.placement.delays import Delays
from nas.decisions.placement.world import Slots, World

MOST = 300_000


def exact(world: World, slots: Slots) -> np.ndarray:
    """(B, M): the placement with the highest reward of every slot.

    Raises
    ------
    ConfigError : blocks couple, and there are more than `MOST` placements.
    """
    delays = Delays(world)
    if world.coupling == "none":
        return _walk(world, slots, delays.alone_s(slots), delays.moved_s(slots))[0]
    if not enumerable(world):
        raise ConfigError(
            f"{world.hosts}**{world.blocks} placements are more than {MOST}: use planners.search and bound"
        )
    return _enumerated(world, slots, delays)


def enumerable(world: World) -> bool:
    """Whether `exact` can be had."""
    return world.coupling == "none" or world.hosts**world.blocks <= MOST


def bound(world: World, slots: Slots) -> np.ndarray:
    """(B,): rewards that no placement exceeds."""
    delays = Delays(world)
    moved, alone = delays.moved_s(slots), delays.alone_s(slots)
    if world.coupling == "none":
        return _walk(world, slots, alone, moved)[1]
    if world.coupling == "work":
        return -slots.cycles.sum(1) / float((delays.hz / delays.tasks).sum())
    best = np.full(len(slots), -np.inf)
    for load in _loads(world.blocks, world.hosts):
        allowed = np.where(np.array(load) > 0, np.maximum(load, 1), np.inf)
        best = np.maximum(best, _walk(world, slots, alone * allowed, moved)[1])
    return best


def _loads(blocks: int, hosts: int) -> list[tuple[int, ...]]:
    """All ways to divide blocks among hosts, by count."""
    bars = itertools.combinations(range(blocks + hosts - 1), hosts - 1)
    return [
        tuple(b - a - 1 for a, b in itertools.pairwise((-1, *cut, blocks + hosts - 1)))
        for cut in bars
    ]  # fmt: skip


def _walk(world: World, slots: Slots, compute: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best path through blocks and hosts, (B, M), and its reward, (B,)."""
    count, hosts = len(slots), world.hosts
    best = np.full((count, hosts), np.inf)
    best[:, 0] = 0.0
    origins = []
    for block in range(world.blocks):
        delay = compute[:, block, None, :] + moved[:, block]
        late = np.maximum(delay - slots.tolerance_s[:, block, None, None], 0.0)
        # 0 * inf: hosts that may not be used
        cost = best[:, :, None] + delay + (world.beta * late if world.beta else 0.0)
        origins.append(cost.argmin(1))
        best = cost.min(1)
    placement = np.zeros((count, world.blocks), int)
    here = best.argmin(1)
    rows = np.arange(count)
    for block in range(world.blocks - 1, -1, -1):
        placement[:, block] = here
        here = origins[block][rows, here]
    return placement, -best.min(1)


def _enumerated(world: World, slots: Slots, delays: Delays) -> np.ndarray:
    every = np.indices((world.hosts,) * world.blocks).reshape(world.blocks, -1).T
    chosen = np.empty((len(slots), world.blocks), int)
    for row in range(len(slots)):
        one = Slots(
            cycles=slots.cycles[row : row + 1], tolerance_s=slots.tolerance_s[row : row + 1],
            rate=slots.rate[row : row + 1],
        )  # fmt: skip
        many = Slots(
            cycles=one.cycles, tolerance_s=one.tolerance_s, rate=np.broadcast_to(one.rate, (len(every), world.servers))
        )
        chosen[row] = every[delays.reward(many, every).argmax()]
    return chosen
