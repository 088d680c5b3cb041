"""A small real engine, and a process that serves it: `served_function.py grpc|rest [port]` prints its port."""

import sys
import time

import numpy as np

from modeltree.errors import NasError
from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.interface import Answer, Busy, Draining, ModelInfo, UnknownModel

SHAPE_IN, CLASSES = (3, 4, 4), 5
WEIGHTS = np.random.default_rng(3).standard_normal((CLASSES, 48)).astype(np.float32)
NAMES = ("dense", "image", "slow", "busy", "draining", "broken", "bug", "nan", "wide", "short", "large")
LIMIT_BYTES = 2**20


def dense(x):
    return x.reshape(len(x), -1) @ WEIGHTS.T


class FunctionEngine:
    """A dense layer under several names, some of which misbehave. `slow` takes two seconds."""

    def __init__(self):
        self.models = {name: ModelInfo(shape_in=SHAPE_IN, shape_out=(CLASSES,)) for name in NAMES}
        self.models["image"] = ModelInfo(shape_in=SHAPE_IN, shape_out=(CLASSES,), mean=(0.5,) * 3, std=(0.25,) * 3)
        self.models["large"] = ModelInfo(shape_in=(2**20,), shape_out=(1,))

    def ready(self):
        return True

    def infer(self, model, x, *, deadline_s):
        failures = {
            "busy": Busy("the queue is full"), "draining": Draining("shutting down"),
            "broken": NasError("its library failed"), "bug": RuntimeError("secret detail"),
            "vanished": UnknownModel("gone"),
        }  # fmt: skip
        if model in failures:
            raise failures[model]
        if model == "slow":
            time.sleep(2)
        y = dense(x)
        if model == "nan":
            y[0, 0] = np.nan
        return Answer(output={"wide": y[:, :3], "short": y[:0]}.get(model, y), seconds=0.0)


def front(kind, *, port=0, admission=None, tls=None):
    admission = admission or Admission(Limits(max_message_bytes=LIMIT_BYTES))
    if kind == "grpc":
        from runtime.server.fronts.grpc_front import GrpcFront as Front
    else:
        from runtime.server.fronts.rest_front import RestFront as Front
    return Front(
        RequestHandler(FunctionEngine(), max_bytes=admission.limits.max_message_bytes), admission, port=port, tls=tls
    )


if __name__ == "__main__":
    served = front(sys.argv[1], port=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    served.start()
    sys.stdout.write(f"{served.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    served.stop(1.0)
