"""The dynamic programme and the exact optimum against every plan there is; planners beside them."""

import itertools

import numpy as np
import pytest
from stream_systems import changing_link, small_system

from modeltree.streams.system import Scripted, play, total_gain
from modeltree.streams.tasks import Arrivals, Task
from nas.decisions.streams.dynamic import dynamic_programme
from nas.decisions.streams.exact import exact, upper_bound
from runtime.stream.planners import PLANNERS
from runtime.stream.rolling import RollingHorizon


def gain_of(system, tasks, actions, devices):
    return total_gain(play(system, tasks, Scripted(actions=list(actions)), devices=devices))


def best_of_all(system, tasks, devices):
    every = itertools.product(range(len(system.table)), repeat=len(tasks))
    return max(gain_of(system, tasks, plan, devices) for plan in every)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("trace", [None, changing_link()], ids=["steady", "changing"])
def test_the_exact_optimum_is_the_best_of_every_plan(seed, devices, trace):
    system = small_system(server_ms=4.0, trace=trace)
    tasks = Arrivals(p=0.5, k=1.0, devices=devices, slot_ms=6.0).draw(4, np.random.default_rng(seed))
    found = exact(system, tasks, devices=devices)
    assert found.proven
    assert found.gain == pytest.approx(best_of_all(system, tasks, devices), abs=1e-9)
    assert gain_of(system, tasks, found.actions, devices) == pytest.approx(found.gain, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("trace", [None, changing_link()], ids=["steady", "changing"])
def test_the_bound_of_a_real_system_is_above_every_plan(seed, trace):
    system = small_system(strict=False, server_ms=4.0, trace=trace)
    tasks = Arrivals(p=0.5, k=1.0, devices=2, slot_ms=6.0).draw(4, np.random.default_rng(seed))
    assert upper_bound(system, tasks, devices=2) >= best_of_all(system, tasks, 2) - 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_algorithm_1_is_exact_where_no_two_tasks_can_overlap(seed):
    """One device, and a link so slow that nothing leaves it in time: a task begins when the one before has ended."""
    system = small_system(mbps=0.0001)
    system = type(system)(table=system.table, mbps=0.0001, strict=True)
    tasks = Arrivals(p=0.4, k=1.0, devices=1, slot_ms=8.0).draw(7, np.random.default_rng(seed))
    plan = dynamic_programme(system, tasks, step_ms=1.0)
    assert gain_of(system, tasks, plan, 1) == pytest.approx(exact(system, tasks, devices=1).gain, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_algorithm_1_on_a_changing_link_is_the_best_plan_in_which_no_two_tasks_overlap(seed):
    """Against every plan in turn; arrivals, times and the link's changes are whole steps but for what is sent."""
    system = small_system(trace=changing_link())
    tasks = Arrivals(p=0.3, k=1.5, devices=1, slot_ms=8.0).draw(5, np.random.default_rng(seed))
    best = max(one_after_the_other(system, tasks, plan) for plan in itertools.product(range(7), repeat=len(tasks)))
    plan = dynamic_programme(system, tasks, step_ms=0.01)
    assert gain_of(system, tasks, plan, 1) >= best - 1e-9
    assert one_after_the_other(system, tasks, plan) == pytest.approx(best, abs=1e-9)


def one_after_the_other(system, tasks, plan):
    """What a plan gains if a task begins when the one before has been answered; -1 for a late one."""
    gain, free_ms = 0.0, 0.0
    for task, action in zip(tasks, plan, strict=True):
        if action:
            sends_ms = max(task.arrival_ms, free_ms) + system.device_ms[task.images, action]
            sent_ms = system.trace.transfer_ms(system.sent_bytes[task.images, action], sends_ms / 1e3)
            free_ms = sends_ms + sent_ms + system.server_ms[task.images, action]
            if free_ms > task.arrival_ms + task.deadline_ms + 1e-6:
                return -1.0
            gain += system.gains[action]
    return gain


def test_algorithm_1_forgets_that_devices_work_side_by_side():
    system = small_system(mbps=0.0001)
    tasks = [Task(0.0, device, 2, 21.0) for device in range(2)]  # exit 2 takes 20 ms on either device
    plan = dynamic_programme(system, tasks)
    best = exact(system, tasks, devices=2)
    assert best.gain == pytest.approx(2 * system.gains[6])
    assert gain_of(system, tasks, plan, 2) < best.gain


@pytest.mark.parametrize("seed", range(5))
def test_no_solver_beats_the_exact_optimum_and_all_but_two_keep_their_deadlines(seed):
    system, arrivals = small_system(server_ms=3.0), Arrivals(p=0.4, k=1.2, devices=3, slot_ms=5.0)
    tasks = arrivals.draw(60, np.random.default_rng(seed))
    best = exact(system, tasks, devices=3).gain
    planners = {name: make(system) for name, make in PLANNERS.items()}
    planners["rolling"] = RollingHorizon(system, arrivals)
    planners["dp"] = Scripted(actions=dynamic_programme(system, tasks))
    for name, planner in planners.items():
        played = play(system, tasks, planner, devices=3)
        assert total_gain(played) <= best + 1e-9
        if name not in ("greedy", "random"):
            assert not any(one.late for one in played)


def test_the_rolling_horizon_keeps_room_for_the_next_task_where_best_fit_does_not():
    system, arrivals = small_system(mbps=0.0001), Arrivals(p=0.5, k=2.0, devices=1, slot_ms=5.5)
    gains = {"edf": 0.0, "rolling": 0.0}
    for seed in range(4):
        tasks = arrivals.draw(100, np.random.default_rng(seed))
        for name in gains:
            planner = RollingHorizon(system, arrivals) if name == "rolling" else PLANNERS[name](system)
            gains[name] += total_gain(play(system, tasks, planner, devices=1))
    assert gains["rolling"] > 1.05 * gains["edf"]
