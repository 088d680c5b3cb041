"""What `nas servers` shows, asked of real members on loopback."""

import threading

import numpy as np
from chain_members import BLOCKS, SIZES, Running, members

from runtime.chain.neighbours import Identity
from runtime.chain.overview import overview


def test_a_busy_member_shows_its_queue_without_a_metrics_address():
    busy, idle, begun, leave = Running("busy"), Running("idle", holds=(1, 2)), threading.Event(), threading.Event()
    block = busy.blocks[0]
    block.times.note(1, 50.0)
    multiply = block.run

    def held_up(x):
        begun.set()
        leave.wait()
        return multiply(x)

    block.run = held_up
    with members(busy, idle) as placement:
        x = np.zeros((1, SIZES[0]), np.float32)
        caller = threading.Thread(target=lambda: busy.engine.infer(BLOCKS[0], x, deadline_s=None))
        caller.start()
        begun.wait()
        try:
            rows = {row["name"]: row for row in overview(placement, Identity())}
        finally:
            leave.set()
            caller.join()
    assert rows["busy"]["queue_ms"] > 0
    assert rows["idle"]["queue_ms"] == 0
    assert rows["busy"]["waiting"] is None
    assert (rows["busy"]["stages"], rows["idle"]["stages"]) == ([0, 1, 2], [1, 2])


def test_a_member_that_is_not_there_has_no_queue():
    one, gone = Running("one"), Running("gone")
    with members(one, gone) as placement:
        gone.stop()
        rows = {row["name"]: row for row in overview(placement, Identity())}
    assert rows["gone"]["rtt_ms"] is None
    assert rows["gone"]["queue_ms"] is None
