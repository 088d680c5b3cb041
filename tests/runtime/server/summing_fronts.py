"""Both fronts before an engine that adds up, and how they are asked."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.grpc_front import GrpcFront
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.fronts.rest_front import RestFront
from runtime.server.interface import Answer, ModelInfo
from runtime.wire.transports import open_transport

FRONTS = {"grpc": GrpcFront, "http": RestFront}
BOTH = pytest.mark.parametrize("scheme", FRONTS)
X = np.ones((1, 3), np.float32)


class Summing:
    """Adds up; `gate` holds it back, `left` is the deadline that it was given last."""

    def __init__(self):
        self.models = {"sum": ModelInfo(shape_in=(3,), shape_out=(1,))}
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Semaphore(0)
        self.left = None
        self.is_ready = True

    def ready(self):
        return self.is_ready

    def infer(self, model, x, *, deadline_s):
        self.left = deadline_s
        self.waiting.release()
        assert self.gate.wait(10)
        return Answer(output=x.sum(1, keepdims=True), seconds=0.0)


@contextlib.contextmanager
def served(scheme, *, engine=None, tls=None, token=None, **limits):
    admission = Admission(Limits(**limits), token=token)
    front = FRONTS[scheme](RequestHandler(engine or Summing()), admission, tls=tls)
    front.start()
    try:
        yield f"{scheme}{'s' if tls else ''}://127.0.0.1:{front.port}"
    finally:
        front.stop(1.0)


def ask(url, timeout_s=5.0, **options):
    with open_transport(url, **options) as transport:
        return transport.infer("sum", X, bits=32, timeout_s=timeout_s).output.item()


def said(url, *parts, pause_s=0.0):
    """What the server says to raw bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as sock:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
                time.sleep(pause_s)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer += data
        return answer


POST = b"POST /v2/models/sum/infer HTTP/1.1\r\n"
