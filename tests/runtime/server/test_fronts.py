"""What both of the server's fronts do with requests: limits, deadlines, readiness, stopping."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from summing_fronts import BOTH, FRONTS, Summing, X, ask, served

from modeltree.errors import ConfigError
from runtime.server.fronts.admission import Admission, Buckets, Limits
from runtime.server.fronts.request_handler import RequestHandler
from runtime.wire.transports import BusyError, TransportError, open_transport


@BOTH
def test_an_address_that_is_taken_is_refused(scheme):
    with served(scheme) as url, pytest.raises(ConfigError, match="cannot listen"):
        FRONTS[scheme](RequestHandler(Summing()), Admission(Limits()), port=int(url.rpartition(":")[2]))


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
    front = FRONTS[scheme](RequestHandler(engine), Admission(Limits()))
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
