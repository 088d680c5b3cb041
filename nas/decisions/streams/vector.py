"""Many streams that step at once, in numpy: the same model as `TaskStreamEnv`, which tests compare it with."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from modeltree.errors import ConfigError
from modeltree.streams.costs import MOST_IMAGES
from modeltree.streams.system import EPSILON_MS
from nas.decisions.streams.environment import setting
from runtime.stream.learned import Observer


class TaskStreamVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` streams; parameters as `TaskStreamEnv`'s. A stream that is over begins anew at the next step."""

    def __init__(self, num_envs: int = 64, *, tasks: int = 100, render_mode: str | None = None, **of: Any) -> None:
        if num_envs < 1 or tasks < 1:
            raise ConfigError(f"num_envs is {num_envs} and tasks {tasks}: both must be at least 1")
        self.num_envs, self.tasks, self.render_mode = num_envs, tasks, render_mode
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.system, self.arrivals = setting(**of)
        self.observer = Observer(self.arrivals.deadline_ms(MOST_IMAGES))
        self.single_observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(len(self.system.table))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows = np.arange(num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all streams."""
        super().reset(seed=seed if seed is None or isinstance(seed, int) else seed[0])
        count, tasks = self.num_envs, self.tasks
        self._at_ms, self._deadline_ms = np.zeros((count, tasks)), np.zeros((count, tasks))
        self._images, self._device = np.zeros((count, tasks), np.int64), np.zeros((count, tasks), np.int64)
        self._free = np.full((count, self.arrivals.devices), -np.inf)
        self._server = np.full(count, -np.inf)
        self._at = np.zeros(count, np.int64)
        self._over = np.zeros(count, bool)
        self._draw_(self._rows)
        return self._observed(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Decide a task of every stream; of one that was over, begin the next and take no action.

        actions : (streams,).
        """
        fresh = self._over.copy()
        if fresh.any():
            self._draw_(np.flatnonzero(fresh))
        reward = np.where(fresh, 0.0, self._taken_(np.asarray(actions, np.int64), ~fresh))
        self._at += ~fresh
        self._over = self._at == self.tasks
        observed = self._observed()
        return observed, reward, self._over.copy(), np.zeros(self.num_envs, bool), {}

    def _taken_(self, actions: np.ndarray, going: np.ndarray) -> np.ndarray:
        """(streams,): gains of actions; moves the clocks of streams that are `going`."""
        system, rows = self.system, self._rows
        at = np.minimum(self._at, self.tasks - 1)
        images, device, arrival = self._images[rows, at], self._device[rows, at], self._at_ms[rows, at]
        sends = np.maximum(self._free[rows, device], arrival) + system.device_ms[images, actions]
        reaches = sends + system.crosses_ms(system.sent_bytes[images, actions], sends)
        passes = system.passes[actions]
        ends = np.where(passes, np.maximum(reaches, self._server), reaches) + system.server_ms[images, actions]
        runs = going & (actions > 0)
        self._free[rows, device] = np.where(runs, sends, self._free[rows, device])
        self._server = np.where(runs & passes, ends, self._server)
        in_time = ends <= arrival + self._deadline_ms[rows, at] + EPSILON_MS
        return np.asarray(system.gains[actions] * in_time)

    def _draw_(self, streams: np.ndarray) -> None:
        shape = (len(streams), self.tasks)
        rng, arrivals = self.np_random, self.arrivals
        self._at_ms[streams] = np.cumsum(rng.geometric(arrivals.p, shape), 1) * arrivals.slot_ms
        self._images[streams] = arrivals.sizes(len(streams) * self.tasks, rng).reshape(shape)
        self._device[streams] = rng.integers(arrivals.devices, size=shape)
        self._deadline_ms[streams] = arrivals.k * arrivals.slot_ms * self._images[streams]
        self._free[streams], self._server[streams] = -np.inf, -np.inf
        self._at[streams], self._over[streams] = 0, False

    def _observed(self) -> np.ndarray:
        rows, at = self._rows, np.minimum(self._at, self.tasks - 1)
        arrival = self._at_ms[rows, at]
        own = np.maximum(self._free[rows, self._device[rows, at]] - arrival, 0.0)
        server = np.maximum(self._server - arrival, 0.0)
        return self.observer(self._images[rows, at], self._deadline_ms[rows, at] - own, server)
