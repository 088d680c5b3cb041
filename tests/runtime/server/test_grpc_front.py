"""gRPC beside inference: health, reflection, the index of models; and calls that keep a thread waiting."""

import contextlib
import socket
import threading

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.connections import PATIENCE_S
from runtime.server.fronts.grpc_arrivals import Arrivals
from runtime.server.fronts.grpc_front import GrpcFront
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.interface import Answer, ModelInfo
from runtime.wire.protocol.messages import message

SERVICE = "inference.GRPCInferenceService"
TOKEN = (("authorization", "Bearer t"),)
V1 = "grpc.reflection.v1.ServerReflection"


class Nothing:
    def __init__(self):
        self.models = {"b": ModelInfo(shape_in=(3,), shape_out=(1,)), "a": ModelInfo(shape_in=(3,), shape_out=(1,))}

    def ready(self):
        return True

    def infer(self, model, x, *, deadline_s):
        return Answer(output=x[:, :1], seconds=0.0)


@contextlib.contextmanager
def served(**limits):
    front = GrpcFront(RequestHandler(Nothing()), Admission(Limits(**limits), token="t"))
    front.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            yield channel, front.port
    finally:
        front.stop(1.0)


@pytest.fixture(scope="module")
def channel():
    with served() as (made, _):
        yield made


def call(channel, name, request=b"", metadata=TOKEN, service=SERVICE):
    return channel.unary_unary(f"/{service}/{name}")(request, timeout=10, metadata=metadata)


@pytest.mark.parametrize("name", ["", SERVICE, "grpc.health.v1.Health", V1])
def test_services_that_are_there_are_healthy(channel, name):
    request = message("grpc.health.v1.HealthCheckRequest")(service=name).SerializeToString()
    assert call(channel, "Check", request, (), "grpc.health.v1.Health") == b"\x08\x01"


def test_the_health_of_another_service_is_not_found(channel):
    request = message("grpc.health.v1.HealthCheckRequest")(service="nothing").SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, "Check", request, (), "grpc.health.v1.Health")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_models_are_listed(channel):
    index = message("inference.RepositoryIndexResponse").FromString(call(channel, "RepositoryIndex"))
    assert [(one.name, one.version, one.state) for one in index.models] == [("a", "1", "READY"), ("b", "1", "READY")]


def asked(channel, *questions, service=V1, metadata=TOKEN):
    requests = [message("grpc.reflection.v1.ServerReflectionRequest")(**one).SerializeToString() for one in questions]
    answers = channel.stream_stream(f"/{service}/ServerReflectionInfo")(iter(requests), timeout=10, metadata=metadata)
    return [message("grpc.reflection.v1.ServerReflectionResponse").FromString(one) for one in answers]


@pytest.mark.parametrize("service", [V1, "grpc.reflection.v1alpha.ServerReflection"])
def test_a_client_that_knows_nothing_learns_services_and_messages(channel, service):
    listed, symbol, file, missing, odd = asked(
        channel, {"list_services": "*"}, {"file_containing_symbol": f"{SERVICE}.ModelInfer"},
        {"file_by_filename": "inference.proto"}, {"file_containing_symbol": "no.Such"}, {}, service=service,
    )  # fmt: skip
    names = [one.name for one in listed.list_services_response.service]
    assert names == [SERVICE, "grpc.health.v1.Health", V1]
    for found in (symbol, file):
        (data,) = found.file_descriptor_response.file_descriptor_proto
        (declared,) = FileDescriptorProto.FromString(data).service
        assert {"ModelInfer", "RepositoryIndex"} < {one.name for one in declared.method}
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request.file_containing_symbol == "no.Such"
    assert odd.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_reflection_needs_the_token_and_short_questions(channel):
    with pytest.raises(grpc.RpcError) as refused:
        asked(channel, {"list_services": "*"}, metadata=())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as refused:
        asked(channel, {"file_by_filename": "x" * 5000})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@contextlib.contextmanager
def unfinished(channel, count, metadata):
    """Calls that begin, and send no message until the end."""
    ending = threading.Event()

    def nothing():
        ending.wait(60)
        yield from ()

    infer = channel.stream_unary(f"/{SERVICE}/ModelInfer")
    calls = [infer.future(nothing(), metadata=metadata) for _ in range(count)]
    try:
        yield calls
    finally:
        ending.set()
        for one in calls:
            one.cancel()


def test_a_call_without_the_token_is_refused_before_its_message_is_waited_for():
    with served(read_s=60) as (channel, _), unfinished(channel, 3, ()) as calls:
        for one in calls:
            assert one.exception(timeout=10).code() is grpc.StatusCode.UNAUTHENTICATED


def test_calls_that_never_send_their_message_lose_their_threads_to_others():
    with served(max_requests=4, read_s=60) as (channel, port), unfinished(channel, 20, TOKEN):
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as other:
            assert call(other, "ServerLive", metadata=()) == b"\x08\x01"


def test_idle_connections_of_one_address_do_not_keep_others_out():
    with served() as (_, port), contextlib.ExitStack() as held:
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert call(channel, "ServerLive", metadata=()) == b"\x08\x01"


class Cancelled:
    def __init__(self):
        self.times = 0

    def cancel(self):
        self.times += 1


def test_who_keeps_a_thread_waiting_is_cancelled_sooner_in_a_crowd():
    now = [0.0]
    arrivals = Arrivals(2, 30.0, clock=lambda: now[0])
    first, second = Cancelled(), Cancelled()
    with arrivals.waiting(first):
        now[0] = PATIENCE_S
        arrivals.look()
        assert first.times == 0
        with arrivals.waiting(second):
            arrivals.look()
            assert (first.times, second.times) == (1, 0)
        now[0] = 30.0
        arrivals.look()
    arrivals.look()
    assert (first.times, second.times) == (2, 0)
