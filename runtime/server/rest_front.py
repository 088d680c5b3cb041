"""The REST side of the server: a thread for each connection, a bound on their number, and a patience for each request.

GET  /v2                       GET  /v2/health/live    GET  /v2/health/ready
GET  /v2/models/M[/versions/1] GET  /v2/models/M/ready POST /v2/models/M/infer
"""

import contextlib
import http.server
import io
import logging
import socket
import socketserver
import ssl
import threading
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec

from modeltree.errors import ConfigError, FormatError
from modeltree.units import s_from_ms
from runtime.server.admission import Admission, ServerTls, TooLarge
from runtime.server.interface import UnknownModel
from runtime.server.request_handler import Desk, Refusal, refusal_of
from runtime.wire.protocol import rest
from runtime.wire.protocol.deadline_socket import PatientSocket
from runtime.wire.protocol.reasons import KEY, Reason
from runtime.wire.protocol.tensors import CHECKSUM, FRAME, LOGITS, PROBE, SECONDS, VERSION, WAITING, X, checksum

_log = logging.getLogger(__name__)
_END_S = 10.0
_LINGER_S = 1.0
_LINGER_BYTES = 64 * 2**20


class RestFront:
    """Listens from `start` to `stop`.

    Raises
    ------
    ConfigError : it cannot listen there, or the TLS files do not fit.
    """

    def __init__(
        self, desk: Desk, admission: Admission, *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> None:
        self._server = _Server(desk, admission, host, port, None if tls is None else _context(tls))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="nas-rest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no more connections, let what is being answered end within a time, then cut. May be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_END_S)
        self._server.server_close()
        self._server.drain(grace_s)


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, desk: Desk, admission: Admission, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.desk, self.admission, self.context = desk, admission, context
        self.lock = threading.Lock()
        self.draining = False
        self._open: dict[socket.socket, threading.Thread] = {}
        self.busy: set[socket.socket] = set()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error}): choose another address") from error

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = self.socket.accept()
        if self.context is not None:  # shakes hands later, in the connection's own thread
            sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            room = len(self._open) < self.admission.limits.max_connections and not self.draining
            if room:
                thread = threading.Thread(
                    target=self._serve, args=(request, client_address), name="nas-rest-peer", daemon=True
                )
                self._open[request] = thread
        if room:
            thread.start()
        else:
            self._turn_away(request)

    def _turn_away(self, request: socket.socket) -> None:
        request.setblocking(False)
        try:
            if self.context is None:
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nnas-reason: busy\r\ncontent-length: 0\r\n"
                             b"connection: close\r\n\r\n")  # fmt: skip
        except OSError:
            pass  # whoever it was has gone
        finally:
            request.close()

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            _Handler(request, client_address, self)
        except (OSError, ssl.SSLError, ValueError) as error:  # ValueError: reading from what `drain` has shut
            _log.debug("the connection of %s ended: %s", client_address, error)
        except Exception:
            _log.exception("serving %s failed", client_address)
        finally:
            request.close()
            with self.lock:
                del self._open[request]

    def drain(self, grace_s: float) -> None:
        """Wait for what is being answered, then close every connection."""
        until = time.monotonic() + grace_s
        with self.lock:
            self.draining = True
        while time.monotonic() < until:
            with self.lock:
                if not self.busy:
                    break
            time.sleep(0.005)
        with self.lock:
            still = dict(self._open)
        for request, thread in still.items():
            with contextlib.suppress(OSError):  # has ended meanwhile
                socket.socket.shutdown(request, socket.SHUT_RDWR)
            thread.join(1.0)


class _Writer(io.RawIOBase):
    def __init__(self, patient: PatientSocket) -> None:
        self._patient = patient

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._patient.sendall(data)
        return len(data)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nas", ""
    server: _Server

    def setup(self) -> None:
        limits = self.server.admission.limits
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._patient = PatientSocket(self.request, time.monotonic() + limits.read_s)
        self.connection = self._patient
        self.rfile, self.wfile = self._patient.makefile(), _Writer(self._patient)  # type: ignore[assignment]
        self._rest = False
        if isinstance(self.request, ssl.SSLSocket):
            try:
                self._patient.time_left()
                self.request.do_handshake()
            except ssl.SSLError:
                self._linger()  # so that the alert arrives that says what is wrong with the device's certificate
                raise

    def finish(self) -> None:
        if self._rest:
            self._linger()

    def handle_one_request(self) -> None:
        limits = self.server.admission.limits
        self._patient.until = time.monotonic() + limits.idle_s
        self.close_connection = True
        if not self.rfile.peek(1):  # type: ignore[attr-defined]
            return
        self._begun = time.monotonic()
        self._patient.until = self._begun + limits.read_s
        with self.server.lock:
            if self.server.draining:
                return
            self.server.busy.add(self.request)
        try:
            super().handle_one_request()
        finally:
            with self.server.lock:
                self.server.busy.discard(self.request)

    def parse_request(self) -> bool:
        """Also refuse what a proxy in front may have read otherwise: two lengths, or a line that is no header, with
        which Python leaves out all headers behind it."""
        if not super().parse_request():
            return False
        if self.headers.defects or len(self.headers.get_all("content-length", [])) > 1:
            self.send_error(
                400, "the request must have one Content-Length at most, and headers of the form name: value"
            )
            return False
        return True

    def do_GET(self) -> None:
        """Health, and what models there are."""
        desk = self.server.desk
        path = self._path()
        if self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers:
            self.close_connection = self._rest = True  # a body that nobody reads is no next request
        if path == ["health", "live"]:
            self._reply(200, {"live": True})
        elif path == ["health", "ready"]:
            self._reply(200 if desk.ready() else 503, {"ready": desk.ready()})
        else:
            self._guarded(lambda: self._reply(200, self._described(path)))

    def do_POST(self) -> None:
        """Inference. The body is read before anything but the token can be found wanting, so that the link stays up."""
        self._rest = True
        self._guarded(self._infer)

    def _infer(self) -> None:
        admission = self.server.admission
        admission.check_token(self.headers.get("authorization"))
        body = self._body()
        self._rest = False
        path = self._path()
        if path[:1] != ["models"] or path[-1] != "infer" or len(path) not in (3, 5):
            raise UnknownModel(f"nothing is posted to {self.path[:80]!r}: post to /v2/models/NAME/infer")
        with admission.place(self.client_address[0]):
            name, version = _model_of(path[:-1])
            header, blob = rest.split(body, self.headers.get(rest.HEADER_LENGTH))
            try:
                asked = msgspec.json.decode(header, type=rest.InferRequest)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise FormatError(f"the request is not the JSON that it must be: {error}") from error
            answered = self.server.desk.infer(
                name, version, rest.tensors(asked.inputs, blob), [one.name for one in asked.outputs], self._left_s()
            )
        binary = asked.wants_binary()
        reply = rest.InferReply(
            model_name=name, model_version=VERSION, id=asked.id,
            parameters={
                SECONDS: answered.seconds, WAITING: answered.waiting_s, CHECKSUM: checksum(answered.tensors),
            },
            outputs=[rest.describe(one, binary=binary) for one in answered.tensors],
        )  # fmt: skip
        whole, header_length = rest.joined(reply, [one.data for one in answered.tensors] if binary else [])
        self._write(200, whole, {rest.HEADER_LENGTH: str(header_length)} if binary else {})

    def _body(self) -> bytes:
        """All of the request's.

        Raises
        ------
        FormatError : no plain length, or a compressed body. TooLarge : longer than the server takes.
        """
        size = rest.number(self.headers.get("content-length", ""))
        if size is None or "transfer-encoding" in self.headers or "content-encoding" in self.headers:
            raise FormatError("the request must have a Content-Length, and no Transfer- or Content-Encoding")
        if size > (most := self.server.admission.limits.max_message_bytes):
            raise TooLarge(f"the request has {size} bytes: {most} at most")
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionResetError(f"the connection ended after {len(body)} of {size} bytes")
        return body

    def _left_s(self) -> float | None:
        """Until the deadline; None without one."""
        given = self.headers.get(rest.TIMEOUT_MS)
        if given is None:
            return None
        timeout_ms = rest.number(given)
        if timeout_ms is None:
            raise FormatError(f"{rest.TIMEOUT_MS} is {given[:20]!r}: it must be whole milliseconds")
        return s_from_ms(timeout_ms) - (time.monotonic() - self._begun)

    def _described(self, path: list[str]) -> dict[str, Any]:
        self.server.admission.check_token(self.headers.get("authorization"))
        desk = self.server.desk
        if not path:
            return {"name": "nas", "version": VERSION, "extensions": ["binary_tensor_data"]}
        ready = path[-1] == "ready" and len(path) in (3, 5)
        name, version = _model_of(path[:-1] if ready else path)
        if ready:
            served = name == PROBE or bool(desk.model(name, version))
            return {"name": name, "ready": served and desk.ready()}
        info = desk.model(name, version)
        return {
            "name": name, "versions": [VERSION], "platform": "nas",
            "inputs": [{"name": X, "datatype": "FP32", "shape": [-1, *info.shape_in]},
                       {"name": FRAME, "datatype": "UINT8", "shape": [-1]}],
            "outputs": [{"name": LOGITS, "datatype": "FP32", "shape": [-1, *info.shape_out]}],
        }  # fmt: skip

    def _path(self) -> list[str]:
        """Parts behind `/v2`.

        Raises
        ------
        UnknownModel : the path is another.
        """
        parts = [unquote(part) for part in self.path.split("?")[0].split("/")]
        return parts[2:] if parts[:2] == ["", "v2"] else [""]

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except (OSError, ssl.SSLError):
            raise  # the connection, not the request
        except Exception as error:
            self._refuse(refusal_of(error))

    def _refuse(self, refusal: Refusal) -> None:
        headers = {KEY: refusal.reason.word}
        if refusal.reason in (Reason.BUSY, Reason.DRAINING):
            headers["retry-after"] = "1"
        if refusal.reason is Reason.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        self.close_connection |= self._rest
        self._write(refusal.reason.http_status, msgspec.json.encode({"error": refusal.message}), headers)

    def _reply(self, status: int, what: Any) -> None:
        self._write(status, msgspec.json.encode(what), {})

    def _write(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Everything in one piece, within a patience of its own."""
        self._patient.until = time.monotonic() + self.server.admission.limits.read_s
        kind = "application/octet-stream" if rest.HEADER_LENGTH in headers else "application/json"
        lines = {"content-type": kind, "content-length": str(len(body)), **headers}
        if self.close_connection:
            lines["connection"] = "close"
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.wfile.write(head.encode("latin-1") + body)

    def _linger(self) -> None:
        """Read what the peer still sends for a moment: closing before would throw away what we said last."""
        try:
            socket.socket.shutdown(self.request, socket.SHUT_WR)
            self.request.settimeout(_LINGER_S)
            until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
            while left > 0 and time.monotonic() < until and (data := socket.socket.recv(self.request, 65536)):
                left -= len(data)
        except OSError:
            pass  # it has gone, or sends nothing more

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request line or a header."""
        self.close_connection = self._rest = True
        body = msgspec.json.encode({"error": message or HTTPStatus(code).phrase})
        self._write(code, body, {KEY: Reason.MALFORMED.word})

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _model_of(path: list[str]) -> tuple[str, str]:
    """Name and version of `models/NAME` or `models/NAME/versions/VERSION`."""
    if len(path) == 2 and path[0] == "models":
        return path[1], ""
    if len(path) == 4 and (path[0], path[2]) == ("models", "versions"):
        return path[1], path[3]
    raise UnknownModel("there is nothing at this path: see /v2, /v2/health/ready and /v2/models/NAME")


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{tls} is not PEM, or key and certificate do not fit ({error}): pass other files") from error
    return context
