"""What every transport promises, run over all three; grpc and rest with their server in another process."""

import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from in_process_transport import InProcessTransport
from remote_servers import REMOTE, SCHEMES, Served, ask
from served_function import CLASSES, LIMIT_BYTES, SHAPE_IN, FunctionEngine, dense

from modeltree.errors import ConfigError, DataError
from runtime.wire.frames import decode, encode
from runtime.wire.transports import (
    BusyError,
    Malformed,
    Refused,
    TimedOut,
    Unreachable,
    open_transport,
)


@pytest.fixture(scope="module")
def servers():
    with contextlib.ExitStack() as stack:
        urls = {}
        for kind in SCHEMES:
            served = Served(kind)
            stack.callback(served.end)
            urls[kind] = served.url
        yield urls


@pytest.fixture(params=["in_process", "grpc", "rest"])
def transport(request, servers):
    kind = request.param
    with InProcessTransport(FunctionEngine()) if kind == "in_process" else open_transport(servers[kind]) as made:
        yield made


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, *SHAPE_IN)).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16, 32])
def test_the_answer_is_the_models_to_what_the_codes_say(transport, x, bits):
    received = x if bits == 32 else decode(encode(x, bits), shape=x.shape)
    reply = ask(transport, "dense", x, bits)
    np.testing.assert_array_equal(reply.output, dense(received))
    assert reply.output.dtype == np.float32
    assert reply.output.flags.writeable


def test_pixels_arrive_normalised(transport):
    pixels = np.random.default_rng(1).integers(0, 256, (1, *SHAPE_IN), np.uint8)
    np.testing.assert_allclose(
        ask(transport, "image", pixels).output, dense((pixels / np.float32(255) - 0.5) / 0.25), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(Refused, match="takes a feature map"):
        ask(transport, "dense", pixels)


def test_a_reply_tells_what_it_cost(transport, x):
    reply = ask(transport, "slow", x, 32)
    assert 2 <= reply.server_s <= reply.seconds < 3
    assert reply.sent_bytes >= x.nbytes
    assert reply.received_bytes >= 4 * CLASSES * len(x)
    assert ask(transport, "dense", x, 4).sent_bytes < reply.sent_bytes


def test_sixteen_threads_get_each_its_own_answers(transport):
    def asked(seed):
        x = np.random.default_rng(seed).standard_normal((1, *SHAPE_IN)).astype(np.float32)
        return np.array_equal(ask(transport, "dense", x, 32).output, dense(x))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(asked, range(320)))


def test_a_late_answer_is_dropped_and_the_next_one_is_right(transport, x):
    started = time.monotonic()
    with pytest.raises(TimedOut):
        ask(transport, "slow", x, timeout_s=0.2)
    assert time.monotonic() - started < 1
    assert ask(transport, "dense", x, 32).output.tolist() == dense(x).tolist()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("busy", BusyError, "the queue is full"),
        ("draining", BusyError, "shutting down"),
        ("nothing", Refused, "no model 'nothing'"),
        ("../a b/ü?#", Refused, "no model"),
        ("broken", Refused, "its library failed"),
        ("nan", Malformed, "not finite"),
        ("wide", Malformed, "shape"),
        ("short", Malformed, "shape"),
    ],
)
def test_no_answer_says_why(transport, x, model, error, message):
    with pytest.raises(error, match=message):
        ask(transport, model, x)


def test_a_bug_in_the_server_is_not_told(transport, x, caplog):
    with pytest.raises(Refused, match="its log says how") as caught:
        ask(transport, "bug", x)
    assert "secret" not in str(caught.value)


def test_another_models_feature_map_is_refused(transport):
    for bits in (8, 32):
        with pytest.raises(Refused, match=r"shape|must hold"):
            ask(transport, "dense", np.ones((1, 3, 4, 5), np.float32), bits)


def test_what_cannot_be_sent_is_said_before_it_is(transport, x):
    with pytest.raises(DataError):
        ask(transport, "dense", x.astype(np.float64), 32)
    with pytest.raises(DataError):
        ask(transport, "dense", np.full_like(x, np.nan), 8)
    with pytest.raises(ConfigError):
        ask(transport, "dense", x, 17)
    with pytest.raises(ConfigError):
        ask(transport, "dense", x, timeout_s=0.0)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_probe_costs_its_bytes(transport, size):
    cost = transport.probe(size, 5.0)
    assert size <= cost.sent_bytes < size + 2000
    assert 0 <= cost.server_s <= cost.seconds


def test_a_server_tells_of_itself(transport):
    assert transport.ready(5.0)
    described = transport.describe("dense", 5.0)
    assert described.inputs == (("x", "FP32", (-1, *SHAPE_IN)), ("frame", "UINT8", (-1,)))
    assert described.outputs == (("logits", "FP32", (-1, CLASSES)),)
    with pytest.raises(Refused):
        transport.describe("nothing", 5.0)


def test_a_closed_transport_reaches_nothing(transport, x):
    transport.close()
    transport.close()
    with pytest.raises(Unreachable):
        ask(transport, "dense", x)


def test_a_small_frame_that_unfolds_to_much_is_refused(transport):
    with pytest.raises(Refused, match="too-large"):
        transport.infer("large", np.zeros((8, 2**20), np.float32), bits=1, timeout_s=5.0)


@REMOTE
def test_a_message_beyond_the_limit_is_refused(servers, kind):
    with open_transport(servers[kind]) as transport:
        with pytest.raises(Refused, match="too-large"):
            transport.probe(4 * LIMIT_BYTES, 5.0)
        assert transport.ready(5.0)


@REMOTE
def test_a_server_of_any_make_is_asked_in_its_own_names(servers, kind, x):
    with open_transport(servers[kind], frames=False) as transport:
        np.testing.assert_array_equal(ask(transport, "dense", x, 4).output, dense(x))


@REMOTE
def test_a_server_killed_in_mid_call_is_unreachable_until_it_is_back(kind, x):
    served = Served(kind)
    with open_transport(served.url) as transport, ThreadPoolExecutor(1) as pool:
        ask(transport, "dense", x)
        call = pool.submit(ask, transport, "slow", x)
        time.sleep(0.3)
        served.kill()
        with pytest.raises(Unreachable):
            call.result(1.0)
        with pytest.raises(Unreachable):
            ask(transport, "dense", x)
        again = Served(kind, served.port)
        until = time.monotonic() + 5
        while True:
            try:
                np.testing.assert_array_equal(ask(transport, "dense", x, 32).output, dense(x))
                break
            except Unreachable:
                assert time.monotonic() < until
                time.sleep(0.05)
        again.end()


@REMOTE
def test_closing_ends_the_calls_in_flight(servers, kind, x):
    transport = open_transport(servers[kind])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, transport, "slow", x)
        time.sleep(0.3)
        transport.close()
        with pytest.raises(Unreachable):
            call.result(1.0)


@REMOTE
def test_opening_and_closing_leaves_no_thread_and_no_file_behind(servers, kind, x):
    def once():
        with open_transport(servers[kind]) as transport:
            ask(transport, "dense", x)
            with pytest.raises(Refused):
                ask(transport, "nothing", x)

    def held():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for _ in range(3):
        once()
    before = held()
    for _ in range(10):
        once()
    until = time.monotonic() + 2
    while held() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert held() <= before


@pytest.mark.parametrize(
    "url",
    ["host:8001", "grpc:8001", "ftp://host", "grpc://", "grpc://host:99999", "http://host/path", "http://me:pw@host"],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="server"):
        open_transport(url)


def test_options_that_contradict_the_url_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not encrypted"):
        open_transport("http://host", ca=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="not a file"):
        open_transport("https://host", ca=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="both"):
        open_transport("grpcs://host", key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="token"):
        open_transport("http://host", token="a\r\nb: c")
