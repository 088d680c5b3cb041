"""Who gets in at the server's two fronts, and what becomes of those who do not."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from certificates import Authority

from modeltree.errors import ConfigError
from runtime.server.fronts.admission import Admission, Buckets, Limits, ServerTls
from runtime.server.fronts.grpc_front import GrpcFront
from runtime.server.fronts.request_handler import Desk
from runtime.server.fronts.rest_front import RestFront
from runtime.server.interface import Answer, ModelInfo
from runtime.wire.protocol import rest
from runtime.wire.transports import BusyError, Refused, TimedOut, TransportError, Unreachable, open_transport

FRONTS = {"grpc": GrpcFront, "http": RestFront}
BOTH = pytest.mark.parametrize("scheme", FRONTS)
X = np.ones((1, 3), np.float32)


class Summing:
    """Adds up; `gate` holds it back, `left` is the deadline that it was given last."""

    def __init__(self):
        self.models = {"sum": ModelInfo(shape_in=(3,), shape_out=(1,))}
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Semaphore(0)
        self.left = None
        self.is_ready = True

    def ready(self):
        return self.is_ready

    def infer(self, model, x, *, deadline_s):
        self.left = deadline_s
        self.waiting.release()
        assert self.gate.wait(10)
        return Answer(output=x.sum(1, keepdims=True), seconds=0.0)


@contextlib.contextmanager
def served(scheme, *, engine=None, tls=None, token=None, **limits):
    admission = Admission(Limits(**limits), token=token)
    front = FRONTS[scheme](Desk(engine or Summing()), admission, tls=tls)
    front.start()
    try:
        yield f"{scheme}{'s' if tls else ''}://127.0.0.1:{front.port}"
    finally:
        front.stop(1.0)


def ask(url, timeout_s=5.0, **options):
    with open_transport(url, **options) as transport:
        return transport.infer("sum", X, bits=32, timeout_s=timeout_s).output.item()


def refused(url, authority):
    with pytest.raises(Refused, match=r"(?i)certificate|hostname"):
        ask(url, ca=authority.pem)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


@pytest.fixture(scope="module")
def server_tls(authority):
    return authority.signed("server")


@pytest.fixture(scope="module")
def device_tls(authority):
    return authority.signed("device")


@BOTH
def test_with_its_authority_known_a_server_is_asked_over_tls(scheme, authority, server_tls):
    with served(scheme, tls=ServerTls(**server_tls)) as url:
        assert ask(url, ca=authority.pem) == 3


@BOTH
def test_a_certificate_of_a_stranger_is_refused(scheme, authority, stranger):
    with served(scheme, tls=ServerTls(**stranger.signed("server"))) as url:
        refused(url, authority)


@BOTH
def test_a_certificate_that_has_expired_is_refused(scheme, authority):
    with served(scheme, tls=ServerTls(**authority.signed("expired", days=-1))) as url:
        refused(url, authority)


@BOTH
def test_a_certificate_for_another_host_is_refused(scheme, authority):
    with served(scheme, tls=ServerTls(**authority.signed("elsewhere", address="DNS:elsewhere"))) as url:
        refused(url, authority)


@BOTH
def test_without_the_authority_no_server_is_believed(scheme, server_tls):
    with served(scheme, tls=ServerTls(**server_tls)) as url, pytest.raises(Refused):
        ask(url)


@BOTH
def test_a_device_that_shows_its_certificate_is_let_in(scheme, authority, server_tls, device_tls):
    with served(scheme, tls=ServerTls(**server_tls, ca=authority.pem)) as url:
        assert ask(url, ca=authority.pem, **device_tls) == 3


@BOTH
@pytest.mark.parametrize("shown", ["none", "a stranger's", "expired"])
def test_a_device_without_a_good_certificate_stays_out(scheme, shown, authority, stranger, server_tls):
    files = {
        "none": lambda: {},
        "a stranger's": lambda: stranger.signed("device"),
        "expired": lambda: authority.signed("device-expired", days=-1),
    }[shown]()
    engine = Summing()
    with served(scheme, engine=engine, tls=ServerTls(**server_tls, ca=authority.pem)) as url:
        with pytest.raises((Refused, Unreachable), match=r"(?i)tls|broke"):
            ask(url, ca=authority.pem, **files)
        assert not engine.waiting.acquire(blocking=False)
        assert ask(url, ca=authority.pem, **authority.signed("device-good")) == 3


@BOTH
@pytest.mark.parametrize("pair", [("grpcs", "grpc"), ("grpc", "grpcs")])
def test_a_device_and_a_server_that_disagree_on_tls_do_not_meet(scheme, pair, authority, server_tls):
    encrypted = pair[0] == "grpcs"
    with served(scheme, tls=ServerTls(**server_tls) if encrypted else None) as url:
        port = url.rpartition(":")[2]
        other = f"{scheme}{'' if encrypted else 's'}://127.0.0.1:{port}"
        with pytest.raises(TransportError):
            ask(other, timeout_s=1.0, **({} if encrypted else {"ca": authority.pem}))


@BOTH
@pytest.mark.parametrize(("token", "message"), [(None, "carries no token"), ("wrong", "another token")])
def test_without_the_token_nothing_is_answered_but_health(scheme, token, message):
    with served(scheme, token="right") as url:
        assert ask(url, token="right") == 3
        with open_transport(url, token=token) as transport:
            for call in (
                lambda: transport.infer("sum", X, bits=32, timeout_s=5.0),
                lambda: transport.probe(10, 5.0),
                lambda: transport.describe("sum", 5.0),
            ):
                with pytest.raises(Refused, match=message):
                    call()
            assert transport.ready(5.0)


@BOTH
def test_tls_files_that_do_not_fit_are_refused_before_serving(scheme, tmp_path, server_tls):
    text = tmp_path / "no.pem"
    text.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"TLS|PEM"):
        FRONTS[scheme](Desk(Summing()), Admission(Limits()), tls=ServerTls(certificate=text, key=server_tls["key"]))
    with pytest.raises(ConfigError, match="not a file"):
        ServerTls(certificate=tmp_path / "missing.pem", key=text)


@BOTH
def test_an_address_that_is_taken_is_refused(scheme):
    with served(scheme) as url, pytest.raises(ConfigError, match="cannot listen"):
        FRONTS[scheme](Desk(Summing()), Admission(Limits()), port=int(url.rpartition(":")[2]))


@BOTH
def test_beyond_its_requests_at_once_the_server_is_busy_and_recovers(scheme):
    engine = Summing()
    engine.gate.clear()
    with contextlib.ExitStack() as stack:
        transport = stack.enter_context(
            open_transport(stack.enter_context(served(scheme, engine=engine, max_requests=2)))
        )
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(transport.infer, "sum", X, bits=32, timeout_s=5.0) for _ in range(2)]
            for _ in calls:
                assert engine.waiting.acquire(timeout=5)
            with pytest.raises(BusyError, match="2 requests"):
                transport.infer("sum", X, bits=32, timeout_s=5.0)
            assert transport.ready(5.0)
            engine.gate.set()
            assert [call.result().output.item() for call in calls] == [3, 3]
            assert transport.infer("sum", X, bits=32, timeout_s=5.0).output.item() == 3


@BOTH
def test_one_address_has_its_share_of_requests(scheme):
    with served(scheme, max_rate=0.01, burst=3) as url, open_transport(url) as transport:
        for _ in range(3):
            transport.infer("sum", X, bits=32, timeout_s=5.0)
        with pytest.raises(BusyError, match="a second from"):
            transport.infer("sum", X, bits=32, timeout_s=5.0)


def test_a_bucket_fills_with_time_and_forgets_whom_it_has_not_heard_of():
    now = [0.0]
    buckets = Buckets(2.0, 3, lambda: now[0], most=2)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    assert buckets.take("b")
    assert buckets.take("c")
    assert len(buckets._levels) == 2
    now[0] = 100.0
    assert [buckets.take("c") for _ in range(4)] == [True, True, True, False]


@BOTH
def test_the_engine_is_told_how_long_the_device_waits(scheme):
    engine = Summing()
    with served(scheme, engine=engine) as url:
        ask(url, timeout_s=3.0)
        assert 2 < engine.left <= 3.1  # gRPC rounds what it sends up


@BOTH
def test_a_server_that_loads_is_live_and_not_ready(scheme):
    engine = Summing()
    engine.is_ready = False
    with served(scheme, engine=engine) as url, open_transport(url) as transport:
        assert not transport.ready(5.0)
        engine.is_ready = True
        assert transport.ready(5.0)


@BOTH
def test_stopping_lets_what_is_being_answered_end(scheme):
    engine = Summing()
    engine.gate.clear()
    front = FRONTS[scheme](Desk(engine), Admission(Limits()))
    front.start()
    with open_transport(f"{scheme}://127.0.0.1:{front.port}") as transport, ThreadPoolExecutor(2) as pool:
        call = pool.submit(transport.infer, "sum", X, bits=32, timeout_s=5.0)
        assert engine.waiting.acquire(timeout=5)
        stopping = pool.submit(front.stop, 5.0)
        time.sleep(0.2)
        engine.gate.set()
        assert call.result().output.item() == 3
        stopping.result()
        with pytest.raises(TransportError):
            transport.infer("sum", X, bits=32, timeout_s=1.0)
    front.stop()


def test_grpc_messages_that_are_compressed_are_refused():
    import grpc

    with served("grpc") as url, grpc.insecure_channel(url[7:], compression=grpc.Compression.Gzip) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="disabled"):
            infer(bytes(10_000), timeout=5)


def test_the_standard_health_check_is_served():
    import grpc

    engine = Summing()
    with served("grpc", engine=engine) as url, grpc.insecure_channel(url[7:]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=5) == b"\x08\x01"
        engine.is_ready = False
        assert check(b"", timeout=5) == b"\x08\x02"


@pytest.fixture
def rest_url():
    with served("http", max_message_bytes=4096, read_s=0.5, idle_s=1.0) as url:
        yield url


def said(url, *parts, pause_s=0.0):
    """What the server says to raw bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as sock:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
                time.sleep(pause_s)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer += data
        return answer


POST = b"POST /v2/models/sum/infer HTTP/1.1\r\n"


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
