"""What is counted of a stream that was played for real, and the bars of its picture."""

import math

from stream_lines import LINES

from nas.field.stream.record import StreamRun, tally
from nas.report.streams import gantt_rows, sentences


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
