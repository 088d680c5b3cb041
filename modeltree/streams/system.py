"""The computing model of a stream: who is busy until when, and what a task's exit and cut come to [Song 2021, II-B].

For task n, of which task h was the one before on the same device:

    t_n^d = max(t_n^a, t_h^s)                 the device begins
    t_n^s = t_n^d + t_n^end                   it begins to send
    t_n^e = max(t_n^s + t_n^tr, t_(n-1)^f)    the server begins
    t_n^f = t_n^e + t_n^edge                  the answer

The server is first come first served in the order of the tasks, a task that ends on its device waits its turn, too, and
what one device sends does not hold up what it sends next: that is the paper's model, `strict`. Without it a task that
ends on its device is done when the device is, a device sends one task after the other, and the server takes them as
they reach it: what we run for real (`runtime.stream`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.streams.costs import MOST_IMAGES, ActionTable
from modeltree.streams.gain import Gain
from modeltree.streams.tasks import Task
from modeltree.units import bytes_per_ms, s_from_ms

PAPER_MBPS = 1.0
"""1000 kbit/s [Song 2021, sec. IV-A]."""
EPSILON_MS = 1e-6
"""By how much an answer may pass its deadline: sums of floats differ by less."""


_FORGOTTEN_MS = 60_000.0


class Observation(NamedTuple):
    """What a planner sees when a task arrives.

    deadline_ms : tau. device_wait_ms : max(t_h^s - t_n^a, 0); server_wait_ms : max(t_(n-1)^f - t_n^a, 0).
    mbps : of the device's link now. others_ms : how long the other devices still compute; empty where nobody knows.
    device : which one it is, among `others_ms` and itself. link_wait_ms : how long the device still sends others.
    """

    images: int
    deadline_ms: float
    device_wait_ms: float
    server_wait_ms: float
    mbps: float = PAPER_MBPS
    others_ms: tuple[float, ...] = ()
    device: int = 0
    link_wait_ms: float = 0.0


class Planner(Protocol):
    """Chooses exit and cut for a task."""

    def choose(self, observation: Observation) -> int:
        """The number of an action of the system's table; 0 does not run the task."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamSystem:
    """Actions, the link and the gain. trace : a link that changes, in place of `mbps`, each device's own."""

    table: ActionTable
    mbps: float = PAPER_MBPS
    gain: Gain = field(default_factory=Gain)
    trace: Trace | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mbps) and self.mbps > 0):
            raise ConfigError(f"the link has {self.mbps} Mbit/s: it must be finite and above 0")

    @cached_property
    def gains(self) -> np.ndarray:
        """(actions,): G of every action if it is in time; 0 for action 0."""
        accuracy = self.table.accuracy
        return self.gain.of(accuracy, float(accuracy[1:].min()))

    @cached_property
    def device_ms(self) -> np.ndarray:
        """(sizes + 1, actions): t^end by images."""
        return self._by_size("device")

    @cached_property
    def server_ms(self) -> np.ndarray:
        """(sizes + 1, actions): t^edge by images."""
        return self._by_size("server")

    @cached_property
    def sent_bytes(self) -> np.ndarray:
        """(sizes + 1, actions): what crosses; 0 for action 0, and without `strict` for what ends on the device."""
        found = self._by_size("sent")
        return found if self.strict else np.where(self.table.on_device, 0.0, found)

    @cached_property
    def passes(self) -> np.ndarray:
        """(actions,), bool: whether a task waits for its turn at the server."""
        passes = np.full(len(self.table), True) if self.strict else ~self.table.on_device
        passes[0] = False
        return passes

    def transfer_ms(self, images: int, mbps: float) -> np.ndarray:
        """(actions,): t^tr at a bandwidth."""
        return self.sent_bytes[images] / bytes_per_ms(mbps)

    def crosses_ms(self, size_bytes: np.ndarray, sends_ms: np.ndarray) -> np.ndarray:
        """What bytes take on the link from a moment t^s of the stream's clock on; any shapes that broadcast."""
        if self.trace is None:
            return np.asarray(size_bytes / bytes_per_ms(self.mbps) + 0.0 * sends_ms)
        return self.trace.transfers_ms(size_bytes, s_from_ms(1.0) * sends_ms)

    def finish_ms(self, observation: Observation) -> np.ndarray:
        """(actions,): T_n = t_n^f - t_n^a of every action at the bandwidth that is seen; 0 for action 0."""
        device_ms, server_ms = self.device_ms[observation.images], self.server_ms[observation.images]
        sends = np.maximum(observation.device_wait_ms + device_ms, np.where(self.passes, observation.link_wait_ms, 0.0))
        ready = sends + self.transfer_ms(observation.images, observation.mbps)
        begins = np.where(self.passes, np.maximum(ready, observation.server_wait_ms), ready)
        finish = begins + server_ms
        finish[0] = 0.0
        return finish

    def _by_size(self, name: str) -> np.ndarray:
        rows = np.stack([self.table.line(name, images) for images in range(MOST_IMAGES + 1)])
        rows[:, 0] = 0.0
        return rows


class Played(NamedTuple):
    """What became of a task: its action, the times of the model on the stream's clock, and its gain (0: late, or not
    run). `begins_ms` is t^d, `sends_ms` t^s, `reaches_ms` t^s + t^tr, `serves_ms` t^e, `ends_ms` t^f."""

    task: Task
    action: int
    begins_ms: float
    sends_ms: float
    reaches_ms: float
    serves_ms: float
    ends_ms: float
    gain: float

    @property
    def late(self) -> bool:
        """Whether it was run for nothing."""
        return bool(self.action) and not self.gain


class Timeline:
    """Who is busy until when, while tasks are decided one after the other in order of arrival."""

    def __init__(self, system: StreamSystem, devices: int) -> None:
        self.system = system
        self.device_free_ms = [-math.inf] * devices
        self.link_free_ms = [-math.inf] * devices
        self.server_free_ms = -math.inf
        self._served: list[tuple[float, float, float]] = []  # (reaches, serves, ends) of the server's tasks

    def observe(self, task: Task) -> Observation:
        """What a planner sees of a task that arrives."""
        now = task.arrival_ms
        waits = [max(free - now, 0.0) for free in self.device_free_ms]
        system = self.system
        mbps = system.mbps if system.trace is None else system.trace.at(s_from_ms(now))
        if system.strict:
            server_wait_ms = max(self.server_free_ms - now, 0.0)
        else:  # what has reached it, as a server knows its queue
            left = [ends - max(serves, now) for reaches, serves, ends in self._served if reaches <= now < ends]
            server_wait_ms = math.fsum(left)
        return Observation(
            images=task.images, deadline_ms=task.deadline_ms, device_wait_ms=waits[task.device],
            server_wait_ms=server_wait_ms, mbps=mbps, device=task.device,
            others_ms=(*waits[: task.device], *waits[task.device + 1 :]),
            link_wait_ms=0.0 if system.strict else max(self.link_free_ms[task.device] - now, 0.0),
        )  # fmt: skip

    def step_(self, task: Task, action: int) -> Played:
        """Run a task by an action; one that will be late is run to its end all the same."""
        system = self.system
        begins = max(task.arrival_ms, self.device_free_ms[task.device])
        if not action:
            return Played(task, 0, begins, begins, begins, begins, begins, 0.0)
        sends = begins + float(system.device_ms[task.images, action])
        self.device_free_ms[task.device] = sends
        reaches = self._sent_(task, action, sends)
        server_ms = float(system.server_ms[task.images, action])
        serves = self._served_(reaches, server_ms) if system.passes[action] else reaches
        ends = serves + server_ms
        in_time = ends <= task.arrival_ms + task.deadline_ms + EPSILON_MS
        return Played(task, action, begins, sends, reaches, serves, ends, float(system.gains[action]) * in_time)

    def _sent_(self, task: Task, action: int, sends: float) -> float:
        """When the server has it all."""
        system, sent = self.system, float(self.system.sent_bytes[task.images, action])
        if not system.strict and sent:
            sends = max(sends, self.link_free_ms[task.device])
        if system.trace is None:
            reaches = sends + sent / bytes_per_ms(system.mbps)
        else:
            reaches = sends + system.trace.transfer_ms(sent, s_from_ms(sends))
        if sent:
            self.link_free_ms[task.device] = reaches
        return reaches

    def _served_(self, reaches: float, server_ms: float) -> float:
        """When the server begins: behind the task before, or, not `strict`, in the first gap from when it is there."""
        if self.system.strict:
            serves = max(reaches, self.server_free_ms)
            self.server_free_ms = serves + server_ms
            return serves
        serves = reaches
        for _, other, ends in sorted(self._served, key=lambda one: one[1]):
            if serves + server_ms > other and serves < ends:
                serves = ends
        self._served = [one for one in self._served if one[2] > reaches - _FORGOTTEN_MS]
        self._served.append((reaches, serves, serves + server_ms))
        return serves


def play(system: StreamSystem, tasks: Sequence[Task], planner: Planner, *, devices: int) -> list[Played]:
    """Let a planner decide every task when it arrives, in order of arrival."""
    timeline = Timeline(system, devices)
    return [timeline.step_(task, planner.choose(timeline.observe(task))) for task in tasks]


@dataclass(kw_only=True)
class Scripted:
    """A planner that follows a plan made before, one action a task in order of arrival."""

    actions: Sequence[int]
    at: int = 0

    def choose(self, observation: Observation) -> int:
        """The next of the plan."""
        self.at += 1
        return int(self.actions[self.at - 1])


def total_gain(played: Sequence[Played]) -> float:
    """Sum of rewards, as the paper's figures show it."""
    return math.fsum(one.gain for one in played)
