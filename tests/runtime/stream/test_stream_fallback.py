"""What the server does not answer is in time all the same: the clock moves only while the device computes."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from exits_run import CLASSES, EIGHT_BITS, END, EXIT, FIRST, REST, SECOND_EXIT, image, tree

from modeltree.streams.costs import Line
from modeltree.streams.system import Scripted, StreamSystem
from runtime.server.interface import Busy
from runtime.stream.pipeline import TaskStream
from runtime.stream.reserve import Reserve
from runtime.stream.ways import action_table, ways_of
from runtime.wire.transports.interface import Reply

BLOCKS_MS = {FIRST: 50.0, REST: 150.0, SECOND_EXIT: 50.0}


class Device:
    """Its blocks take what they are told to, on its own clock. at : number of a run -> what happens during it."""

    def __init__(self, blocks_ms):
        self.now_s, self.runs, self.at, self._blocks_ms = 0.0, 0, {}, blocks_ms
        shapes = dict.fromkeys(blocks_ms, SimpleNamespace(out_shape=(len(CLASSES),)))
        self.manifest = SimpleNamespace(tree=tree(), blocks=shapes)

    def run(self, block, x):
        self.runs += 1
        self.at.get(self.runs, lambda: None)()
        self.now_s += self.expected_s(block)
        return np.zeros((1, len(CLASSES)), np.float32)

    def expected_s(self, block):
        return self._blocks_ms[block] / 1e3

    within_s = expected_s


class Silent:
    """A server that takes everything and answers when a test says so, or refuses. transport : is never probed."""

    def __init__(self, refuses=False):
        self.refuses, self.asked, self.calls, self.transport = refuses, threading.Semaphore(0), [], None

    def why_not(self):
        return None

    def ask(self, block, x, **_):
        call = SimpleNamespace(future=Future())
        self.calls.append(call.future)
        if self.refuses:
            call.future.set_exception(Busy("told to say no"))
        self.asked.release()
        return call


@pytest.fixture
def played(monkeypatch):
    """(device, cloud, leaves of the tasks' plans) -> a stream whose table says what `BLOCKS_MS` does."""
    monkeypatch.setattr(TaskStream, "_ask", lambda self: None)

    def opened(device, cloud, *leaves):
        ways = ways_of(device.manifest.tree)
        numbers = [way.leaf for way in ways]
        nothing = [Line(k=0.0)] * len(ways)
        lines = [Line(k=sum(BLOCKS_MS[block] for block in way.blocks)) for way in ways]
        system = StreamSystem(table=action_table(ways, lines, nothing, nothing), strict=False)
        script = Scripted(actions=[1 + numbers.index(leaf) for leaf in leaves])
        return TaskStream(device, cloud, ways, system, script, clock=lambda: device.now_s)

    return opened


def leaf_of(stream, result):
    return stream.ways[result.action - 1].leaf


def test_a_task_of_a_silent_server_is_in_time_though_the_device_is_busy_far_past_its_deadline(played):
    device, cloud = Device(BLOCKS_MS), Silent()
    with played(device, cloud, EIGHT_BITS, END) as stream:
        short = stream.submit([image(0)], 1000.0)
        assert cloud.asked.acquire(timeout=30)
        long = stream.submit([image(1)] * 10, 20_000.0)  # 2 s of the device, begun before anything is due
        short, long = short.result(30), long.result(30)
    assert (short.answered_by, short.retried, short.in_time) == ("device", True, True)
    assert 0.7 < short.ended_s <= 1.0  # the server had its time, but for a block's
    assert (long.answered_by, long.in_time, long.ended_s) == ("device", True, pytest.approx(2.15))


def test_what_the_server_refuses_at_once_gets_the_best_exit_in_time_not_the_quickest(played):
    with played(Device(BLOCKS_MS), Silent(refuses=True), EIGHT_BITS, EIGHT_BITS) as stream:
        roomy = stream.submit([image(0)], 1000.0).result(30)
        tight = stream.submit([image(0)], 200.0).result(30)
    assert roomy.in_time
    assert tight.in_time
    assert (leaf_of(stream, roomy), leaf_of(stream, tight)) == (END, EXIT)


def test_an_answer_that_comes_while_the_device_makes_up_for_it_counts_as_the_servers(played):
    device, cloud = Device(BLOCKS_MS), Silent()
    reply = Reply(
        output=np.ones((1, 4), np.float32), sent_bytes=1, received_bytes=1, seconds=0.1, server_s=0.0, encode_s=0.0
    )
    with played(device, cloud, EIGHT_BITS, END) as stream:
        short = stream.submit([image(0)], 400.0)
        assert cloud.asked.acquire(timeout=30)
        device.at = {4: lambda: cloud.calls[0].set_result(reply)}  # 1: before; 2, 3: an image of the other; 4: again
        stream.submit([image(1)] * 10, 20_000.0).result(30)
        short = short.result(30)
    assert (short.answered_by, short.retried, short.in_time) == ("server", False, True)
    assert short.gain == stream.system.gains[short.action]
    assert leaf_of(stream, short) == EIGHT_BITS
    assert short.outputs.sum() == 4


def test_a_task_that_falls_behind_goes_on_with_an_exit_that_is_in_time(played):
    slow = Device(BLOCKS_MS | {REST: 250.0})
    with played(slow, None, END) as stream:
        result = stream.submit([image(0)] * 4, 890.0).result(30)
    assert result.in_time
    assert leaf_of(stream, result) == EXIT


def test_the_reserve_is_due_when_all_that_it_keeps_can_just_be_in_time():
    reserve = Reserve()
    late, early = ["late"], ["early"]
    reserve.keep(late, until_s=10.0, alone_s=3.0)
    assert reserve.wait_s(0.0) == 7.0
    reserve.keep(early, until_s=9.0, alone_s=2.5)  # 7.0 - 2.5
    assert reserve.wait_s(4.0) == 0.5
    assert reserve.due(4.0, 0.5) is None
    assert reserve.due(4.0, 0.6) is early
    assert reserve.claim(late, answered=True)
    assert not reserve.claim(early, answered=True)
    assert reserve.wait_s(0.0) == float("inf")
    reserve.keep(early, until_s=9.0, alone_s=2.0)
    assert reserve.expected_s == pytest.approx(2.0 * 0.1 * 0.9)  # one failed, then one did not
