"""The server's queue: first come first served or by deadlines, and how long it says that it is."""

import numpy as np
import pytest

from modeltree.errors import ConfigError
from runtime.server.engine.batch_queue import Request, Waiting
from runtime.server.engine.timing import ServiceTimes
from runtime.server.interface import Busy


class OneModel:
    """Takes two seconds an image."""

    def __init__(self):
        self.name, self.times = "m", ServiceTimes([1])
        self.times.note(1, 2.0)


def request(model, until, arrived):
    x = np.zeros((1, 1), np.float32)
    return Request(model=model, x=x, output=x.copy(), tell=lambda _: None, arrived=arrived, until=until)


@pytest.mark.parametrize(("order", "wanted"), [("fcfs", [50.0, 90.0, 20.0]), ("edf", [20.0, 50.0, 90.0])])
def test_requests_are_taken_as_they_came_or_by_deadline(order, wanted):
    waiting = Waiting(max_requests=9, max_bytes=999, workers=1, clock=lambda: 0.0, order=order)
    model = OneModel()
    for arrived, until in enumerate((50.0, 90.0, 20.0)):
        waiting.put(request(model, until, arrived))
    assert waiting.backlog_s == 6.0
    assert [waiting.take().parts[0].request.until for _ in range(3)] == wanted


def test_an_urgent_request_is_let_in_where_only_those_behind_it_are_many():
    for order, refused in (("fcfs", True), ("edf", False)):
        waiting = Waiting(max_requests=9, max_bytes=999, workers=1, clock=lambda: 0.0, order=order)
        model = OneModel()
        for _ in range(3):
            waiting.put(request(model, 100.0, 0.0))
        if refused:
            with pytest.raises(Busy, match="would take 8"):
                waiting.put(request(model, 5.0, 1.0))
        else:
            waiting.put(request(model, 5.0, 1.0))
    with pytest.raises(ConfigError, match="unknown order 'lifo'"):
        Waiting(max_requests=1, max_bytes=1, workers=1, clock=lambda: 0.0, order="lifo")
