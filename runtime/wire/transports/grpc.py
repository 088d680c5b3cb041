"""The protocol over gRPC, with grpcio."""

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modeltree.errors import FormatError
from runtime.wire.protocol.grpc_tensors import read_tensors, write_tensor
from runtime.wire.protocol.message_size import RAW_OUTPUTS, check_weight
from runtime.wire.protocol.messages import message, require_grpc
from runtime.wire.protocol.reasons import KEY, Reason
from runtime.wire.protocol.tensors import CHECKSUM, SECONDS, WAITING, Tensor
from runtime.wire.transports.interface import (
    MAX_REPLY_BYTES,
    Description,
    Malformed,
    Refused,
    Response,
    TimedOut,
    Transport,
    TransportError,
    Unreachable,
    refusal,
)

_REASONS = {
    "RESOURCE_EXHAUSTED": Reason.BUSY, "DEADLINE_EXCEEDED": Reason.LATE, "NOT_FOUND": Reason.UNKNOWN,
    "UNAUTHENTICATED": Reason.UNAUTHENTICATED, "PERMISSION_DENIED": Reason.UNAUTHENTICATED,
    "INVALID_ARGUMENT": Reason.MALFORMED,
}  # fmt: skip
_TLS_WORDS = ("handshake", "ertificate", "CERTIFICATE", "SSL_", "Verification", "verification")
_SILENCE_S = 3.0
"""When calls have timed out for so long and nothing else came, the connection is taken for dead."""
_SERVICE = "/inference.GRPCInferenceService/"


class _Garbled(Refused):
    """A refusal without a reason that we know: the server's own, or the connection is out of step."""


class _Silent(TimedOut):
    """Nothing came, not even a refusal."""


class GrpcTransport(Transport):
    """One channel: all calls share its connection.

    Raises
    ------
    ConfigError : grpcio or protobuf is not installed.
    """

    def __init__(
        self, host: str, port: int, *, tls: bool = False, token: str | None = None, ca: Path | None = None,
        certificate: Path | None = None, key: Path | None = None, frames: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(frames=frames, clock=clock)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else its core writes to standard error what servers send
        require_grpc()
        import grpc

        self._where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._tls = tls
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._options = [
            ("grpc.max_receive_message_length", MAX_REPLY_BYTES), ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what unfolds has no limit of its own
            ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.min_reconnect_backoff_ms", 3000),  # despite its name, what an attempt to connect may take
            # also sets TCP_USER_TIMEOUT: what lies unacknowledged for 3 s ends a connection that the link has swallowed
            ("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 3000),
        ]  # fmt: skip
        read = [None if file is None else file.read_bytes() for file in (ca, key, certificate)]
        self._credentials = grpc.ssl_channel_credentials(*read) if tls else None
        self._errors = (grpc.RpcError, ValueError)  # ValueError: the channel is closed
        self._lock = threading.Lock()
        self._closed = False
        self._channel, self._silent_s = self._opened(), math.inf  # since when calls began that nothing came of

    def ready(self, timeout_s: float) -> bool:
        request = message("inference.ServerReadyRequest")()
        until = self._until(timeout_s)
        return self._call("ServerReady", request.SerializeToString(), "ServerReadyResponse", until)[0].ready

    def describe(self, model: str, timeout_s: float) -> Description:
        request = message("inference.ModelMetadataRequest")(name=model)
        metadata, _ = self._call(
            "ModelMetadata", request.SerializeToString(), "ModelMetadataResponse", self._until(timeout_s)
        )
        inputs, outputs = (
            tuple((one.name, one.datatype, tuple(one.shape)) for one in each)
            for each in (metadata.inputs, metadata.outputs)
        )
        return Description(inputs=inputs, outputs=outputs)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._channel.close()

    def _opened(self) -> Any:
        import grpc

        if self._credentials is not None:
            return grpc.secure_channel(self._where, self._credentials, self._options)
        return grpc.insecure_channel(self._where, self._options)

    def _renew(self, spoilt: Any) -> None:
        """Connect anew, since a connection that is out of step stays so.

        Both ends remember headers, and a bit flipped in one stays wrong for good; one flipped in a frame's length makes
        the other end wait for megabytes.
        """
        with self._lock:
            if self._closed or self._channel is not spoilt:
                return
            self._channel, self._silent_s = self._opened(), math.inf
        spoilt.close()

    def _send(self, model: str, request_id: str, tensor: Tensor, until: float) -> Response:
        request = message("inference.ModelInferRequest")(model_name=model, id=request_id)
        write_tensor(request.inputs, request.raw_input_contents, tensor)
        data = request.SerializeToString()
        reply, received_bytes = self._call("ModelInfer", data, "ModelInferResponse", until, raw=RAW_OUTPUTS)
        said = reply.parameters
        return Response(
            request_id=reply.id, model=reply.model_name,
            server_s=said[SECONDS].double_param if SECONDS in said else None,
            waiting_s=said[WAITING].double_param if WAITING in said else None,
            checksum=said[CHECKSUM].int64_param if CHECKSUM in said else None,
            tensors=read_tensors(reply.outputs, reply.raw_output_contents),
            sent_bytes=len(data), received_bytes=received_bytes,
        )  # fmt: skip

    def _call(self, name: str, data: bytes, answer: str, until: float, *, raw: int | None = None) -> tuple[Any, int]:
        """The answer's message, and how many bytes it had. raw : number of its field with raw contents, if it has."""
        from google.protobuf.message import DecodeError

        if (left := until - self._clock()) <= 0:
            raise TimedOut("the time was over before anything was sent")
        channel = self._channel
        try:
            read = channel.unary_unary(_SERVICE + name)(data, timeout=left, metadata=self._metadata)
        except self._errors as error:
            translated, now_s = self._translated(error), self._clock()
            self._silent_s = min(self._silent_s, until - left) if isinstance(translated, _Silent) else math.inf
            if isinstance(translated, _Garbled) or now_s - self._silent_s > _SILENCE_S:
                self._renew(channel)
            raise translated from error
        self._silent_s = math.inf
        if read is None:
            self._renew(channel)
            raise Malformed(f"{self._where} says that all is well, and answers nothing")
        try:
            if raw is not None:
                check_weight(read, raw)
            return message(f"inference.{answer}").FromString(read), len(read)
        except (DecodeError, FormatError) as error:
            self._renew(channel)
            raise Malformed(f"{self._where} answers what is no {answer}: {error}") from error

    def _translated(self, error: Any) -> TransportError:
        if isinstance(error, ValueError):
            return Unreachable("this transport is closed: open another")
        code, details = error.code().name, error.details() or ""
        word = dict(error.trailing_metadata() or ()).get(KEY)
        if (reason := Reason.of_word(word if isinstance(word, str) else None)) is not None:
            return refusal(reason, details)
        if code == "DEADLINE_EXCEEDED":
            return _Silent(f"{self._where} gave no answer in time")
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
            ours = "Sent" in details or f"vs. {MAX_REPLY_BYTES})" in details
            return Malformed(details) if ours else refusal(Reason.TOO_LARGE, details)
        if code in _REASONS:
            return refusal(_REASONS[code], details)
        if code == "UNAVAILABLE" and any(word in details for word in _TLS_WORDS):
            plain = "WRONG_VERSION_NUMBER" in details
            hint = ": what is there is not encrypted; pass grpc:// or http://" if plain else ""
            return Refused(f"no TLS with {self._where}{hint}: {details[:500]}")
        if code == "UNAVAILABLE" and "http1.x" in details:
            return Refused(f"{self._where} speaks HTTP/1 and no gRPC: pass http:// or another port")
        if code in ("UNAVAILABLE", "CANCELLED"):
            hint = "; a server that wants another certificate of ours ends so, too" if self._tls else ""
            return Unreachable(f"no connection to {self._where}, or it broke: {details[:500]}{hint}")
        return _Garbled(f"the server refuses ({code}): {details[:500]}")
