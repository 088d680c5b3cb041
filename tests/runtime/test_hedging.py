"""Whose answer counts: races between the cloud and the rest here, deadlines, and forks that stay. Events, not clocks.

Every block and the cloud answer with a number of their own, so that an answer tells whose it is.
"""

import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from forked_run import FIRST, FROM_IMAGE, IMAGE, SECOND, tree

from modeltree.errors import NasError
from runtime.bandwidth import ProbePolicy
from runtime.inference import hedging
from runtime.options import SessionOptions
from runtime.remote.circuit_breaker import Breaker
from runtime.selection.branch_selection import BySwitch
from runtime.session import Session
from runtime.wire.transports import Refused, Reply, TimedOut, Unreachable

TAGS = {FIRST: 1.0, SECOND: 2.0, FROM_IMAGE: 3.0}
CLOUD_TAG = 100.0
"""The cloud answers with it and the number of its call."""
FAST, SLOW = 1, 0
IMAGE_ = np.zeros(IMAGE, np.float32)
AGES_S = 20.0
PATIENCE_S = 30.0
"""Nothing here takes that long; what waits for it would never end."""


class FakeDevice:
    """Blocks that the test holds back, and that claim to take as long as it says."""

    def __init__(self):
        self.manifest = SimpleNamespace(
            tree=tree(), blocks={name: SimpleNamespace(out_shape=(4,)) for name in TAGS}
        )  # fmt: skip
        self.takes_s = dict.fromkeys(TAGS, 0.0)
        self.ran, self.started, self.go, self.trouble = [], threading.Event(), threading.Event(), None
        self.go.set()

    def entering(self, image):
        return image[None], None

    def least_coding_s(self, handover):
        return 0.0

    def expected_s(self, block):
        return self.takes_s[block]

    def within_s(self, block):
        return self.takes_s[block]

    def run(self, block, x):
        self.ran.append(block)
        self.started.set()
        assert self.go.wait(PATIENCE_S)
        if self.trouble:
            raise self.trouble
        return np.full((1, 4), TAGS[block], np.float32)


class FakeTransport:
    """Answers when the test lets it; `go` holds for every call, or `gates` for one by its number."""

    frames = True

    def __init__(self):
        self.asked, self.answered = [], threading.Semaphore(0)
        self.go, self.gates, self.trouble, self.seconds = threading.Event(), {}, None, 1e-3
        self.coded_s = 0.0
        self.go.set()
        self._lock = threading.Lock()

    def infer(self, model, x, *, bits, timeout_s, shape_out, coding_s):
        with self._lock:
            number = len(self.asked)
            self.asked.append(model)
        try:
            if not self.gates.get(number, self.go).wait(timeout_s):
                raise TimedOut("nothing in time")
            if self.trouble:
                raise self.trouble
            output = np.full((1, *shape_out), CLOUD_TAG + number, np.float32)
            return Reply(
                output=output, encode_s=self.coded_s, sent_bytes=100, received_bytes=10, seconds=self.seconds,
                server_s=0.0,
            )  # fmt: skip
        finally:
            self.answered.release()

    def close(self):
        self.go.set()
        for gate in self.gates.values():
            gate.set()


class FakeLink:
    def __init__(self):
        self.type, self.expected, self.given_up = FAST, None, 0

    def bandwidth_type(self):
        return self.type, 10.0

    def observe(self, exchange, *, finished=True):
        self.given_up += not finished

    def expected_s(self, size_bytes):
        return self.expected


def opened(*, served=True, **options):
    device, link, transport = FakeDevice(), FakeLink(), FakeTransport()
    told = SessionOptions(**{"timeout_s": PATIENCE_S} | options)
    return Session(device, link, transport if served else None, told, rng=random.Random(0)), device, link, transport  # type: ignore[arg-type]


def tag(result):
    return float(result.output[0])


def settled(session):
    """No call is under way any more."""
    while session.cloud.calls:
        time.sleep(1e-3)


def race(device, *, left_s=AGES_S):
    """A deadline that leaves the rest here no time to lose, so that both start at once."""
    device.takes_s[FROM_IMAGE] = 2 * left_s
    return {"deadline_ms": 1e3 * left_s}


def test_when_the_rest_here_needs_all_the_time_left_both_run_and_the_cloud_may_win():
    session, device, _, transport = opened()
    transport.go = device.started  # the cloud answers once the device has begun, which then never ends
    device.go.clear()
    with session:
        result = session.infer(IMAGE_, **race(device))
        assert (result.answered_by, tag(result), result.met) == ("cloud", CLOUD_TAG, True)
        assert "also begun here" in result.why
        device.go.set()


def test_when_the_rest_here_needs_all_the_time_left_both_run_and_the_device_may_win():
    session, device, _, transport = opened()
    transport.go.clear()
    with session:
        result = session.infer(IMAGE_, **race(device))
        assert (result.answered_by, tag(result), result.met) == ("device", TAGS[FROM_IMAGE], True)
        assert transport.asked == [FROM_IMAGE]


def test_an_answer_that_is_overdue_starts_the_rest_here_without_any_deadline():
    session, _, link, transport = opened()
    with session:
        assert session.infer(IMAGE_).answered_by == "cloud"  # now the server's time is known
        transport.go, link.expected = threading.Event(), 1e-3
        result = session.infer(IMAGE_)
        assert (result.answered_by, tag(result)) == ("device", TAGS[FROM_IMAGE])
        assert "no answer within" in result.why


def test_what_coding_takes_makes_no_answer_overdue():
    session, _, link, transport = opened()
    transport.coded_s, link.expected = AGES_S, 1e-3
    with session:
        session.infer(IMAGE_)
        gate = transport.gates[1] = threading.Event()
        threading.Timer(0.05, gate.set).start()
        assert session.infer(IMAGE_).answered_by == "cloud"


def test_while_an_answer_is_overdue_the_server_is_not_asked_again():
    session, _, link, transport = opened()
    late = transport.gates[1] = threading.Event()
    with session:
        session.infer(IMAGE_)
        link.expected = 1e-3
        assert "no answer within" in session.infer(IMAGE_).why
        link.expected = AGES_S
        result = session.infer(IMAGE_)
        assert (result.answered_by, len(transport.asked)) == ("device", 2)
        assert result.why.endswith("an answer of the server is overdue")
        late.set()
        settled(session)
        assert session.infer(IMAGE_).answered_by == "cloud"


def test_what_a_driver_would_rather_do_here_is_not_sent():
    class Here(BySwitch):
        def goes_on_here(self, end, seen):
            return True

    device, transport = FakeDevice(), FakeTransport()
    told = SessionOptions(timeout_s=PATIENCE_S)
    with Session(device, FakeLink(), transport, told, driver=Here(tree())) as session:  # type: ignore[arg-type]
        result = session.infer(IMAGE_)
    assert (result.answered_by, device.ran, transport.asked) == ("device", [FROM_IMAGE], [])
    assert result.why.endswith("to go on here is faster")


def test_of_a_server_that_never_answered_the_tree_says_when_it_is_overdue(monkeypatch):
    monkeypatch.setattr(hedging, "UNMET_S", 0.01)
    session, device, _, transport = opened(timeout_s=AGES_S)
    transport.go.clear()
    with session:
        assert session.infer(IMAGE_).answered_by == "device"
        assert (device.ran, session.cloud.calls) == ([FROM_IMAGE], 1)


def test_an_answer_that_is_not_overdue_yet_is_waited_for():
    session, device, link, _ = opened()
    with session:
        session.infer(IMAGE_)
        link.expected = AGES_S
        result = session.infer(IMAGE_)
    assert (result.answered_by, device.ran) == ("cloud", [])


@pytest.mark.parametrize("fate", ["answers late", "fails late"])
def test_a_cloud_that_lost_a_race_does_not_spoil_the_next_inference(fate):
    session, device, _, transport = opened()
    late = transport.gates[0] = threading.Event()
    with session:
        assert session.infer(IMAGE_, **race(device)).answered_by == "device"
        transport.trouble = Unreachable("broken") if fate == "fails late" else None
        late.set()
        assert transport.answered.acquire(timeout=PATIENCE_S)
        settled(session)
        transport.trouble = None
        session.cloud.breaker = Breaker(session.clock, random.Random(0))
        result = session.infer(IMAGE_)
        assert (result.answered_by, tag(result)) == ("cloud", CLOUD_TAG + 1)


def test_a_cloud_that_fails_in_a_race_leaves_the_devices_answer():
    session, device, _, transport = opened()
    transport.go, transport.trouble = device.started, Refused("no")
    with session:
        assert tag(session.infer(IMAGE_, **race(device))) == TAGS[FROM_IMAGE]


def test_a_device_that_fails_in_a_race_leaves_the_clouds_answer():
    session, device, _, transport = opened()
    device.trouble, transport.go = NasError("the block is broken"), device.started
    with session:
        assert tag(session.infer(IMAGE_, **race(device))) == CLOUD_TAG


def test_where_both_fail_in_a_race_the_devices_error_is_told():
    session, device, _, transport = opened()
    device.trouble, transport.trouble, transport.go = NasError("the block is broken"), Refused("no"), device.started
    with session, pytest.raises(NasError, match="the block is broken"):
        session.infer(IMAGE_, **race(device))


def test_without_hedging_the_call_is_given_up_and_only_then_the_rest_runs_here():
    session, device, link, transport = opened(hedge=False, timeout_s=0.05)
    transport.go.clear()
    with session:
        result = session.infer(IMAGE_)
        assert (result.answered_by, tag(result)) == ("device", TAGS[FROM_IMAGE])
        assert result.why.startswith("went on here at place 0: the cloud did not answer")
        assert device.ran == [FROM_IMAGE]
        assert (session.cloud.breaker.failures, link.given_up) == (1, 1)


def test_without_hedging_an_overdue_answer_is_waited_for():
    session, device, link, transport = opened(hedge=False)
    with session:
        session.infer(IMAGE_)
        link.expected, gate = 1e-6, threading.Event()
        transport.gates[1] = gate
        threading.Timer(0.05, gate.set).start()
        assert session.infer(IMAGE_).answered_by == "cloud"
    assert device.ran == []


@pytest.mark.parametrize("mode", ["prefer-cloud", "prefer-device"])
@pytest.mark.parametrize("hedge", [True, False])
def test_a_deadline_that_the_device_alone_cannot_keep_races_both(mode, hedge):
    session, device, _, transport = opened(mode=mode, hedge=hedge)
    device.takes_s |= {FIRST: AGES_S, SECOND: AGES_S}
    transport.go = device.started
    device.go.clear()
    with session:
        result = session.infer(IMAGE_, **race(device))
        assert (result.answered_by, result.met, device.ran) == ("cloud", True, [FROM_IMAGE])
        device.go.set()


@pytest.mark.parametrize("deadline_ms", [None, 1e3 * AGES_S])
def test_prefer_device_does_not_ask_while_there_is_time(deadline_ms):
    session, _, _, transport = opened(mode="prefer-device")
    with session:
        result = session.infer(IMAGE_, deadline_ms=deadline_ms)
    assert (result.nodes, tag(result), transport.asked) == ((0, 2), TAGS[SECOND], [])
    assert "mode prefer-device" in result.why


def test_prefer_device_counts_the_time_of_the_forks_that_it_would_take():
    """The rest behind the image would be quick, but it is not where the device goes alone."""
    session, device, _, _ = opened(mode="prefer-device")
    device.takes_s = {FIRST: AGES_S, SECOND: AGES_S, FROM_IMAGE: 0.0}
    with session:
        assert session.infer(IMAGE_, deadline_ms=1.5e3 * AGES_S).answered_by == "cloud"
        assert session.infer(IMAGE_, deadline_ms=2.5e3 * AGES_S).answered_by == "device"


@pytest.mark.parametrize("why", ["no server was named", "left alone", "mode only-device", "calls to the server"])
def test_where_the_cloud_is_not_to_be_asked_the_forks_that_end_here_are_taken(why):
    mode = "only-device" if "mode" in why else "prefer-cloud"
    session, device, _, transport = opened(mode=mode, served=why != "no server was named")
    with session:
        if why == "left alone":
            session.cloud.breaker.failed()
            session.cloud.breaker.clock = lambda: -1e9  # it never ends
        elif why == "calls to the server":
            transport.go.clear()
            for _ in range(4):
                session.infer(IMAGE_, **race(device))
            device.ran.clear()
        result = session.infer(IMAGE_)
        assert why in result.why
        assert (result.nodes, result.types, device.ran) == ((0, 2), (FAST, FAST), [FIRST, SECOND])


def test_a_deadline_too_near_for_the_usual_answer_is_not_held_against_the_server():
    session, device, _, transport = opened()
    transport.seconds = AGES_S  # so it says that it took
    with session:
        session.infer(IMAGE_)
        transport.go = threading.Event()
        session.infer(IMAGE_, **race(device, left_s=0.05))
        assert transport.answered.acquire(timeout=PATIENCE_S)
        assert transport.answered.acquire(timeout=PATIENCE_S)
        settled(session)
        assert (session.cloud.breaker.failures, session.cloud.breaker.doubted) == (0, False)


def test_a_deadline_that_was_ample_is_held_against_the_server():
    session, device, link, transport = opened()
    with session:
        session.infer(IMAGE_)
        transport.go = threading.Event()
        session.infer(IMAGE_, **race(device, left_s=0.05))
        settled(session)
        assert (session.cloud.breaker.failures, session.cloud.breaker.doubted, link.given_up) == (1, True, 1)


def test_calls_that_fail_together_count_as_one_failure():
    now = [0.0]
    breaker = Breaker(lambda: now[0], random.Random(0), first_s=1.0)
    now[0] = 5.0
    for began_s in (1.0, 2.0, 3.0):
        breaker.failed(began_s)
    assert breaker.failures == 1
    now[0] = 7.0
    breaker.failed(6.0)
    assert breaker.failures == 2


def test_a_link_that_nobody_probes_is_risked_again_once_the_breaker_closes():
    session, _, _, transport = opened(probes=ProbePolicy(), timeout_s=0.01, hedge=False)
    transport.go.clear()
    with session:
        session.infer(IMAGE_)
        assert session.cloud.breaker.doubted
        session.cloud.breaker = Breaker(session.clock, random.Random(0))
        transport.go.set()
        assert session.infer(IMAGE_).answered_by == "cloud"
