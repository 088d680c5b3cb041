"""Servers that say nothing, too little, or something that is off: never a result, over gRPC and REST."""

import contextlib
import json
import re
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from remote_servers import REMOTE, SCHEMES, ask
from served_function import SHAPE_IN

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


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, *SHAPE_IN)).astype(np.float32)


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
