import pytest
from stream_systems import small_system

from modeltree.streams.system import Scripted, Timeline, play, total_gain
from modeltree.streams.tasks import Task

EXIT_2_LOCAL, EXIT_2_CUT, EXIT_1_LOCAL = 6, 5, 3


def test_times_are_those_of_the_paper_worked_out_by_hand():
    system = small_system()
    tasks = [Task(0.0, 0, 2, 100.0), Task(1.0, 0, 1, 100.0), Task(2.0, 1, 1, 100.0)]
    one, two, three = play(system, tasks, Scripted(actions=[EXIT_2_CUT] * 3), devices=2)
    # device 2 ms an image, link 4 ms, server 1 ms; the second waits for the device, the third for the server
    assert (one.begins_ms, one.sends_ms, one.reaches_ms, one.serves_ms, one.ends_ms) == (0, 4, 12, 12, 14)
    assert (two.begins_ms, two.sends_ms, two.reaches_ms, two.serves_ms, two.ends_ms) == (4, 6, 10, 14, 15)
    assert (three.begins_ms, three.sends_ms, three.reaches_ms, three.serves_ms, three.ends_ms) == (2, 4, 8, 15, 16)


def test_a_late_task_gains_nothing_and_one_that_is_not_run_costs_nobody_anything():
    system = small_system()
    tasks = [Task(0.0, 0, 1, 9.0), Task(0.0, 0, 1, 15.0)]
    late, behind = play(system, tasks, Scripted(actions=[EXIT_2_LOCAL, EXIT_1_LOCAL]), devices=1)
    assert (late.gain, late.late, late.ends_ms) == (0.0, True, 10.0)
    assert behind.ends_ms == 12.0
    _, alone = play(system, tasks, Scripted(actions=[0, EXIT_2_LOCAL]), devices=1)
    assert alone.ends_ms == 10.0
    assert alone.gain == system.gains[EXIT_2_LOCAL] == total_gain([alone])


def test_the_strict_server_keeps_the_order_of_tasks_and_the_real_one_that_of_their_coming():
    tasks = [Task(0.0, 0, 10, 1000.0), Task(1.0, 1, 1, 1000.0)]
    for strict, ends_ms in ((True, 70.0 + 1.0), (False, 8.0)):
        played = play(small_system(strict=strict), tasks, Scripted(actions=[EXIT_2_CUT] * 2), devices=2)
        assert played[0].ends_ms == 20.0 + 40.0 + 10.0
        assert played[1].ends_ms == ends_ms


def test_a_real_device_sends_one_task_after_the_other():
    system = small_system(strict=False)
    tasks = [Task(0.0, 0, 5, 1000.0), Task(0.0, 0, 1, 1000.0)]
    one, two = play(system, tasks, Scripted(actions=[4, 4]), devices=1)  # the images: 20 ms each
    assert one.reaches_ms == 100.0
    assert two.reaches_ms == 120.0


@pytest.mark.parametrize("strict", [True, False])
def test_what_a_planner_sees_of_its_actions_is_what_comes_of_them(strict):
    system = small_system(strict=strict)
    timeline = Timeline(system, 2)
    timeline.step_(Task(0.0, 0, 4, 500.0), EXIT_2_LOCAL)
    timeline.step_(Task(0.0, 0, 2, 500.0), EXIT_2_CUT)
    task = Task(3.0, 0, 3, 500.0)
    foreseen = system.finish_ms(timeline.observe(task))
    for action in range(1, len(system.table)):
        again = Timeline(system, 2)
        again.step_(Task(0.0, 0, 4, 500.0), EXIT_2_LOCAL)
        again.step_(Task(0.0, 0, 2, 500.0), EXIT_2_CUT)
        played = again.step_(task, action)
        assert foreseen[action] == pytest.approx(played.ends_ms - task.arrival_ms)
