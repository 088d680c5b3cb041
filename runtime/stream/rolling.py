"""The rolling horizon: decide a task by playing many drawn futures after each choice.

It knows what the environment's statistics are (p, the sizes, the deadlines, how many devices) and nothing of the stream
itself. For a task it takes the actions that are in time, of every exit those cuts that are best for something; after
each it plays the same drawn futures, tasks decided by a quick rule; the action with the highest gain, its own and the
futures' on average, is taken. The rule is best-fit with a price on time, tried out on drawn streams beforehand:
accuracy that keeps others waiting has to be worth it [rollout algorithm, Bertsekas]. Futures are drawn evenly over
their distributions (a Latin hypercube), since few have to stand for all.
"""

import math
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from modeltree.streams.costs import MOST_IMAGES
from modeltree.streams.system import EPSILON_MS, Observation, StreamSystem, play, total_gain
from modeltree.streams.tasks import Arrivals
from modeltree.units import bytes_per_ms

_PRICES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Gain that a whole mean gap between tasks is worth, of the device's and of the server's time."""
_TRIAL_TASKS = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Priced:
    """Best fit by gain less a price an ms of device and server time. device_price, server_price : gain an ms."""

    system: StreamSystem
    device_price: float
    server_price: float

    def choose(self, observation: Observation) -> int:
        """Looks at this task, the queues and the prices."""
        finish_ms = self.system.finish_ms(observation)
        system, images = self.system, observation.images
        paid = self.device_price * system.device_ms[images] + self.server_price * system.server_ms[images]
        scores = system.gains - paid - 1e-9 * finish_ms
        scores = np.where(finish_ms <= observation.deadline_ms + EPSILON_MS, scores, -math.inf)
        return int(scores.argmax())


class RollingHorizon:
    """Use `choose`. arrivals : the statistics that are known.

    tasks, futures : how far and how often the future is drawn. seed : of the draws; the same draws serve every task.

    Raises
    ------
    ConfigError : nothing to draw.
    """

    def __init__(
        self, system: StreamSystem, arrivals: Arrivals, *, tasks: int = 5, futures: int = 48, seed: int = 0
    ) -> None:
        if tasks < 1 or futures < 1:
            raise ConfigError(f"tasks is {tasks} and futures {futures}: both must be at least 1")
        self.system, self.arrivals = system, arrivals
        rng = np.random.default_rng([seed, 11])
        gaps = np.ceil(np.log1p(-_even(futures, tasks, rng)) / math.log1p(-min(arrivals.p, 1 - 1e-12)))
        self._at_ms = np.cumsum(np.maximum(gaps, 1.0) * arrivals.slot_ms, axis=1)
        sizes = np.sort(arrivals.sizes(10_000, rng))
        self._images = sizes[(_even(futures, tasks, rng) * len(sizes)).astype(int)]
        self._device = (_even(futures, tasks, rng) * arrivals.devices).astype(int)
        self._deadline_ms = arrivals.k * arrivals.slot_ms * self._images
        self._kept = useful(system)
        self.device_price, self.server_price = _tried(system, arrivals, np.random.default_rng([seed, 12]))

    def choose(self, observation: Observation) -> int:
        """The action whose own gain and drawn futures are worth most."""
        system = self.system
        finish_ms = system.finish_ms(observation)
        kept = self._kept[finish_ms[self._kept] <= observation.deadline_ms + EPSILON_MS]
        if len(kept) <= 1:  # a deadline that is over already, once its margin is taken off, leaves not even action 0
            return int(kept[0]) if len(kept) else 0
        values = system.gains[kept] + self._worth(observation, kept, finish_ms[kept])
        best = values.max()
        return int(kept[np.where(values >= best - 1e-9, finish_ms[kept], np.inf).argmin()])

    def _worth(self, observation: Observation, kept: np.ndarray, finish_ms: np.ndarray) -> np.ndarray:
        """(actions kept,): mean gain of the futures after each action."""
        system, devices = self.system, self.arrivals.devices
        futures, horizon = self._at_ms.shape
        count = len(kept)
        others = [*observation.others_ms[: devices - 1], *[0.0] * (devices - 1 - len(observation.others_ms))]
        free = np.empty((count, futures, devices))
        own = observation.device if observation.device < devices else 0
        free[...] = np.insert(np.array(others), own, 0.0)
        busy = observation.device_wait_ms + system.device_ms[observation.images, kept]
        free[:, :, own] = np.where(kept > 0, busy, observation.device_wait_ms)[:, None]
        served = np.where(
            system.passes[kept], np.maximum(finish_ms, observation.server_wait_ms), observation.server_wait_ms
        )
        server = np.repeat(served[:, None], futures, 1)
        gained = np.zeros((count, futures))
        device_ms, server_ms = system.device_ms[:, self._kept], system.server_ms[:, self._kept]
        link_ms = system.sent_bytes[:, self._kept] / bytes_per_ms(observation.mbps)
        gains, passes = system.gains[self._kept], system.passes[self._kept]
        paid = gains - self.device_price * device_ms - self.server_price * server_ms
        rows = np.arange(count)[:, None], np.arange(futures)[None]
        for step in range(horizon):
            images, at = self._images[:, step], self._at_ms[:, step]
            here = (*rows, self._device[None, :, step])
            sends = np.maximum(free[here], at)[..., None] + device_ms[images]
            reaches = sends + link_ms[images]
            ends = np.where(passes, np.maximum(reaches, server[..., None]), reaches) + server_ms[images]
            scores = paid[images] - 1e-9 * ends
            scores[ends > (at + self._deadline_ms[:, step] + EPSILON_MS)[:, None]] = -math.inf
            scores[..., 0] = 0.0
            best = scores.argmax(-1)
            gained += gains[best]
            ran, taken = best > 0, (*rows, best)
            free[here] = np.where(ran, sends[taken], free[here])
            server = np.where(ran & passes[best], ends[taken], server)
        return gained.mean(1)


def useful(system: StreamSystem) -> np.ndarray:
    """Action 0, and of every exit the cuts that are done first, take the least of the device, or of the server."""
    found, images = {0}, (1 + MOST_IMAGES) // 2
    device_ms, server_ms = system.device_ms[images], system.server_ms[images]
    total_ms = device_ms + system.transfer_ms(images, system.mbps) + server_ms
    for number in range(1, int(system.table.exit.max()) + 1):
        of_exit = np.flatnonzero(system.table.exit == number)
        for measure in (total_ms, device_ms, server_ms):
            found |= {int(of_exit[np.lexsort((total_ms[of_exit], measure[of_exit]))[0]])} if of_exit.size else set()
    return np.array(sorted(found))


def _even(futures: int, tasks: int, rng: np.random.Generator) -> np.ndarray:
    """(futures, tasks) in 0..1, every column spread evenly, in an order of its own."""
    columns = [rng.permutation(futures) for _ in range(tasks)]
    return (np.stack(columns, 1) + rng.random((futures, tasks))) / futures


def _tried(system: StreamSystem, arrivals: Arrivals, rng: np.random.Generator) -> tuple[float, float]:
    """The prices that did best on a drawn stream, each in gain an ms."""
    gap_ms = arrivals.slot_ms / arrivals.p
    tasks = arrivals.draw(_TRIAL_TASKS, rng)
    best, found = -math.inf, (0.0, 0.0)
    for device in _PRICES:
        for server in _PRICES:
            prices = device / (gap_ms * arrivals.devices), server / gap_ms
            rule = Priced(system=system, device_price=prices[0], server_price=prices[1])
            worth = total_gain(play(system, tasks, rule, devices=arrivals.devices))
            if worth > best + 1e-9:
                best, found = worth, prices
    return found
