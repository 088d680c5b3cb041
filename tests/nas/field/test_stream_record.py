"""What is counted of a stream that was played for real, and the bars of its picture."""

import math

from nas.field.stream.record import StreamRun, TaskLine, tally
from nas.report.streams import gantt_rows, sentences


def line(number, **changes):
    told = {
        "number": number, "device": 0, "images": 2, "deadline_ms": 100.0, "due_ms": 10.0, "arrived_ms": 10.0,
        "action": 1, "exit": 1, "cut": 1, "answered_by": "server", "why": "as planned", "in_time": True, "gain": 1.05,
        "retried": False, "began_ms": 10.0, "computed_ms": 20.0, "sent_ms": 20.0, "ended_ms": 70.0, "server_ms": 5.0,
        "plan_us": 50.0,
    } | changes  # fmt: skip
    return TaskLine(**told)


LINES = (
    line(0),
    line(1, ended_ms=135.0, in_time=False, gain=0.0, answered_by="device", retried=True),
    line(2, answered_by="nobody", in_time=False, gain=0.0, began_ms=0.0, computed_ms=0.0, sent_ms=0.0, ended_ms=11.0),
)


def test_every_task_is_in_time_late_or_dropped_and_only_the_first_gains():
    told = tally(StreamRun(policy="edf", lines=LINES, predicted_gain=2.1))
    assert (told.tasks, told.in_time, told.late, told.dropped) == (3, 1, 1, 1)
    assert (told.by_server, told.retried, told.gain) == (1, 1, 1.05)
    assert told.worst_lateness_ms == 135.0 - 10.0 - 100.0
    assert math.isnan(LINES[2].lateness_ms)
    assert sentences([told]) == [
        "edf gains most: 1.05 of 3 tasks, 1 in time, 1 late, 1 dropped.",
        "edf: 50.0 % of what the model foretells for the same arrivals.",
    ]


def test_the_picture_has_a_bar_for_every_stay_of_a_task():
    found = [(row["row"], row["begins_s"], row["ends_s"]) for row in gantt_rows(LINES)]
    assert found == [
        ("device 0", 0.01, 0.02), ("link 0", 0.02, 0.065), ("server", 0.065, 0.07), ("device 0", 0.01, 0.02),
    ]  # fmt: skip
