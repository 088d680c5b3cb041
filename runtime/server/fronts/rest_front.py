"""The REST side of the server: a thread for each connection, places given per address, a patience for each request.

What is answered where: `runtime.server.fronts.rest_routes`.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from http import HTTPStatus

from modeltree.errors import ConfigError
from runtime.server.fronts.admission import Admission, ServerTls
from runtime.server.fronts.connections import Connection, Connections, Stage
from runtime.server.fronts.http_request import BadRequest, Head, RequestReader
from runtime.server.fronts.request_handler import RequestHandler, refusal_of
from runtime.server.fronts.rest_routes import Answer, Asked, Routes, not_allowed, parts_of, refused, unreadable
from runtime.wire.protocol import rest
from runtime.wire.protocol.deadline_socket import PatientSocket

_log = logging.getLogger(__name__)
_END_S = 10.0
_LINGER_S = 1.0
_LINGER_BYTES = 64 * 2**20
_BACKLOG = 128
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nnas-reason: busy\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class RestFront:
    """Listens from `start` to `stop`.

    Raises
    ------
    ConfigError : it cannot listen there, or the TLS files do not fit.
    """

    def __init__(
        self, handler: RequestHandler, admission: Admission, *, host: str = "127.0.0.1", port: int = 0,
        tls: ServerTls | None = None, shared: bool = False,
    ) -> None:  # fmt: skip
        self._limits, self._admission, self._routes = admission.limits, admission, Routes(handler, admission)
        self._context = None if tls is None else _context(tls)
        self._connections = Connections(admission.limits.max_connections)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=shared)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error}): choose another address") from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="nas-rest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no more connections, let what is being answered end within a time, then cut. May be called again."""
        with contextlib.suppress(OSError):  # was never started, or has ended
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        if self._thread.is_alive():
            self._thread.join(_END_S)
        self._socket.close()
        self._connections.drain(time.monotonic() + grace_s)

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._socket.accept()
            except ConnectionError:
                continue  # whoever it was has gone
            except OSError as error:
                if self._socket.fileno() < 0 or not _listens(self._socket):
                    return
                _log.warning("no connection can be taken now: %s", error)  # such as too many open files
                time.sleep(0.1)
                continue
            self._welcome(sock, address[0])

    def _welcome(self, sock: socket.socket, address: str) -> None:
        if self._context is not None:  # shakes hands later, in the connection's own thread
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        place = self._connections.entered(sock, address)
        if place is None:
            _turn_away(sock, plain=self._context is None)
            return
        place.thread = threading.Thread(target=self._serve, args=(place,), name="nas-rest-peer", daemon=True)
        try:
            place.thread.start()
        except RuntimeError:  # the machine has no thread left
            self._connections.left(place)
            _turn_away(sock, plain=self._context is None)

    def _serve(self, place: Connection) -> None:
        try:
            _Peer(place, self._connections, self._routes, self._admission).serve()
        except (OSError, ssl.SSLError, ValueError) as error:  # ValueError: reading from what was shut
            _log.debug("the connection of %s ended: %s", place.address, error)
        except Exception:
            _log.exception("serving %s failed", place.address)
        finally:
            place.sock.close()
            self._connections.left(place)


class _Peer:
    """One connection, from its first request to its last."""

    def __init__(self, place: Connection, connections: Connections, routes: Routes, admission: Admission) -> None:
        self._place, self._connections = place, connections
        self._routes, self._admission, self._limits = routes, admission, admission.limits
        self._sock = place.sock
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._patient = PatientSocket(self._sock, time.monotonic() + self._limits.read_s)
        self._reader = RequestReader(self._patient)
        self._open = True
        self._unread = False
        """Whether the client still sends what nobody reads."""

    def serve(self) -> None:
        """Answer until either side has had enough."""
        self._shake_hands()
        while self._open:
            self._patient.until = time.monotonic() + self._limits.idle_s
            if not self._reader.begins():
                return
            begun = time.monotonic()
            self._patient.until = begun + self._limits.read_s
            if not self._connections.reached(self._place, Stage.SENDING):
                return
            self._one(begun)
            self._connections.reached(self._place, Stage.IDLE)
        if self._unread:
            self._linger()

    def _one(self, begun: float) -> None:
        """Read a request and answer it; whatever is wrong with it is the answer."""
        without_body = False
        try:
            head = self._reader.head()
            without_body, self._open, self._unread = head.method == "HEAD", head.keep_alive, head.may_have_body
            answer = self._answered(head, begun)
        except BadRequest as error:
            self._open, self._unread = False, True
            answer = unreadable(error.status, str(error))
        except (OSError, ssl.SSLError):
            raise  # the connection, not the request
        except Exception as error:
            answer = refused(refusal_of(error))
        self._open &= not self._unread
        self._write(answer, without_body=without_body)

    def _answered(self, head: Head, begun: float) -> Answer:
        """The token is looked at first, then the body is read, and only then all that may be wrong: so the link stays
        up."""
        try:
            path = parts_of(head.target)
            route = self._routes.find(path)
        except Exception:
            self._admission.check_token(head.headers.get("authorization"))
            self._body(head)
            raise
        if not route.free:
            self._admission.check_token(head.headers.get("authorization"))
        if head.method not in route.methods:
            return not_allowed(route)
        body = self._body(head) if "POST" in route.methods else b""
        if not self._connections.reached(self._place, Stage.ANSWERED):
            raise ConnectionResetError("it has lost its place to another")
        return route.answer(Asked(head=head, body=body, address=self._place.address, path=path, begun=begun))

    def _body(self, head: Head) -> bytes | bytearray:
        if head.method != "POST":
            return b""
        body = self._reader.body(head, self._limits.max_message_bytes)
        self._unread = False
        return body

    def _write(self, answer: Answer, *, without_body: bool) -> None:
        """Everything in one piece, within a patience of its own."""
        self._patient.until = time.monotonic() + self._limits.read_s
        kind = "application/octet-stream" if rest.HEADER_LENGTH in answer.headers else "application/json"
        lines = {"content-type": kind, "content-length": str(len(answer.body)), **answer.headers}
        if not self._open:
            lines["connection"] = "close"
        head = f"HTTP/1.1 {int(answer.status)} {HTTPStatus(answer.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self._patient.sendall(head.encode("latin-1") + (b"" if without_body else answer.body))

    def _shake_hands(self) -> None:
        if not isinstance(self._sock, ssl.SSLSocket):
            return
        try:
            self._patient.time_left()
            self._sock.do_handshake()
        except ssl.SSLError:
            self._linger()  # so that the alert arrives that says what is wrong with the device's certificate
            raise

    def _linger(self) -> None:
        """Read what the peer still sends for a moment: closing before would throw away what we said last."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            self._sock.settimeout(_LINGER_S)
            until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
            while left > 0 and time.monotonic() < until and (data := socket.socket.recv(self._sock, 65536)):
                left -= len(data)
        except OSError:
            pass  # it has gone, or sends nothing more


def _turn_away(sock: socket.socket, *, plain: bool) -> None:
    sock.setblocking(False)
    try:
        if plain:
            sock.send(_TURNED_AWAY)
    except OSError:
        pass  # whoever it was has gone
    finally:
        sock.close()


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


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
