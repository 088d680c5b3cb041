import numpy as np
import pytest

from modeltree.errors import DataError
from modeltree.streams.tasks import Arrivals, Task, read_tasks


def test_arrivals_have_the_rate_the_sizes_and_the_deadlines_that_were_asked_for():
    arrivals = Arrivals(p=0.25, k=3.0, devices=4, slot_ms=2.0)
    tasks = arrivals.draw(20_000, np.random.default_rng(0))
    gaps = np.diff([task.arrival_ms for task in tasks])
    assert gaps.min() >= 2.0
    assert gaps.mean() == pytest.approx(2.0 / 0.25, rel=0.05)
    sizes = np.array([task.images for task in tasks])
    assert (sizes.min(), sizes.max()) == (1, 10)
    assert sizes.mean() == pytest.approx(5.5, abs=0.05)
    assert all(task.deadline_ms == 3.0 * 2.0 * task.images for task in tasks)
    assert np.bincount([task.device for task in tasks], minlength=4).min() > 4500


def test_our_own_csv_is_read_in_order_of_arrival(tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text("arrival_s,device,images,deadline_ms\n0.5,1,3,90\n0.25,0,10,20\n")
    assert read_tasks(path, devices=2, slot_ms=1.0) == [Task(250.0, 0, 10, 20.0), Task(500.0, 1, 3, 90.0)]
    with pytest.raises(DataError, match="line 2: device 1, 3 images"):
        read_tasks(path, devices=1, slot_ms=1.0)


def test_a_task_set_of_raycloudsim_is_laid_on_slots_and_on_1_to_10_images(tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text(
        "TaskName,GenerationTime,TaskID,TaskSize,CyclesPerBit,TransBitRate,DDL,SrcName\n"
        "t0,1.0,0,10,783,40,57,n21\nt1,2.5,1,100,113,10,60,n8\nt2,3.0,2,55,402,30,30,n21\n"
    )
    tasks = read_tasks(path, devices=2, slot_ms=10.0)
    assert tasks == [Task(10.0, 0, 1, 570.0), Task(25.0, 1, 10, 600.0), Task(30.0, 0, 6, 300.0)]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="it must have arrival_s"):
        read_tasks(path, devices=2, slot_ms=10.0)
    path.write_text("arrival_s,device,images,deadline_ms\n0.5,1,3,soon\n")
    with pytest.raises(DataError, match="line 2"):
        read_tasks(path, devices=2, slot_ms=10.0)
