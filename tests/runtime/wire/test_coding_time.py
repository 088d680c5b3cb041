"""What coding takes: the machine's own time, or what a device takes that is played."""

import time

import numpy as np
import pytest

from runtime.wire.protocol.tensors import LOGITS, Tensor
from runtime.wire.transports import interface
from runtime.wire.transports.interface import Response, Transport


class SlowCoder(Transport):
    """Coding takes `codes_s` by a clock that nothing else moves but sleep; the answer comes at once."""

    def __init__(self, codes_s):
        self.now_s, self.codes_s = 0.0, codes_s
        super().__init__(clock=lambda: self.now_s)

    def sleep(self, seconds):
        self.now_s += seconds

    def _tensor(self, *what):
        self.now_s += self.codes_s
        return super()._tensor(*what)

    def _send(self, model, request_id, tensor, until):
        answer = Tensor.of(LOGITS, np.zeros((1, 3), np.float32))
        return Response(
            request_id=request_id, model=model, tensors=[answer], server_s=0.0, sent_bytes=9, received_bytes=9
        )

    def ready(self, timeout_s):
        raise NotImplementedError

    def describe(self, model, timeout_s):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError


@pytest.mark.parametrize(("codes_s", "least_s", "met_s"), [(0.25, 1.0, 1.0), (0.25, 0.125, 0.25), (0.25, 0.0, 0.25)])
def test_a_played_device_codes_as_long_as_it_is_told_this_machines_own_time_in_it(monkeypatch, codes_s, least_s, met_s):
    transport = SlowCoder(codes_s)
    monkeypatch.setattr(interface, "time", type("Time", (), {"sleep": transport.sleep, "monotonic": time.monotonic}))
    reply = transport.infer("rest", np.ones((1, 8), np.float32), bits=8, timeout_s=9.0, coding_s=least_s)
    assert (reply.encode_s, reply.seconds) == (met_s, 0.0)
