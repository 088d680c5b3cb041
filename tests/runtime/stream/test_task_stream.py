"""Tasks with deadlines through real libraries and a real server; what became of them, whatever happened."""

import asyncio
import threading
import time

import numpy as np
import pytest
from exits_run import EIGHT_BITS, END, answered, compiled, image
from in_process_transport import InProcessTransport

from modeltree.errors import ConfigError, DataError
from modeltree.streams.costs import Line
from modeltree.streams.system import StreamSystem
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Cloud
from runtime.server.interface import Answer, Busy, ModelInfo
from runtime.server.serving import ServeConfig, Server
from runtime.session import Session
from runtime.stream.pipeline import MOST_WAITING, TaskStream
from runtime.stream.planners import BestFit
from runtime.stream.task_queue import TaskQueue
from runtime.stream.ways import action_table, ways_of

LONG_MS = 20_000.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="module")
def device(bundle):
    made = Device(Bundle.open(bundle), threads=1)
    made.warm_up()
    return made


class Held:
    """A server that answers every request when it is let, or says no."""

    def __init__(self, device, fails=False):
        self.let, self.asked, self.fails = threading.Event(), threading.Semaphore(0), fails
        self._blocks = device.manifest.blocks
        self._device = device

    @property
    def models(self):
        return {name: ModelInfo(shape_in=e.in_shape, shape_out=e.out_shape) for name, e in self._blocks.items()}

    def infer(self, model, x, *, deadline_s=None):
        self.asked.release()
        self.let.wait(30)
        if self.fails:
            raise Busy("told to say no")
        output = np.concatenate([self._device.library(model).run(one[None]) for one in x])
        return Answer(output=output, seconds=0.0)

    def ready(self):
        return True


class Waiting:
    """A device that runs no block before it is let."""

    def __init__(self, device):
        self.let, self._device = threading.Event(), device

    def __getattr__(self, name):
        return getattr(self._device, name)

    def run(self, block, x):
        self.let.wait(30)
        return self._device.run(block, x)


class Always:
    """Chooses one leaf of the tree."""

    def __init__(self, ways, leaf):
        self.action = 1 + [way.leaf for way in ways].index(leaf)

    def choose(self, observation):
        return self.action


def stream_of(device, engine, leaf=None, device_ms=1.0, **told):
    ways = ways_of(device.manifest.tree)
    lines = [Line(k=device_ms * len(way.blocks)) for way in ways]
    table = action_table(
        ways, lines, [Line(k=0.1)] * len(ways), [Line(k=0.0 if w.handover is None else 10.0) for w in ways]
    )
    system = StreamSystem(table=table, strict=False)
    cloud = None
    if engine is not None:
        tree = device.manifest.tree
        watch = LinkWatch(tree.types, rtt_ms=tree.rtt_ms)
        cloud = Cloud(InProcessTransport(engine), watch, Breaker(time.perf_counter, None), time.perf_counter)
    planner = BestFit(system=system) if leaf is None else Always(ways, leaf)
    return TaskStream(device, cloud, ways, system, planner, **told)


def close(outputs, leaf, images):
    wanted = np.stack([answered(leaf, one) for one in images])
    return np.abs(outputs - wanted).max() <= 1e-3 * max(1.0, np.abs(wanted).max())


def test_a_session_answers_tasks_over_a_server_as_torch_does(bundle):
    images = [image(seed) for seed in range(3)]
    with (
        Server(ServeConfig(bundle=bundle, listen=("grpc://127.0.0.1:0",), order="edf")) as server,
        Session.open(bundle, server=server.urls[0]) as session,
    ):
        results = [session.submit(images[:n], LONG_MS).result(30) for n in (1, 2, 3)]
        results.append(asyncio.run(session.asubmit(images, LONG_MS)))
        with pytest.raises(ConfigError, match="has a stream already"):
            session.open_stream(planner="greedy")
    for result, count in zip(results, (1, 2, 3, 3)):
        assert result.in_time
        assert result.gain > 1.0
        assert result.outputs.shape == (count, 4)
        assert close(result.outputs, END if result.answered_by == "device" else EIGHT_BITS, images[:count])


def test_while_the_server_has_one_task_the_device_computes_the_next(device):
    engine = Held(device)
    with stream_of(device, engine, EIGHT_BITS) as stream:
        one, two = stream.submit([image(0)], LONG_MS), stream.submit([image(1)], LONG_MS)
        for _ in range(2):
            assert engine.asked.acquire(timeout=30)  # both are there, and none is answered
        engine.let.set()
        for future, seed in ((one, 0), (two, 1)):
            assert future.result(30).answered_by == "server"
            assert close(future.result().outputs, EIGHT_BITS, [image(seed)])


def test_what_the_server_does_not_answer_is_answered_here(device):
    engine = Held(device, fails=True)
    engine.let.set()
    with stream_of(device, engine, EIGHT_BITS) as stream:
        results = [stream.submit([image(seed)], LONG_MS).result(30) for seed in range(3)]
    for seed, result in enumerate(results):
        assert result.answered_by == "device"
        assert result.in_time
        assert "server" in result.why
        assert close(result.outputs, END, [image(seed)])
    assert results[0].retried


def test_a_task_that_cannot_be_in_time_is_not_run_and_one_of_too_many_images_is_refused(device):
    with stream_of(device, None, device_ms=50.0) as stream:
        result = stream.submit([image(0)], 10.0).result(30)
        assert (result.answered_by, result.outputs, result.gain, result.in_time) == ("nobody", None, 0.0, False)
        with pytest.raises(DataError, match="1 to 10"):
            stream.submit([image(0)] * 11, LONG_MS)
        with pytest.raises(DataError, match="image"):
            stream.submit([np.zeros(5, np.float32)], LONG_MS)


def test_best_fit_takes_the_exit_that_is_in_time_behind_what_waits(device):
    waiting = Waiting(device)
    with stream_of(waiting, None, device_ms=50.0) as stream:
        results = [stream.submit([image(0)], 170.0) for _ in range(20)]
        waiting.let.set()
        told = [future.result(30) for future in results]
    assert {result.answered_by for result in told} == {"device", "nobody"}  # three fit, at 50 or 100 ms each
    assert sum(result.outputs is not None for result in told) <= 3


def test_no_more_tasks_wait_than_are_allowed_and_every_one_has_a_result(device):
    with stream_of(device, None, device_ms=0.001) as stream:
        futures = [stream.submit([image(i % 5)] * 10, LONG_MS) for i in range(3 * MOST_WAITING)]
        results = [future.result(60) for future in futures]
    assert all(result.answered_by in ("device", "nobody") for result in results)
    assert all(close(r.outputs[:1], END, [image(i % 5)]) for i, r in enumerate(results) if r.outputs is not None)


def test_a_closed_stream_leaves_no_thread(device):
    before = threading.active_count()
    stream = stream_of(device, None)
    stream.submit([image(0)], LONG_MS)
    stream.close()
    assert threading.active_count() == before


def test_the_queue_is_taken_in_order_of_coming_or_of_deadlines():
    for order, wanted in (("fcfs", "cab"), ("edf", "bca")):
        queue = TaskQueue(order)
        for item, until_s in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
            queue.put(item, until_s, 1.0, first=item == "c" and order == "fcfs")
        assert "".join(queue.take(0.1) for _ in range(3)) == wanted
    queue.put("x", 5.0, 2.0)
    queue.put("y", 1.0, 3.0)
    assert queue.before_s(2.0) == 3.0  # only y is earlier
    with pytest.raises(ConfigError, match="unknown order"):
        TaskQueue("lifo")
