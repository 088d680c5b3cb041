"""Delay, energy and reward of placements, eqs. 3 to 14 of [Li 2023], for many slots at once."""

from dataclasses import dataclass

import numpy as np

from nas.decisions.placement.world import Slots, World

KAPPA = 1e-26


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Of B slots. Times in seconds, summed over the blocks; energy in joules, of one device in the slot.

    total_s : sum of L_m. local_s : of these, blocks on the device. edge_s : blocks on servers, transfers included.
    penalty_s : psi, eq. 13. reward : eq. 14. late : share of the blocks above their tolerance.
    """

    total_s: np.ndarray
    local_s: np.ndarray
    edge_s: np.ndarray
    penalty_s: np.ndarray
    energy_j: np.ndarray
    reward: np.ndarray
    late: np.ndarray


class Delays:
    """What placements cost in a world. A placement is (B, M) hosts; 0 is the device.

    The answer stays where the last block runs, as in the paper. Image and device belong together: the first block's
    neighbour in front is the device.
    """

    def __init__(self, world: World) -> None:
        self.world, self.chain = world, world.chain()
        self.hz, self.tasks = world.host_hz(), world.tasks()

    def load(self, slots: Slots, hosts: np.ndarray) -> np.ndarray:
        """(B, N + 1): by how much a host's time for a block grows with what else it has; see `World`."""
        count, width = len(hosts), self.world.hosts
        if self.world.coupling == "none":
            return np.ones((count, width))
        share = 1.0 if self.world.coupling == "blocks" else slots.cycles / slots.cycles.sum(1, keepdims=True)
        place = (hosts + width * np.arange(count)[:, None]).ravel()
        weights = np.broadcast_to(share, hosts.shape).ravel()
        return np.bincount(place, weights, minlength=count * width).reshape(count, width)

    def compute_s(self, slots: Slots, hosts: np.ndarray) -> np.ndarray:
        """(B, M): eqs. 3 and 6, with the share that the load leaves."""
        load = np.take_along_axis(self.load(slots, hosts), hosts, 1)
        return slots.cycles * self.tasks[hosts] * load / self.hz[hosts]

    def alone_s(self, slots: Slots) -> np.ndarray:
        """(B, M, N + 1): compute of every block on every host, without load."""
        return slots.cycles[:, :, None] * (self.tasks / self.hz)

    def moved_s(self, slots: Slots) -> np.ndarray:
        """(B, M, N + 1, N + 1): eq. 5, from the host in front to the block's own."""
        count, hosts = len(slots), self.world.hosts
        per_byte = np.zeros((count, hosts, hosts))
        per_byte[:, 1:, 1:] = 1 / self.world.between_bytes_per_s
        per_byte[:, 0, 1:] = per_byte[:, 1:, 0] = self.tasks[0] / slots.rate
        per_byte[:, np.arange(hosts), np.arange(hosts)] = 0.0
        return self.chain.in_bytes[None, :, None, None] * per_byte[:, None]

    def transfer_s(self, slots: Slots, hosts: np.ndarray) -> np.ndarray:
        """(B, M): eq. 5."""
        before = np.concatenate([np.zeros((len(hosts), 1), int), hosts[:, :-1]], 1)
        rows = np.arange(len(hosts))[:, None]
        server = np.maximum(before, hosts) - 1
        wireless = (before == 0) != (hosts == 0)
        radio = self.tasks[0] / slots.rate[rows, np.maximum(server, 0)]
        wired = np.where(before == hosts, 0.0, 1 / self.world.between_bytes_per_s)
        return self.chain.in_bytes * np.where(wireless, radio, wired)

    def outcome(self, slots: Slots, hosts: np.ndarray) -> Outcome:
        """What placements cost."""
        world, local = self.world, hosts == 0
        transfer = self.transfer_s(slots, hosts)
        delay = self.compute_s(slots, hosts) + transfer  # eq. 9; what comes back to the device waits for its input
        penalty = np.maximum(delay - slots.tolerance_s, 0.0)
        before = np.concatenate([np.zeros((len(hosts), 1), int), hosts[:, :-1]], 1)
        sends = (before == 0) & ~local
        joules = self.tasks[0] * KAPPA * world.device_hz**2 * slots.cycles * local + world.power_w * transfer * sends
        total, missed = delay.sum(1), penalty.sum(1)
        return Outcome(
            total_s=total,
            local_s=(delay * local).sum(1),
            edge_s=(delay * ~local).sum(1),
            penalty_s=missed,
            energy_j=joules.sum(1),
            reward=-(total + world.beta * missed),
            late=(penalty > 0).mean(1),
        )

    def reward(self, slots: Slots, hosts: np.ndarray) -> np.ndarray:
        """(B,): eq. 14 alone."""
        delay = self.compute_s(slots, hosts) + self.transfer_s(slots, hosts)
        return -(delay + self.world.beta * np.maximum(delay - slots.tolerance_s, 0.0)).sum(1)
