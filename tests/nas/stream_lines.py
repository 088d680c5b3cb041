"""Tasks of a stream that was played for real, as they are recorded."""

from nas.field.stream.record import TaskLine


def line(number, **changes):
    fields = {
        "number": number, "device": 0, "images": 2, "deadline_ms": 100.0, "due_ms": 10.0, "arrived_ms": 10.0,
        "action": 1, "exit": 1, "cut": 1, "answered_by": "server", "why": "as planned", "in_time": True, "gain": 1.05,
        "retried": False, "began_ms": 10.0, "computed_ms": 20.0, "sent_ms": 20.0, "ended_ms": 70.0, "server_ms": 5.0,
        "plan_us": 50.0,
    } | changes  # fmt: skip
    return TaskLine(**fields)


LINES = (
    line(0),
    line(1, ended_ms=135.0, in_time=False, gain=0.0, answered_by="device", retried=True),
    line(2, answered_by="nobody", in_time=False, gain=0.0, began_ms=0.0, computed_ms=0.0, sent_ms=0.0, ended_ms=11.0),
)
