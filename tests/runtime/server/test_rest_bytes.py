"""What the REST front makes of bytes that no client of ours would send, and of idle connections."""

import contextlib
import socket
import time

import numpy as np
import pytest
from summing_fronts import BOTH, POST, Summing, X, ask, said, served

from runtime.wire.protocol import rest
from runtime.wire.transports import BusyError, TimedOut, Unreachable, open_transport


@pytest.fixture
def rest_url():
    with served("http", max_message_bytes=4096, read_s=0.5, idle_s=1.0) as url:
        yield url


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"501"),
        (b"BREW / HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b"431"),
        (POST + b"\r\n", b"400"),
        (POST + b"content-length: -1\r\n\r\n", b"400"),
        (POST + b"content-length: 1e3\r\n\r\n", b"400"),
        (POST + b"content-length: 99999999999999999999999\r\n\r\n", b"400"),
        (POST + b"content-length: 5000\r\n\r\n", b"413"),
        (POST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", b"400"),
    ],
)
def test_http_that_cannot_be_followed_ends_its_connection_with_a_reason(rest_url, request_bytes, status):
    answer = said(rest_url, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status) or answer.startswith(b"HTTP/1.0 " + status)
    assert b'"error"' in answer
    assert b"Traceback" not in answer
    assert ask(rest_url) == 3


@pytest.mark.parametrize(
    ("body", "header_length"),
    [
        (b"", None),
        (b"{}", None),
        (b"[" * 3000, None),
        (b"\xff\xff", None),
        (b"{}", "3"),
        (b"{}", "-1"),
        (b"{}", "9" * 30),
        (b'{"inputs":[]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":["a",2,3]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1e39,2,3]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[[1,2],[3]]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,3],"data":[1,2,3]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[0,3],"data":[]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,-3],"data":[1,2,3]}]}', None),
        (b'{"inputs":[{"name":"frame","datatype":"UINT8","shape":[3],"data":[1,2,3]}]}', None),
        (b'{"inputs":[{"name":"frame","datatype":"UINT8","shape":[1],"data":[256]}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":true}}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}', None),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}],"outputs":[{"name":"y"}]}', None),
    ],
)
def test_a_request_that_is_malformed_is_refused_and_the_connection_kept(rest_url, body, header_length):
    extra = b"" if header_length is None else f"{rest.HEADER_LENGTH}: {header_length}\r\n".encode()
    request = POST + extra + b"content-length: %d\r\n\r\n" % len(body) + body
    answer = said(rest_url, request, b"GET /v2/health/live HTTP/1.1\r\nconnection: close\r\n\r\n")
    first, _, rest_of_it = answer.partition(b"HTTP/1.1 200 OK")
    assert first.startswith(b"HTTP/1.1 400 ")
    assert b"nas-reason: malformed" in first
    assert b'{"live":true}' in rest_of_it


def test_numbers_may_come_and_go_as_json(rest_url):
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[[1,2.5,3]]}]}'
    answer = said(rest_url, POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert b'"data":[6.5]' in answer


def test_a_request_that_drips_is_cut_off(rest_url):
    started = time.monotonic()
    said(rest_url, *[b"x"] * 100, pause_s=0.05)
    assert time.monotonic() - started < 7
    assert said(rest_url, POST + b"content-length: 4000\r\n\r\n") == b""


def test_connections_beyond_the_limit_are_turned_away():
    with served("http", max_connections=2) as url:
        port = int(url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                sock.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
                assert sock.recv(1000)
            with pytest.raises((BusyError, Unreachable)):
                ask(url)
        until = time.monotonic() + 5
        while True:
            try:
                assert ask(url) == 3
                break
            except (BusyError, Unreachable):
                assert time.monotonic() < until


def test_an_idle_connection_that_the_server_closed_is_replaced(rest_url):
    with open_transport(rest_url) as transport:
        for _ in range(2):
            assert transport.infer("sum", X, bits=32, timeout_s=5.0).output.item() == 3
            time.sleep(1.2)


@BOTH
def test_random_requests_never_break_the_server(scheme):
    rng = np.random.default_rng(7)
    with served(scheme, max_message_bytes=4096, read_s=1.0) as url:
        for _ in range(150):
            answer = said(url, rng.bytes(int(rng.integers(1, 200))) + b"\r\n\r\n") if scheme == "http" else b""
            assert not answer or answer.startswith((b"HTTP/", b"{"))
        if scheme == "grpc":
            import grpc

            with grpc.insecure_channel(url[7:]) as channel:
                infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
                for _ in range(300):
                    with pytest.raises(grpc.RpcError) as caught:
                        infer(rng.bytes(int(rng.integers(0, 200))), timeout=5)
                    assert caught.value.code() is not grpc.StatusCode.INTERNAL
        assert ask(url) == 3


def test_a_deadline_that_is_over_is_not_worked_on():
    engine = Summing()
    with served("http", engine=engine) as url:
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'
        answer = said(
            url, POST + b"connection: close\r\nnas-timeout-ms: 0\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
    assert b"504" in answer
    assert b"nas-reason: late" in answer
    assert engine.left is None


def test_a_gate_that_never_opens_is_a_timeout():
    engine = Summing()
    engine.gate.clear()
    with served("http", engine=engine) as url:
        with pytest.raises(TimedOut):
            ask(url, timeout_s=0.2)
        engine.gate.set()
