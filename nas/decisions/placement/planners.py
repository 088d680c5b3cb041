"""Placements without learning: the paper's greedy, APDI and RPDI, and a search that is as good as we can plan."""

from collections.abc import Callable

import numpy as np

from nas.decisions.placement.delays import Delays
from nas.decisions.placement.world import Slots, World

Planner = Callable[[World, Slots, np.random.Generator], np.ndarray]
"""From slots to (B, M) hosts."""


def greedy(world: World, slots: Slots, rng: np.random.Generator) -> np.ndarray:
    """Each block in its turn to the server with the least load: the time that what it was given so far takes."""
    delays = Delays(world)
    time = slots.cycles[:, :, None] / delays.hz[1:]
    load = np.zeros((len(slots), world.servers))
    placement = np.empty((len(slots), world.blocks), int)
    rows = np.arange(len(slots))
    for block in range(world.blocks):
        chosen = (load + time[:, block]).argmin(1)
        load[rows, chosen] += time[rows, block, chosen]
        placement[:, block] = chosen + 1
    return placement


def apdi(world: World, slots: Slots, rng: np.random.Generator) -> np.ndarray:
    """Blocks dealt out evenly, neighbours together: equal runs to the servers in their order."""
    dealt = np.arange(world.blocks) * min(world.servers, world.blocks) // world.blocks + 1
    return np.broadcast_to(dealt, (len(slots), world.blocks)).copy()


def rpdi(world: World, slots: Slots, rng: np.random.Generator) -> np.ndarray:
    """Every block anywhere, the device included, at random."""
    return rng.integers(0, world.hosts, (len(slots), world.blocks))


def search(world: World, slots: Slots, rng: np.random.Generator, *, starts: int = 6) -> np.ndarray:
    """Local search from several placements: single blocks, then pairs change hosts as long as the reward rises."""
    delays = Delays(world)
    begins = [greedy(world, slots, rng), apdi(world, slots, rng)]
    begins += [rpdi(world, slots, rng) for _ in range(max(0, starts - len(begins)))]
    best, highest = begins[0], np.full(len(slots), -np.inf)
    for begin in begins:
        found, reward = _climbed(world, slots, delays, begin)
        better = reward > highest
        best = np.where(better[:, None], found, best)
        highest = np.maximum(reward, highest)
    return best


def _climbed(
    world: World, slots: Slots, delays: Delays, placement: np.ndarray, *, rounds: int = 30
) -> tuple[np.ndarray, np.ndarray]:
    reward = delays.reward(slots, placement)
    for _ in range(rounds):
        before = reward.copy()
        for block in range(world.blocks):
            for host in range(world.hosts):
                moved = placement.copy()
                moved[:, block] = host
                placement, reward = _kept(slots, delays, placement, reward, moved)
        for a in range(world.blocks):
            for b in range(a + 1, world.blocks):
                swapped = placement.copy()
                swapped[:, [a, b]] = placement[:, [b, a]]
                placement, reward = _kept(slots, delays, placement, reward, swapped)
        if (reward <= before + 1e-12).all():
            break
    return placement, reward


def _kept(
    slots: Slots, delays: Delays, placement: np.ndarray, reward: np.ndarray, moved: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    new = delays.reward(slots, moved)
    better = new > reward
    return np.where(better[:, None], moved, placement), np.where(better, new, reward)


PLANNERS: dict[str, Planner] = {"greedy": greedy, "apdi": apdi, "rpdi": rpdi, "search": search}
