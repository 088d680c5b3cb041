"""The placement problem as a Gymnasium environment [Li 2023, sec. 4.1], one slot a step.

    state    c_m and tau_m of every block, the rate to every server, the remaining energy (eq. 11); d_m too, which is
             the same in every slot. tau_m is not in the paper's state; its reward depends on it, so ours sees it
    action   a host for every block, MultiDiscrete; 0 is the device
    reward   eq. 14 in seconds

Devices move to another place at the beginning of an episode. An episode is cut off after T slots; it never ends itself.
A battery that is empty is reported (`info["energy_left_j"]` is negative) and changes nothing: the paper has no rule.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from nas.decisions.placement.delays import Delays
from nas.decisions.placement.world import RATES_BYTES_PER_S, Slots, World, draw_slots

AHEAD = 32
"""Slots drawn at once: they do not depend on what is done, and numpy takes as long for one as for many."""
STATES = "c, d and tau of each block, the rate to each server, the energy that is left"


def observation_size(world: World) -> int:
    """Numbers in an observation."""
    return 3 * world.blocks + world.servers + 1


class Episodes:
    """`count` episodes side by side; all arrays begin with (count,)."""

    def __init__(self, world: World, count: int) -> None:
        self.world, self.count, self.delays = world, count, Delays(world)
        chain = self.delays.chain
        self._cycles = world.cycles_per_operation * chain.operations.max()
        self._parameters = chain.parameter_bytes / max(chain.parameter_bytes.max(), 1.0)
        self.at = np.zeros(count, int)
        self.energy_j = np.full(count, world.battery_j)
        self.distances = np.ones((count, world.servers))
        self.slots: Slots | None = None
        self._ahead: list[Slots] = []

    def reset(self, which: np.ndarray, rng: np.random.Generator) -> None:
        """Begin the episodes `which`, (count,) bool, and go to the next slot, of which several are drawn at once."""
        if which.any():
            self.distances = np.where(which[:, None], self.world.distances_m(self.count, rng), self.distances)
            self.at = np.where(which, 0, self.at)
            self.energy_j = np.where(which, self.world.battery_j, self.energy_j)
            self._ahead = []
        if not self._ahead:
            many = draw_slots(self.world, self.delays.chain, np.tile(self.distances, (AHEAD, 1)), rng)
            self._ahead = many.split(AHEAD)
        self.slots = self._ahead.pop()

    def observe(self) -> np.ndarray:
        """(count, numbers), float32, within -2..2; see `STATES`."""
        assert self.slots is not None
        rates = self.slots.rate / (RATES_BYTES_PER_S[1] * self.world.capacity)
        tolerances = self.slots.tolerance_s / self.world.tolerance_s[1]
        parameters = np.broadcast_to(self._parameters, tolerances.shape)
        left = self.energy_j[:, None] / self.world.battery_j
        seen = np.concatenate([self.slots.cycles / self._cycles, parameters, tolerances, rates, left], 1)
        return np.clip(seen, -2.0, 2.0).astype(np.float32)

    def step(self, hosts: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Rewards, (count,), and what happened."""
        assert self.slots is not None
        outcome = self.delays.outcome(self.slots, hosts)
        self.energy_j = self.energy_j - outcome.energy_j
        self.at = self.at + 1
        return outcome.reward, {
            "total_s": outcome.total_s, "edge_s": outcome.edge_s, "local_s": outcome.local_s,
            "penalty_s": outcome.penalty_s, "energy_j": outcome.energy_j, "energy_left_j": self.energy_j,
        }  # fmt: skip


class PlacementEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Registered as `nas/Placement-v0`. Keyword arguments are those of `World`."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, world: World | None = None, **parameters: Any) -> None:
        self.world = World(**parameters) if world is None else world
        self.episodes = Episodes(self.world, 1)
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (observation_size(self.world),), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([self.world.hosts] * self.world.blocks)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.episodes.reset(np.ones(1, bool), self.np_random)
        return self.episodes.observe()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Place the tasks of one slot; action : (blocks,), the host of each."""
        reward, told = self.episodes.step(np.asarray(action, int)[None])
        self.episodes.reset(np.zeros(1, bool), self.np_random)
        over = bool(self.episodes.at[0] >= self.world.slots)
        info = {name: float(value[0]) for name, value in told.items()}
        return self.episodes.observe()[0], float(reward[0]), False, over, info


class PlacementVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` episodes at once in numpy; an episode that is over begins anew in the next step."""

    metadata = {"render_modes": [], "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, world: World | None = None, **parameters: Any) -> None:
        self.world = World(**parameters) if world is None else world
        self.num_envs, self.episodes = num_envs, Episodes(self.world, num_envs)
        self.single_observation_space = gymnasium.spaces.Box(-2.0, 2.0, (observation_size(self.world),), np.float32)
        self.single_action_space = gymnasium.spaces.MultiDiscrete([self.world.hosts] * self.world.blocks)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin all episodes."""
        super().reset(seed=seed)
        self._over = np.zeros(self.num_envs, bool)
        self.episodes.reset(np.ones(self.num_envs, bool), self.np_random)
        return self.episodes.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Place the tasks of one slot in every episode; actions : (episodes, blocks)."""
        reward, told = self.episodes.step(np.asarray(actions, int))
        reward = np.where(self._over, 0.0, reward)
        self.episodes.reset(self._over, self.np_random)
        self._over = ~self._over & (self.episodes.at >= self.world.slots)
        return self.episodes.observe(), reward, np.zeros(self.num_envs, bool), self._over.copy(), told
