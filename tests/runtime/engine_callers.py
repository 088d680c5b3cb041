"""What tests of the engine ask with: images, a model whose pace they say, and waiting for what must come."""

import threading
import time

import numpy as np
from bundles import FEATURES, FROM_FOUR, FROM_IMAGE, IMAGE

from runtime.execution.bundle import Bundle
from runtime.execution.library import Library
from runtime.server.engine.timing import ServiceTimes
from runtime.server.interface import ModelInfo

SHAPES = {FROM_IMAGE: IMAGE, FROM_FOUR: FEATURES}


def images(model, count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *SHAPES[model]), np.float32)


def alone(folder, model, x):
    """What the bare library of batch 1 makes of every image."""
    bundle = Bundle.open(folder, "host")
    library = Library(
        bundle.library_path(model, target="host"), shape_in=(1, *SHAPES[model]), shape_out=(1, 2),
        runtime=bundle.runtime_path("host"), threads=1,
    )  # fmt: skip
    return np.concatenate([library.run(one[None]) for one in x])


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


class Fake:
    """Doubles every number. gate : closed, a run waits. poison : a batch with a number like that fails."""

    fingerprint: tuple = ()
    info = ModelInfo(shape_in=(2,), shape_out=(2,))
    loaded = True
    closed = False
    poison = 666.0

    def __init__(self, name="fake", batches=(1, 4), seconds=0.01, slow_s=0.0):
        self.name, self.times = name, ServiceTimes(batches)
        self.gate, self.entered, self.sizes, self.slow_s = threading.Event(), threading.Event(), [], slow_s
        self.gate.set()
        for batch in batches:
            self.times.note(batch, seconds)

    def load(self):
        pass

    def close(self):
        self.closed = True

    def run(self, x):
        self.entered.set()
        assert self.gate.wait(30)
        time.sleep(self.slow_s)
        self.sizes.append(len(x))
        if (x == self.poison).any():
            raise RuntimeError("poisoned")
        return 2 * x


def pair(value):
    return np.full((1, 2), value, np.float32)


def occupied(engine, model, callers, held=1):
    """Have the workers held up by `held` requests; the futures of these."""
    model.gate.clear()
    found = []
    for _ in range(held):
        model.entered.clear()
        found.append(callers.submit(engine.infer, model.name, pair(0.0)))
        assert model.entered.wait(10)
    return found


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        time.sleep(0.001)
