"""The exact optimum of the stated model: branch and bound over the tasks, with dominance.

A partial plan is what it has gained and when every device and the server are free. A time before the next arrival that
can need it is as good as that arrival. One partial plan beats another that gained no more and is free nowhere earlier;
and one that cannot reach, with everything to come at its best, what a known plan gains is dropped. Both leave an
optimum, on a link that changes too, since what is sent later is never there earlier.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError
from modeltree.streams.system import EPSILON_MS, Scripted, StreamSystem, play, total_gain
from modeltree.streams.tasks import Task

MOST_STATES = 200_000


class Optimum(NamedTuple):
    """The best plan. gain : of all tasks. states : the most partial plans that were kept at once.
    proven : False where `MOST_STATES` was reached and the rest cut off; `bound` is then what no plan exceeds."""

    actions: list[int]
    gain: float
    states: int
    proven: bool
    bound: float


def exact(
    system: StreamSystem, tasks: Sequence[Task], *, devices: int, known: Sequence[Sequence[int]] = (),
    most_states: int = MOST_STATES, progress: Callable[[int, int], None] = lambda done, total: None,
) -> Optimum:  # fmt: skip
    """The plan of the highest gain, tasks decided in order of arrival.

    known : plans to beat; the better they are, the fewer are looked at.

    Raises
    ------
    ConfigError : the system is not `strict` and has several devices (see `upper_bound`).
    """
    if not system.strict and devices > 1:
        raise ConfigError("several devices meet at a server that takes tasks as they come: ask for upper_bound")
    plans = [list(plan) for plan in known] or [[0] * len(tasks)]
    gains = [total_gain(play(system, tasks, Scripted(actions=plan), devices=devices)) for plan in plans]
    best = int(np.argmax(gains))
    incumbent, plan = float(gains[best]), plans[best]
    ahead = _ahead(system, tasks)
    next_at = _next_arrivals(tasks, devices)
    free, gained = np.full((1, devices + 1), -math.inf), np.zeros(1)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    widest, bound = 1, 0.0
    for i, task in enumerate(tasks):
        free, gained, parents, actions = _expanded(system, task, free, gained)
        free = np.maximum(free, next_at[i + 1])
        promising = gained + ahead[i + 1] >= incumbent - 1e-9
        order = np.flatnonzero(promising)
        if len(order) == 0:  # the known plan is the best
            return Optimum(plan, incumbent, widest, not bound, max(incumbent, bound))
        kept = order[_undominated(free[order], gained[order])]
        if len(kept) > most_states:
            kept = kept[np.argsort(-gained[kept], kind="stable")]
            bound = max(bound, float(gained[kept[most_states:]].max() + ahead[i + 1]))
            kept = kept[:most_states]
        free, gained = free[kept], gained[kept]
        history.append((parents[kept], actions[kept]))
        widest = max(widest, len(kept))
        progress(i + 1, len(tasks))
    at = int(gained.argmax())
    if gained[at] > incumbent + 1e-12 or not plan:
        incumbent, plan = float(gained[at]), []
        for parents, actions in reversed(history):
            plan.append(int(actions[at]))
            at = int(parents[at])
        plan.reverse()
    return Optimum(plan, incumbent, widest, bound <= incumbent, max(incumbent, bound))


def upper_bound(system: StreamSystem, tasks: Sequence[Task], *, devices: int, most_states: int = 400) -> float:
    """What no plan can gain, whoever makes it, on a system that is not `strict`: the server busy for nobody else.

    Then devices have nothing to do with each other, and each has its own exact optimum.
    """
    total = 0.0
    for device in range(devices):
        mine = [task._replace(device=0) for task in tasks if task.device == device]
        if mine:
            total += exact(system, mine, devices=1, most_states=most_states).bound
    return total


def _expanded(
    system: StreamSystem, task: Task, free: np.ndarray, gained: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every partial plan with every action that is in time: (times, gains, parent, action)."""
    begins = np.maximum(free[:, task.device], task.arrival_ms)[:, None]
    sends = begins + system.device_ms[task.images]
    sent = system.sent_bytes[task.images]
    if system.strict:
        reaches = sends + system.crosses_ms(sent, sends)
        busy = ends = np.maximum(reaches, free[:, -1:]) + system.server_ms[task.images]
    else:  # the last time is the link's
        leaves = np.maximum(sends, free[:, -1:])
        busy = np.where(system.passes, leaves + system.crosses_ms(sent, leaves), sends)
        ends = busy + system.server_ms[task.images]
    fits = ends <= task.arrival_ms + task.deadline_ms + EPSILON_MS
    fits[:, 0] = True
    parents, actions = np.nonzero(fits)
    times = free[parents].copy()
    runs = actions > 0
    times[runs, task.device] = sends[parents[runs], actions[runs]]
    served = runs & system.passes[actions]
    times[served, -1] = busy[parents[served], actions[served]]
    return times, gained[parents] + system.gains[actions], parents, actions


def _undominated(free: np.ndarray, gained: np.ndarray) -> np.ndarray:
    """Positions of partial plans that no other beats; of equals one."""
    columns = np.column_stack([-gained, free])
    _, first = np.unique(np.round(columns, 6), axis=0, return_index=True)
    order = first[np.lexsort(columns[first].T[::-1])]
    kept = np.empty((0, columns.shape[1]))
    positions: list[int] = []
    for start in range(0, len(order), 256):
        block = order[start : start + 256]
        rows = columns[block]
        beaten = np.any(np.all(kept[None] <= rows[:, None] + 1e-9, axis=2), axis=1)
        rows, block = rows[~beaten], block[~beaten]
        inside = np.all(rows[None] <= rows[:, None] + 1e-9, axis=2)
        earlier = np.tri(len(rows), k=-1, dtype=bool)
        alive = ~np.any(inside & earlier, axis=1)
        kept = np.concatenate([kept, rows[alive]])
        positions += block[alive].tolist()
    return np.array(positions, dtype=np.int64)


def _ahead(system: StreamSystem, tasks: Sequence[Task]) -> np.ndarray:
    """(tasks + 1,): what the tasks from each on can gain if each has everything for itself."""
    best = []
    for task in tasks:
        device_ms = system.device_ms[task.images]
        crosses_ms = system.crosses_ms(system.sent_bytes[task.images], task.arrival_ms + device_ms)
        fits = device_ms + crosses_ms + system.server_ms[task.images] <= task.deadline_ms + EPSILON_MS
        best.append(float(np.where(fits, system.gains, 0.0).max()))
    return np.concatenate([np.cumsum(best[::-1])[::-1], [0.0]])


def _next_arrivals(tasks: Sequence[Task], devices: int) -> np.ndarray:
    """(tasks + 1, devices + 1): when each device, and the server, can be needed next; infinite for never again."""
    found = np.full((len(tasks) + 1, devices + 1), math.inf)
    for i in range(len(tasks) - 1, -1, -1):
        found[i] = found[i + 1]
        found[i, tasks[i].device] = found[i, -1] = tasks[i].arrival_ms
    return found
