"""The protocol's REST form, with binary tensors: for devices without grpcio. Standard library only."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from modeltree.errors import ConfigError
from modeltree.units import ms_from_s
from runtime.wire.protocol import rest
from runtime.wire.protocol.deadline_socket import PatientSocket
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

_REASONS = {400: Reason.MALFORMED, 401: Reason.UNAUTHENTICATED, 403: Reason.UNAUTHENTICATED, 404: Reason.UNKNOWN,
            408: Reason.LATE, 413: Reason.TOO_LARGE, 429: Reason.BUSY, 503: Reason.BUSY, 504: Reason.LATE}  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    sent_bytes: int
    received_bytes: int


class _Connection(http.client.HTTPConnection):
    """An open connection; `http.client` forgets its socket when the server closes, `patient` keeps it to be shut."""

    def __init__(self, host: str, port: int, patient: PatientSocket) -> None:
        super().__init__(host, port)
        self.auto_open = 0
        self.sock = self.patient = patient


class RestTransport(Transport):
    """Keeps connections open; one request at a time on each, as many connections as there are calls at once."""

    def __init__(
        self, host: str, port: int, *, tls: bool = False, token: str | None = None, ca: Path | None = None,
        certificate: Path | None = None, key: Path | None = None, frames: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(frames=frames, clock=clock)
        self._host, self._port = host, port
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._tls = _context(ca, certificate, key) if tls else None
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._used: set[_Connection] = set()
        self._closed = False

    def ready(self, timeout_s: float) -> bool:
        answer = self._request("GET", "/v2/health/ready", b"", {}, self._until(timeout_s))
        if answer.status not in (200, 400, 503):
            raise _refused(answer)
        return answer.status == 200

    def describe(self, model: str, timeout_s: float) -> Description:
        answer = self._request("GET", f"/v2/models/{quote(model, safe='')}", b"", {}, self._until(timeout_s))
        if answer.status != 200:
            raise _refused(answer)
        metadata = _decoded(answer.body, rest.Metadata)
        inputs, outputs = (
            tuple((one.name, one.datatype, tuple(one.shape)) for one in each)
            for each in (metadata.inputs, metadata.outputs)
        )
        return Description(inputs=inputs, outputs=outputs)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            used = list(self._used)
        for connection in idle:
            _shut(connection)
        for connection in used:
            _wake(connection)

    def _send(self, model: str, request_id: str, tensor: Tensor, until: float) -> Response:
        body, header_length = rest.joined(
            rest.InferRequest(
                id=request_id, inputs=[rest.describe(tensor)], parameters={"binary_data_output": True}
            ), [tensor.data],
        )  # fmt: skip
        left_ms = max(1, int(ms_from_s(until - self._clock())))
        headers = {"content-type": "application/octet-stream", rest.HEADER_LENGTH: str(header_length),
                   rest.TIMEOUT_MS: str(left_ms)}  # fmt: skip
        answer = self._request("POST", f"/v2/models/{quote(model, safe='')}/infer", body, headers, until)
        if answer.status != 200:
            raise _refused(answer)
        header, blob = rest.split(answer.body, answer.headers.get(rest.HEADER_LENGTH))
        reply = _decoded(header, rest.InferReply)
        server_s, waiting_s = ((reply.parameters or {}).get(name) for name in (SECONDS, WAITING))
        for name, value in ((SECONDS, server_s), (WAITING, waiting_s)):
            if not isinstance(value, float | int | None):
                raise Malformed(f"the answer's {name} is {str(value)[:40]!r}: it must be a number")
        crc = (reply.parameters or {}).get(CHECKSUM)
        if not isinstance(crc, int | None):
            raise Malformed(f"the answer's {CHECKSUM} is {str(crc)[:40]!r}: it must be a whole number")
        return Response(
            request_id=reply.id or "", model=reply.model_name, tensors=rest.tensors(reply.outputs, blob),
            server_s=server_s, waiting_s=waiting_s, checksum=crc, sent_bytes=answer.sent_bytes,
            received_bytes=answer.received_bytes,
        )  # fmt: skip

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str], until: float) -> _Answer:
        """Ask on a connection that is open, or on a new one.

        A connection that lay idle may have been closed by the server meanwhile: then once more, on a new one. Asking
        twice does no harm, since a model has no memory.
        """
        headers = {**self._headers, **headers}
        while (connection := self._taken_idle()) is not None:
            try:
                return self._on(connection, method, path, body, headers, until)
            except Unreachable:
                if self._closed:
                    raise
        connection = self._translated(lambda: self._connected(until))
        return self._on(connection, method, path, body, headers, until)

    def _on(
        self, connection: _Connection, method: str, path: str, body: bytes, headers: dict[str, str],
        until: float,
    ) -> _Answer:  # fmt: skip
        whole = False
        try:
            answer, whole = self._translated(lambda: _asked(connection, method, path, body, headers, until))
            return answer
        finally:
            with self._lock:
                self._used.discard(connection)
                keep = whole and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                _shut(connection)

    def _taken_idle(self) -> _Connection | None:
        with self._lock:
            if self._closed:
                raise Unreachable("this transport is closed: open another")
            if not self._idle:
                return None
            connection = self._idle.pop()
            self._used.add(connection)
            return connection

    def _connected(self, until: float) -> _Connection:
        if (left := until - self._clock()) <= 0:
            raise TimeoutError("the time was over before there was a connection")
        sock = socket.create_connection((self._host, self._port), timeout=left)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock.settimeout(max(until - self._clock(), 1e-3))
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise
        connection = _Connection(self._host, self._port, PatientSocket(sock, until, self._clock))
        with self._lock:
            self._used.add(connection)
        return connection

    def _translated(self, work: Callable[[], _T]) -> _T:
        where = f"{self._host}:{self._port}"
        try:
            return work()
        except TransportError:
            raise
        except TimeoutError as error:
            raise TimedOut(f"{where} gave no whole answer in time") from error
        except ssl.SSLCertVerificationError as error:
            raise Refused(f"the certificate of {where} does not pass: {error.verify_message}") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Unreachable(f"{where} broke the connection off") from error
        except ssl.SSLError as error:
            hint = ": what is there is not encrypted; pass http:// or grpc://" if _plain(error) else ""
            raise Refused(f"no TLS with {where}: {error.reason or error}{hint}") from error
        except (http.client.IncompleteRead, OSError) as error:
            raise Unreachable(f"no connection to {where}, or it broke: {error}") from error
        except http.client.BadStatusLine as error:
            hint = "; what is there speaks gRPC: pass grpc:// or another port" if "\x00" in str(error) else ""
            raise Malformed(f"{where} answers what is no HTTP/1: {str(error)[:40]!r}{hint}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise Malformed(f"{where} answers what is no HTTP: {type(error).__name__} {str(error)[:100]}") from error


def _asked(
    connection: _Connection, method: str, path: str, body: bytes, headers: dict[str, str], until: float
) -> tuple[_Answer, bool]:
    """The answer, and whether the connection can be used again."""
    patient = connection.patient
    patient.until, patient.sent_bytes, patient.received_bytes = until, 0, 0
    # a server that refuses may stop reading; what it said is worth more than that it did
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, path, body or None, headers)
    with connection.getresponse() as response:
        if response.length is not None and response.length > MAX_REPLY_BYTES:
            raise Malformed(f"the answer has {response.length} bytes: {MAX_REPLY_BYTES} at most are read")
        read = response.read(MAX_REPLY_BYTES + 1)
        if len(read) > MAX_REPLY_BYTES or response.headers.get("content-encoding", "identity") != "identity":
            raise Malformed(f"the answer is compressed, or has more than {MAX_REPLY_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(read, response.length)
        return _Answer(
            status=response.status, headers=response.headers, body=read,
            sent_bytes=patient.sent_bytes, received_bytes=patient.received_bytes,
        ), not response.will_close  # fmt: skip


def _decoded(body: bytes | memoryview, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the answer is not the JSON that it must be: {error}") from error


def _refused(answer: _Answer) -> TransportError:
    try:
        message = msgspec.json.decode(answer.body, type=dict[str, str]).get("error", "")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = ""
    reason = Reason.of_word(answer.headers.get(KEY)) or _REASONS.get(answer.status, Reason.FAILED)
    return refusal(reason, message or f"HTTP status {answer.status}")


def _context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"ca, certificate or key is no PEM file that fits ({error}): pass other files") from error
    return context


def _plain(error: ssl.SSLError) -> bool:
    """Whether the other side answered in the clear."""
    return error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


def _shut(connection: _Connection) -> None:
    connection.close()
    connection.patient.shut()


def _wake(connection: _Connection) -> None:
    """Have the thread that reads find the end; closing is its own business."""
    with contextlib.suppress(OSError):  # broken already
        socket.socket.shutdown(connection.patient.sock, socket.SHUT_RDWR)
