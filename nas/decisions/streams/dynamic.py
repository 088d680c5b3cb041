"""The offline dynamic programme [Song 2021, alg. 1]: the whole stream known, tasks one after the other.

G(i, j) is the most that the first i tasks can gain if the last answer is there at time j:

    G(i, j) = max over t_i^a <= t < j of { G(i-1, j), G(i-1, t) + gain of F(D_i, j - t) },  t_i^a <= j <= t_i^a + tau_i

with F(D, t) the highest accuracy that D images can have within t, over all cuts. The state is one time: a task begins
when the one before has been answered, although its device may have been free before, so that no two tasks ever overlap.
Where they could, there are better plans (`nas.decisions.streams.exact`).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from modeltree.errors import ConfigError
from modeltree.streams.system import EPSILON_MS, StreamSystem
from modeltree.streams.tasks import Task


def dynamic_programme(system: StreamSystem, tasks: Sequence[Task], *, step_ms: float = 1.0) -> list[int]:
    """The actions of alg. 1, one a task. step_ms : of time; what a task takes is rounded up to it.

    Vectorised over j; max over t becomes a running maximum, since an exit takes the same time wherever it begins:
    O(tasks * (tau + gap) * exits) instead of the paper's O(tasks * tau^2).

    Raises
    ------
    ConfigError : the link follows a trace, or tasks are not in order of arrival.
    """
    if system.trace is not None:
        raise ConfigError("alg. 1 needs a link that stays as it is: it was given a trace")
    if any(one.arrival_ms > two.arrival_ms for one, two in itertools.pairwise(tasks)):
        raise ConfigError("tasks must be in order of arrival")
    if not tasks:
        return []
    origin_ms = tasks[0].arrival_ms
    begins = [int(np.ceil((task.arrival_ms - origin_ms) / step_ms - EPSILON_MS)) for task in tasks]
    ends = [int(np.floor((t.arrival_ms + t.deadline_ms - origin_ms) / step_ms + EPSILON_MS)) for t in tasks]
    worth = np.zeros(max(ends) + 1)  # G(i - 1, j) for every j, rising
    choices: list[np.ndarray] = []
    exits: list[list[tuple[int, int]]] = []
    for task, first, last in zip(tasks, begins, ends):
        options = _exits(system, task.images, step_ms)
        window = worth[first : last + 1]
        candidates = np.full((len(options) + 1, len(window)), -np.inf)
        candidates[0] = window
        for row, (action, takes) in enumerate(options, 1):
            if takes < len(window):
                candidates[row, takes:] = window[: len(window) - takes] + system.gains[action]
        chosen = candidates.argmax(0)
        new = candidates.max(0)
        rising = np.maximum.accumulate(new)
        at_best = np.maximum.accumulate(np.where(new >= rising, np.arange(len(new)), 0))
        choices.append(np.stack([chosen[at_best], at_best]))
        exits.append(options)
        worth[first : last + 1] = rising
        if len(rising):
            worth[last + 1 :] = np.maximum(worth[last + 1 :], rising[-1])
    return _walked_back(choices, exits, begins, ends)


def _exits(system: StreamSystem, images: int, step_ms: float) -> list[tuple[int, int]]:
    """(action, steps) of every exit by its quickest cut, quickest exit first; F(D, t) in another form."""
    total_ms = system.device_ms[images] + system.transfer_ms(images, system.mbps) + system.server_ms[images]
    found = []
    for number in range(1, int(system.table.exit.max()) + 1):
        of_exit = np.flatnonzero(system.table.exit == number)
        if of_exit.size:
            action = int(of_exit[total_ms[of_exit].argmin()])
            found.append((action, max(1, int(np.ceil(total_ms[action] / step_ms - EPSILON_MS)))))
    return sorted(found, key=lambda option: option[1])


def _walked_back(
    choices: Sequence[np.ndarray], exits: Sequence[Sequence[tuple[int, int]]], begins: Sequence[int],
    ends: Sequence[int],
) -> list[int]:  # fmt: skip
    """The plan behind the best G(M, .)."""
    plan, at = [0] * len(choices), max(ends)
    for i in range(len(choices) - 1, -1, -1):
        inside = min(at, ends[i]) - begins[i]
        if inside < 0 or not choices[i].shape[1]:
            continue
        option, ended = int(choices[i][0, inside]), begins[i] + int(choices[i][1, inside])
        at = ended
        if option:
            plan[i], takes = exits[i][option - 1]
            at = ended - takes
    return plan
