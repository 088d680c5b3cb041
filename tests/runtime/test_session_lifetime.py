"""Sessions that are forked, closed by another thread, dropped, or awaited; and deadlines that are none."""

import asyncio
import gc
import json
import math
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from forked_run import FAST_MBPS, IMAGE, compiled
from test_hedging import CLOUD_TAG, FROM_IMAGE, IMAGE_, PATIENCE_S, TAGS, opened, race, tag

from modeltree.errors import ConfigError, NasError
from runtime import Session
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.options import SessionOptions
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.workers import Closed, Workers
from runtime.server.serving import ServeConfig, Server
from runtime.wire.transports import Exchange, open_transport

FORK = """
import json, os, signal, sys
import numpy as np
from modeltree.errors import NasError
from runtime import Session

bundle, url, threads = sys.argv[1:]
image = np.zeros((3, 12, 12), np.uint8)
session = Session.open(bundle, server=url, threads=int(threads), timeout_s=20.0, policy="switch")
session.measure()
session.infer(image)
reads, writes = os.pipe()
if not (child := os.fork()):
    signal.alarm(60)  # what hangs is killed, and tells nothing

    def told(work):
        try:
            work()
            return "done"
        except NasError as error:
            return f"{type(error).__name__}: {error}"

    said = [told(lambda: session.infer(image)), told(lambda: session.infer(image, deadline_ms=50.0)),
            told(session.measure), told(session.close)]
    again = told(lambda: Session.open(bundle, server=url, threads=1).infer(image))
    os.write(writes, json.dumps([*said, again]).encode())
    os._exit(0)
os.close(writes)
said = os.read(reads, 65536).decode()
os.waitpid(child, 0)
print(json.dumps([said, session.infer(image).answered_by]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("lifetime"))


@pytest.fixture(scope="module")
def urls(bundle):
    with Server(ServeConfig(bundle=bundle, listen=("grpc://127.0.0.1:0", "http://127.0.0.1:0"))) as server:
        yield dict(zip(("grpc", "http"), server.urls, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_forked_child_is_refused_at_once_and_the_parent_goes_on(bundle, urls, scheme, threads):
    argv = [sys.executable, "-c", FORK, str(bundle), urls[scheme], str(threads)]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    child, parents_answer = json.loads(told.stdout)
    *refused, closed, again = json.loads(child)
    assert all("forked" in one and "open a session after it" in one for one in refused)
    assert closed == "done"
    # TVM's threads do not survive a fork, and a child of one that had some is told so at once
    assert again == "done" if threads == 1 else "which do not survive a fork" in again
    assert parents_answer in ("cloud", "device")


def closed_while(session, work):
    """What `work` returns or raises, when the session is closed while it waits for the cloud."""
    ended = []

    def run():
        try:
            ended.append(work())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not session.cloud.calls:
        time.sleep(1e-3)
    session.close()
    thread.join(PATIENCE_S)
    assert ended, "it hangs"
    return ended[0]


def test_closing_ends_an_inference_that_waits_with_the_devices_answer():
    session, _, _, transport = opened()
    transport.trouble = NasError("cut")
    transport.go.clear()
    result = closed_while(session, lambda: session.infer(IMAGE_))
    assert (result.answered_by, tag(result)) == ("device", TAGS[FROM_IMAGE])


def test_closing_ends_a_race_for_which_no_thread_had_been_free_yet():
    """All that may race is at work for others: this way waits in the queue, is thrown out of it, and done at once."""
    session, device, _, transport = opened()
    transport.go.clear()
    transport.trouble = NasError("cut")
    hold = threading.Event()
    for _ in range(4):
        session._hedge._rests.submit(hold.wait, PATIENCE_S)
    deadline = race(device)
    result = closed_while(session, lambda: session.infer(IMAGE_, **deadline))
    hold.set()
    assert (result.answered_by, tag(result)) == ("device", TAGS[FROM_IMAGE])


def test_closing_ends_an_inference_that_only_the_cloud_may_answer_with_an_error_of_ours():
    session, _, _, transport = opened(mode="only-cloud")
    transport.trouble = NasError("cut")
    transport.go.clear()
    assert isinstance(closed_while(session, lambda: session.infer(IMAGE_)), NasError)


def test_a_closed_session_refuses_and_closing_twice_does_no_harm():
    session, _, _, transport = opened()
    session.close()
    session.close()
    with pytest.raises(Closed, match="open another"):
        session.infer(IMAGE_)
    with pytest.raises(Closed, match="open another"):
        session.measure()
    assert transport.asked == []


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_session_that_is_dropped_leaves_no_thread_behind(bundle, urls, scheme):
    before = set(threading.enumerate())
    for _ in range(3):
        session = Session.open(bundle, server=urls[scheme], timeout_s=20.0, policy="switch")
        session.measure()
        session.infer(np.zeros(IMAGE, np.uint8))
        gone = weakref.ref(session)
        del session
        gc.collect()
        assert gone() is None
    until = time.monotonic() + PATIENCE_S
    ours = {"nas-prober", "nas-hedge", "nas-handover", "nas-ainfer"}
    while (left := {one.name for one in set(threading.enumerate()) - before} & ours) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


@pytest.mark.parametrize("wrong", [-1.0, math.nan, -math.inf, "50", True])
def test_a_deadline_that_is_none_is_refused(wrong):
    session, device, _, _ = opened()
    with session:
        with pytest.raises(ConfigError, match="deadline_ms is"):
            session.infer(IMAGE_, deadline_ms=wrong)
        assert session.infer(IMAGE_, deadline_ms=math.inf).met
    assert device.ran == []


def test_an_awaited_inference_answers_and_others_go_on_meanwhile():
    session, _, _, transport = opened(hedge=False)
    transport.go.clear()

    async def both():
        waiting = asyncio.create_task(session.ainfer(IMAGE_))
        while not transport.asked:
            await asyncio.sleep(1e-3)
        assert not waiting.done()
        transport.go.set()
        return await asyncio.wait_for(waiting, PATIENCE_S)

    with session:
        assert tag(asyncio.run(both())) == CLOUD_TAG


def test_an_awaited_inference_of_a_closed_session_is_refused():
    session, _, _, _ = opened()
    session.close()
    with pytest.raises(Closed):
        asyncio.run(session.ainfer(IMAGE_))


def test_an_awaited_deadline_counts_from_the_call():
    session, _, _, transport = opened()

    async def second():
        transport.go.clear()
        first = asyncio.create_task(session.ainfer(IMAGE_, deadline_ms=1e3 * PATIENCE_S))
        while not transport.asked:
            await asyncio.sleep(1e-3)
        late = asyncio.create_task(session.ainfer(IMAGE_, deadline_ms=20.0))
        await asyncio.sleep(0.05)
        transport.go.set()
        await first
        return await late

    with session:
        assert not asyncio.run(second()).met


def test_work_for_closed_threads_is_refused_and_what_waits_is_failed():
    workers, hold, began = Workers(1, "nas-test"), threading.Event(), threading.Event()

    def work():
        began.set()
        return hold.wait(PATIENCE_S)

    running, waiting = workers.submit(work), workers.submit(int)
    assert began.wait(PATIENCE_S)
    workers.close()
    with pytest.raises(Closed):
        waiting.result(PATIENCE_S)
    with pytest.raises(Closed):
        workers.submit(int)
    hold.set()
    assert running.result(PATIENCE_S) is True


def test_options_are_one_value_and_the_keywords_of_open_change_it(bundle):
    options = SessionOptions(mode="only-device", threads=1)
    with Session.open(bundle, options=options, hedge=False) as session:
        assert session.options == SessionOptions(mode="only-device", threads=1, hedge=False)
    with pytest.raises(ConfigError, match="timeout_s is 0"):
        Session.open(bundle, timeout_s=0)


def test_a_link_that_is_known_at_the_start_needs_no_probe(bundle, urls):
    device = Device(Bundle.open(bundle))
    tree = device.manifest.tree
    link = LinkWatch(tree.types, rtt_ms=0.0)
    link.observe(Exchange(sent_bytes=1_000_000, received_bytes=4, seconds=8.0 / FAST_MBPS, server_s=0.0))
    options = SessionOptions(probes=None, timeout_s=20.0)
    with Session(device, link, open_transport(urls["http"]), options) as session:
        assert session.infer(np.zeros(IMAGE, np.uint8)).answered_by == "cloud"
        assert not any(one.name == "nas-prober" for one in threading.enumerate())
