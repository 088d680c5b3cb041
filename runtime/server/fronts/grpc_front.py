"""The gRPC side of the server."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn

from modeltree.errors import ConfigError, FormatError
from runtime.server.fronts.admission import Admission, ServerTls
from runtime.server.fronts.grpc_arrivals import Arrivals
from runtime.server.fronts.grpc_connections import GrpcConnections
from runtime.server.fronts.grpc_reflection import SERVICES as REFLECTION
from runtime.server.fronts.grpc_reflection import reflected
from runtime.server.fronts.request_handler import EXTENSIONS, RequestHandler, refusal_of
from runtime.server.interface import UnknownModel
from runtime.server.open_files import open_files
from runtime.wire.protocol.grpc_tensors import read_tensors, write_tensor
from runtime.wire.protocol.message_size import RAW_INPUTS, check_weight
from runtime.wire.protocol.messages import message, require_grpc
from runtime.wire.protocol.reasons import KEY
from runtime.wire.protocol.tensors import CHECKSUM, FRAME, PROBE, SECONDS, VERSION, WAITING, X, checksum

_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING = 1, 2
_FOREVER_S = 1e6
"""What grpcio gives as the time left where there is no deadline lies above."""
_CUT_S = 10.0
"""What cutting may take after the grace."""
_HANDSHAKE_S = 10.0
"""From a connection's first packet to HTTP/2's first frame: TLS takes two or three round trips, and a busy machine."""
_UNREQUESTED_S = 5
"""What a call may wait in grpc's core for a thread; its caller has long gone on alone."""
_SPARE_THREADS = 4
"""Beyond those that infer, so that health is answered under load, and a refusal too."""


class GrpcFront:
    """Listens from `start` to `stop`; an address is taken when it is made.

    Raises
    ------
    ConfigError : grpcio or protobuf is missing, it cannot listen there, or the TLS files do not fit.
    """

    def __init__(
        self, handler: RequestHandler, admission: Admission, *, host: str = "127.0.0.1", port: int = 0,
        tls: ServerTls | None = None, shared: bool = False,
    ) -> None:  # fmt: skip
        require_grpc()
        import grpc

        limits = admission.limits
        threads = limits.max_requests + _SPARE_THREADS
        places = min(limits.max_grpc_connections, max(1, open_files() // 2))
        self._threads = ThreadPoolExecutor(threads, "nas-grpc")
        self._server = grpc.server(
            self._threads, maximum_concurrent_rpcs=2 * threads,
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes), ("grpc.so_reuseport", int(shared)),
                ("grpc.max_concurrent_streams", threads), ("grpc.max_connection_idle_ms", int(limits.idle_s * 1e3)),
                ("grpc.server_handshake_timeout_ms", int(min(limits.read_s, _HANDSHAKE_S) * 1e3)),
                ("grpc.max_allowed_incoming_connections", places),
                ("grpc.server.max_pending_requests", threads),  # more wait in grpc's core, each with its message
                ("grpc.server.max_pending_requests_hard_limit", 2 * threads),
                ("grpc.server_max_unrequested_time_in_server", _UNREQUESTED_S),
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what unfolds has no limit of its own
            ],
        )  # fmt: skip
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port: int = (
                self._server.add_insecure_port(where) if tls is None
                else self._server.add_secure_port(where, _credentials(tls))
            )  # fmt: skip
        except (RuntimeError, ValueError, OSError) as error:
            self._threads.shutdown(wait=False)
            raise ConfigError(
                f"cannot listen on {where} ({error}): choose another address, or other TLS files"
            ) from error

        self._arrivals = Arrivals(threads // 2, limits.read_s)
        self._connections = GrpcConnections(self.port, places)
        calls = _Calls(handler=handler, admission=admission, arrivals=self._arrivals, connections=self._connections)
        self._server.add_generic_rpc_handlers(calls.handlers())

    def start(self) -> None:
        self._arrivals.start()
        self._connections.start()
        self._server.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no more connections, let what is being answered end within a time, then cut. May be called again."""
        self._server.stop(grace_s).wait(grace_s + _CUT_S)
        self._arrivals.stop()
        self._connections.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _credentials(tls: ServerTls) -> Any:
    import grpc

    ca = None if tls.ca is None else tls.ca.read_bytes()
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], ca, ca is not None)


@dataclass(frozen=True, kw_only=True)
class _Calls:
    """What all calls share. admission : for those that need the token."""

    handler: RequestHandler
    admission: Admission
    arrivals: Arrivals
    connections: GrpcConnections

    def handlers(self) -> tuple[Any, ...]:
        """One for each service.

        Every call is taken for one with a stream of requests, which is the same on the wire: so the token is looked at
        before anything else of it is read, and waiting for its one message can be ended.
        """
        import grpc

        made: dict[str, dict[str, Any]] = {_SERVICE: {}, _HEALTH: {}}
        for (service, name), (request, guarded, answer) in _ANSWERS.items():
            work = functools.partial(self._answered, message(request), guarded, answer)
            made[service][name] = grpc.stream_unary_rpc_method_handler(work)
        for service in REFLECTION:
            made[service] = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._reflected)}
        return tuple(grpc.method_handlers_generic_handler(service, each) for service, each in made.items())

    def _answered(
        self, request: Any, guarded: bool, answer: "_Answer", messages: Iterator[bytes], context: Any
    ) -> bytes:
        """What a call comes back with; a refusal becomes gRPC's code, and our word for it."""
        from google.protobuf.message import DecodeError

        try:
            if guarded:
                self.admission.check_token(_token(context))
                self.connections.called(context.peer())
            with self.arrivals.waiting(context):
                data = next(messages, None)
            if data is None:
                raise FormatError("the call ended without a message: send one")
            check_weight(data, RAW_INPUTS)
            try:
                asked = request.FromString(data)
            except DecodeError as error:
                raise FormatError(f"the request is no {request.DESCRIPTOR.full_name}: {error}") from error
            return answer(self, asked, context).SerializeToString()
        except Exception as error:
            _refuse(context, error)

    def _reflected(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            self.admission.check_token(_token(context))
            with self.arrivals.waiting(context):
                yield from reflected((_SERVICE, _HEALTH, REFLECTION[0]), messages)
        except Exception as error:
            _refuse(context, error)


def _token(context: Any) -> str | None:
    return dict(context.invocation_metadata()).get("authorization")


def _refuse(context: Any, error: Exception) -> NoReturn:
    import grpc

    if not context.is_active():
        raise error  # the caller has gone, or was sent away
    refusal = refusal_of(error)
    context.set_trailing_metadata(((KEY, refusal.reason.word),))
    context.abort(grpc.StatusCode[refusal.reason.grpc_code], refusal.message)
    raise AssertionError("abort always raises")


def _live(calls: _Calls, asked: Any, context: Any) -> Any:
    return message("inference.ServerLiveResponse")(live=True)


def _ready(calls: _Calls, asked: Any, context: Any) -> Any:
    return message("inference.ServerReadyResponse")(ready=calls.handler.ready())


def _health(calls: _Calls, asked: Any, context: Any) -> Any:
    if asked.service not in ("", _SERVICE, _HEALTH, *REFLECTION):
        raise UnknownModel(f"no service {asked.service[:80]!r}: ask for {_SERVICE}, or for none")
    return message("grpc.health.v1.HealthCheckResponse")(status=_SERVING if calls.handler.ready() else _NOT_SERVING)


def _server_metadata(calls: _Calls, asked: Any, context: Any) -> Any:
    return message("inference.ServerMetadataResponse")(name="nas", version=VERSION, extensions=EXTENSIONS)


def _index(calls: _Calls, asked: Any, context: Any) -> Any:
    made, ready = message("inference.RepositoryIndexResponse")(), calls.handler.ready()
    for name in calls.handler.models() if ready or not asked.ready else ():
        made.models.add(name=name, version=VERSION, state="READY" if ready else "UNAVAILABLE")
    return made


def _model_ready(calls: _Calls, asked: Any, context: Any) -> Any:
    served = asked.name == PROBE or bool(calls.handler.model(asked.name, asked.version))
    return message("inference.ModelReadyResponse")(ready=served and calls.handler.ready())


def _model_metadata(calls: _Calls, asked: Any, context: Any) -> Any:
    info = calls.handler.model(asked.name, asked.version)
    made = message("inference.ModelMetadataResponse")(name=asked.name, versions=[VERSION], platform="nas")
    made.inputs.add(name=X, datatype="FP32", shape=[-1, *info.shape_in])
    made.inputs.add(name=FRAME, datatype="UINT8", shape=[-1])
    for one, shape in info.answers.items():
        made.outputs.add(name=one, datatype="FP32", shape=[-1, *shape])
    return made


def _infer(calls: _Calls, asked: Any, context: Any) -> Any:
    with calls.admission.place(_address(context.peer())):
        tensors = read_tensors(asked.inputs, asked.raw_input_contents)
        outputs = [one.name for one in asked.outputs]
        left_s = context.time_remaining()
        deadline_s = None if left_s is None or left_s > _FOREVER_S else left_s
        answered = calls.handler.infer(asked.model_name, asked.model_version, tensors, outputs, deadline_s)
    made = message("inference.ModelInferResponse")(model_name=asked.model_name, model_version=VERSION, id=asked.id)
    made.parameters[SECONDS].double_param = answered.seconds
    made.parameters[WAITING].double_param = answered.waiting_s
    made.parameters[CHECKSUM].int64_param = checksum(answered.tensors)
    for tensor in answered.tensors:
        write_tensor(made.outputs, made.raw_output_contents, tensor)
    return made


_Answer = Callable[[_Calls, Any, Any], Any]
_ANSWERS: dict[tuple[str, str], tuple[str, bool, _Answer]] = {
    (_SERVICE, "ServerLive"): ("inference.ServerLiveRequest", False, _live),
    (_SERVICE, "ServerReady"): ("inference.ServerReadyRequest", False, _ready),
    (_SERVICE, "ModelReady"): ("inference.ModelReadyRequest", True, _model_ready),
    (_SERVICE, "ServerMetadata"): ("inference.ServerMetadataRequest", True, _server_metadata),
    (_SERVICE, "ModelMetadata"): ("inference.ModelMetadataRequest", True, _model_metadata),
    (_SERVICE, "ModelInfer"): ("inference.ModelInferRequest", True, _infer),
    (_SERVICE, "RepositoryIndex"): ("inference.RepositoryIndexRequest", True, _index),
    (_HEALTH, "Check"): ("grpc.health.v1.HealthCheckRequest", False, _health),
}
"""By service and call: the request's message, whether it needs the token, what answers."""


def _address(peer: str) -> str:
    """Who it is, without the port: `ipv4:10.0.0.7` of `ipv4:10.0.0.7:5012`."""
    return peer.rpartition(":")[0] or peer
