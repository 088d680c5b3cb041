"""The offline dynamic programme [Song 2021, alg. 1]: the whole stream known, tasks one after the other.

G(i, j) is the most that the first i tasks can gain if the last answer is there at time j:

    G(i, j) = max over t_i^a <= t < j of { G(i-1, j), G(i-1, t) + gain of F(D_i, j - t) },  t_i^a <= j <= t_i^a + tau_i

with F(D, t) the highest accuracy that D images can have within t, over all cuts. The state is one time: a task begins
when the one before has been answered, although its device may have been free before, so that no two tasks ever overlap.
Where they could, there are better plans (`nas.decisions.streams.exact`). On a link that changes F depends on when the
task begins, too; the rest stays as it is.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError
from modeltree.streams.system import EPSILON_MS, StreamSystem
from modeltree.streams.tasks import Task


class _Way(NamedTuple):
    """An exit of a task, by the cut that is answered first. actions : (begins,), for a beginning in every step of its
    window. begins : (ends,), the last step of the window from which it is answered in this one; -1 where from none."""

    actions: np.ndarray
    begins: np.ndarray


def dynamic_programme(system: StreamSystem, tasks: Sequence[Task], *, step_ms: float = 1.0) -> list[int]:
    """The actions of alg. 1, one a task. step_ms : of time; what a task takes is rounded up to it.

    Vectorised over j; as G rises with t, only the last beginning that is answered at j counts:
    O(tasks * (tau + gap) * exits) instead of the paper's O(tasks * tau^2).

    Raises
    ------
    ConfigError : tasks are not in order of arrival.
    """
    if any(one.arrival_ms > two.arrival_ms for one, two in itertools.pairwise(tasks)):
        raise ConfigError("tasks must be in order of arrival")
    if not tasks:
        return []
    origin_ms = tasks[0].arrival_ms
    begins = [int(np.ceil((task.arrival_ms - origin_ms) / step_ms - EPSILON_MS)) for task in tasks]
    ends = [int(np.floor((t.arrival_ms + t.deadline_ms - origin_ms) / step_ms + EPSILON_MS)) for t in tasks]
    worth = np.zeros(max(ends) + 1)  # G(i - 1, j) for every j, rising
    choices: list[np.ndarray] = []
    ways: list[list[_Way]] = []
    for task, first, last in zip(tasks, begins, ends):
        window = worth[first : last + 1]
        options = _ways(system, task.images, origin_ms + step_ms * np.arange(first, last + 1), step_ms)
        candidates = np.full((len(options) + 1, len(window)), -np.inf)
        candidates[0] = window
        for row, way in enumerate(options, 1):
            there = np.flatnonzero(way.begins >= 0)
            began = way.begins[there]
            candidates[row, there] = window[began] + system.gains[way.actions[began]]
        chosen = candidates.argmax(0)
        new = candidates.max(0)
        rising = np.maximum.accumulate(new)
        at_best = np.maximum.accumulate(np.where(new >= rising, np.arange(len(new)), 0))
        choices.append(np.stack([chosen[at_best], at_best]))
        ways.append(options)
        worth[first : last + 1] = rising
        if len(rising):
            worth[last + 1 :] = np.maximum(worth[last + 1 :], rising[-1])
    return _walked_back(choices, ways, begins, ends)


def _ways(system: StreamSystem, images: int, begins_ms: np.ndarray, step_ms: float) -> list[_Way]:
    """Every exit, quickest first; F(D, t) in another form. begins_ms : (begins,), moments of the stream's clock."""
    steps = len(begins_ms)
    if not steps:
        return []
    moments_ms = begins_ms if system.trace is not None else begins_ms[:1]  # a steady link is the same at all
    device_ms = system.device_ms[images]
    crosses_ms = system.crosses_ms(system.sent_bytes[images], moments_ms[:, None] + device_ms)
    total_ms = device_ms + crosses_ms + system.server_ms[images]  # (moments, actions)
    found = []
    for number in range(1, int(system.table.exit.max()) + 1):
        of_exit = np.flatnonzero(system.table.exit == number)
        if of_exit.size:
            quickest = total_ms[:, of_exit].argmin(1)
            takes_ms = np.take_along_axis(total_ms[:, of_exit], quickest[:, None], 1)[:, 0]
            takes = np.maximum(1, np.ceil(takes_ms / step_ms - EPSILON_MS).astype(np.int64))
            answered = np.arange(steps) + takes  # never earlier for what begins later
            began = np.flatnonzero(answered < steps)
            last_begin = np.full(steps, -1)
            last_begin[answered[began]] = began  # of several the last stays
            found.append((int(takes.min()), _Way(np.broadcast_to(of_exit[quickest], steps), last_begin)))
    return [way for _, way in sorted(found, key=lambda option: option[0])]


def _walked_back(
    choices: Sequence[np.ndarray], ways: Sequence[Sequence[_Way]], begins: Sequence[int], ends: Sequence[int]
) -> list[int]:
    """The plan behind the best G(M, .)."""
    plan, at = [0] * len(choices), max(ends)
    for i in range(len(choices) - 1, -1, -1):
        inside = min(at, ends[i]) - begins[i]
        if inside < 0 or not choices[i].shape[1]:
            continue
        option, ended = int(choices[i][0, inside]), int(choices[i][1, inside])
        at = begins[i] + ended
        if option:
            way = ways[i][option - 1]
            began = int(way.begins[ended])
            plan[i] = int(way.actions[began])
            at = begins[i] + began
    return plan
