"""What every transport promises, run over all three; grpc and rest with their server in another process."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from in_process_transport import InProcessTransport
from served_function import CLASSES, LIMIT_BYTES, SHAPE_IN, FunctionEngine, dense

from modeltree.errors import ConfigError, DataError
from runtime.wire.frames import decode, encode
from runtime.wire.protocol.messages import message
from runtime.wire.transports import (
    BusyError,
    Malformed,
    Refused,
    TimedOut,
    TransportError,
    Unreachable,
    open_transport,
)

SCRIPT = Path(__file__).with_name("served_function.py")
SCHEMES = {"grpc": "grpc", "rest": "http"}
REMOTE = pytest.mark.parametrize("kind", ["grpc", "rest"])


class Served:
    """A server in a process of its own."""

    def __init__(self, kind: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        self.url = f"{SCHEMES[kind]}://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


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


def ask(transport, model, x, bits=8, timeout_s=5.0):
    return transport.infer(model, x, bits=bits, timeout_s=timeout_s, shape_out=(CLASSES,))


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
def test_a_server_of_any_make_is_asked_in_its_own_names(servers, kind, x, monkeypatch):
    with open_transport(servers[kind], frames=False) as transport:
        with pytest.raises(Refused, match="must take one FP32 tensor"):  # ours takes two, of which one
            ask(transport, "dense", x)
        transport._names["dense"] = "x"
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


@contextlib.contextmanager
def socket_server(answers):
    """Hands each connection to `answers(connection)` in a thread, then closes it."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads, connections = [], []

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            answers(connection)

    def accept():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connections.append(connection)
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@REMOTE
def test_where_nobody_listens_nothing_is_reached(kind, x):
    with socket_server(lambda connection: None) as port:
        pass
    started = time.monotonic()
    with open_transport(f"{SCHEMES[kind]}://127.0.0.1:{port}") as transport, pytest.raises(Unreachable):
        ask(transport, "dense", x)
    assert time.monotonic() - started < 2


@REMOTE
def test_a_server_that_says_nothing_is_given_up_in_time(kind, x):
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(socket_server(lambda connection: connection.recv(1) and time.sleep(1)))
        transport = stack.enter_context(open_transport(f"{SCHEMES[kind]}://127.0.0.1:{port}"))
        started = time.monotonic()
        with pytest.raises(TimedOut):
            ask(transport, "dense", x, timeout_s=0.3)
        assert time.monotonic() - started < 0.8


def test_a_server_whose_bytes_drip_is_given_up_in_time(x):
    def drip(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x: y\r\n")
            time.sleep(0.05)

    with socket_server(drip) as port, open_transport(f"http://127.0.0.1:{port}") as transport:
        started = time.monotonic()
        with pytest.raises(TimedOut):
            ask(transport, "dense", x, timeout_s=0.3)
        assert time.monotonic() - started < 0.8


@REMOTE
def test_a_socket_that_sends_random_bytes_never_answers(kind, x):
    rng = np.random.default_rng(5)

    def noise(connection):
        connection.recv(100)
        connection.sendall(rng.bytes(int(rng.integers(0, 300))))

    with socket_server(noise) as port:
        for _ in range(40 if kind == "rest" else 5):
            with open_transport(f"{SCHEMES[kind]}://127.0.0.1:{port}") as transport, pytest.raises(TransportError):
                ask(transport, "dense", x, timeout_s=0.5)


def http_answer(body, header_length=None, status="200 OK"):
    extra = b"" if header_length is None else b"Inference-Header-Content-Length: %d\r\n" % header_length
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n" % (status.encode(), extra, len(body)) + body


GOOD = np.arange(10, dtype="<f4").tobytes()
RIGHT = {"id": "ID", "model": "dense", "datatype": "FP32", "shape": [2, 5], "outputs": 1, "blob": GOOD, "seconds": 0.1,
         "damage": 0}  # fmt: skip


def checksum_of(reply):
    """What the server says of its numbers; `damage` is what became of either on the way."""
    return zlib.crc32(reply["blob"] * reply["outputs"]) ^ reply["damage"]


@contextlib.contextmanager
def canned(kind, reply):
    """A server that answers every inference with the same: `RIGHT`, or what is made of it."""
    with rest_canned(reply) if kind == "rest" else grpc_canned(reply) as url:
        yield url


@contextlib.contextmanager
def rest_canned(reply):
    def answer(connection):
        request = b""
        while (found := re.search(rb'"id":"([^"]*)"', request)) is None:
            request += connection.recv(65536)
        output = {
            "name": "logits", "datatype": reply["datatype"], "shape": reply["shape"],
            "parameters": {"binary_data_size": len(reply["blob"])},
        }  # fmt: skip
        head = {
            "id": reply["id"].replace("ID", found[1].decode()), "model_name": reply["model"],
            "outputs": [output] * reply["outputs"],
            "parameters": {"nas_seconds": reply["seconds"], "nas_crc32": checksum_of(reply)},
        }  # fmt: skip
        body = json.dumps(head).encode()
        connection.sendall(http_answer(body + reply["blob"] * reply["outputs"], len(body)))

    with socket_server(answer) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def grpc_canned(reply):
    def answer(data, context):
        asked = message("inference.ModelInferRequest").FromString(data)
        made = message("inference.ModelInferResponse")(
            id=reply["id"].replace("ID", asked.id), model_name=reply["model"]
        )
        made.parameters["nas_seconds"].double_param = reply["seconds"]
        made.parameters["nas_crc32"].int64_param = checksum_of(reply)
        for _ in range(reply["outputs"]):
            made.outputs.add(name="logits", datatype=reply["datatype"], shape=reply["shape"])
            made.raw_output_contents.append(reply["blob"])
        return made.SerializeToString()

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(None).wait()


@REMOTE
@pytest.mark.parametrize(
    "change",
    [
        {"id": "another"},
        {"id": ""},
        {"model": "another"},
        {"datatype": "UINT8", "blob": GOOD[:10]},
        {"datatype": "FP64", "blob": GOOD * 2},
        {"shape": [5, 2]},
        {"shape": [1, 5], "blob": GOOD[:20]},
        {"shape": [2, 6], "blob": GOOD + GOOD[:8]},
        {"shape": [-1, -10]},
        {"shape": [2**63 - 1, 2**63 - 1]},
        {"shape": [], "blob": GOOD[:4]},
        {"blob": GOOD[:39]},
        {"blob": GOOD + b"0"},
        {"blob": np.full(10, np.nan, "<f4").tobytes()},
        {"blob": np.full(10, np.inf, "<f4").tobytes()},
        {"outputs": 0},
        {"outputs": 2},
        {"seconds": -1.0},
        {"damage": 1},
        {"seconds": float("nan")},
    ],
)
def test_an_answer_that_is_off_is_never_a_result(kind, change, x):
    with canned(kind, RIGHT | change) as url, open_transport(url) as transport, pytest.raises(Malformed):
        ask(transport, "dense", x)


@REMOTE
def test_the_answer_from_which_the_wrong_ones_are_made_is_right(kind, x):
    with canned(kind, RIGHT) as url, open_transport(url) as transport:
        reply = ask(transport, "dense", x)
    assert reply.output.tobytes() == GOOD
    assert reply.server_s == min(0.1, reply.seconds)


def test_bytes_that_are_no_message_are_malformed(x):
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        noise = grpc.unary_unary_rpc_method_handler(lambda data, context: b"\xff" * 50)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": noise}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with open_transport(f"grpc://127.0.0.1:{port}") as transport, pytest.raises(Malformed, match="no ModelInfer"):
            ask(transport, "dense", x)
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", Unreachable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", Unreachable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", Malformed),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", Malformed),
        (b"x" * 70_000, Malformed),
        (http_answer(b"{}"), Malformed),
        (http_answer(b"[" * 50_000), Malformed),
        (http_answer(b"\xff\xfe"), Malformed),
        (http_answer(b"{}", 3), Malformed),
        (http_answer(b"no", status="500 No"), Refused),
        (http_answer(b'{"error": "later"}', status="503 No"), BusyError),
        (http_answer(b"", status="302 Found"), Refused),
    ],
)
def test_http_that_is_no_answer_is_never_a_result(said, error, x):
    def say(connection):
        connection.recv(2**16)
        connection.sendall(said)

    with socket_server(say) as port, open_transport(f"http://127.0.0.1:{port}") as transport, pytest.raises(error):
        ask(transport, "dense", x, timeout_s=2.0)


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
