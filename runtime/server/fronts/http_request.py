"""Requests of HTTP/1.1 from a connection: read by llhttp, within bounds, and no further than was asked for.

llhttp (the package httptools) is strict: two lengths, a bare line feed, a NUL or a header that is none end the
connection with a reason. The head is read first, so that a token can be looked at before a body is let in.
"""

import zlib
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools

from modeltree.errors import FormatError, NasError
from runtime.server.fronts.admission import TooLarge
from runtime.wire.protocol import rest
from runtime.wire.protocol.deadline_socket import PatientSocket

MOST_HEAD_BYTES = 32 * 2**10
MOST_HEADERS = 100
_PIECE_BYTES = 2**16
_TOO_MUCH = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_GZIP = 16 + zlib.MAX_WBITS


class BadRequest(NasError):
    """No request can be read from this connection any more. status : what it is told."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(kw_only=True)
class Head:
    """All of a request but its body; names of headers are in lower case."""

    method: str = ""
    target: str = ""
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = False

    @property
    def may_have_body(self) -> bool:
        """Whether something may follow: a POST without a length is none, and nobody knows where it ends."""
        length = self.headers.get("content-length", "" if self.method == "POST" else "0")
        return "transfer-encoding" in self.headers or length != "0"


class RequestReader:
    """Reads one request after the other.

    patient : the connection. What came with one request and belongs to the next is kept in between.
    """

    def __init__(self, patient: PatientSocket) -> None:
        self._patient = patient
        self._ahead = b""
        self._events = _Events()
        self._parser: Any = None

    def begins(self) -> bool:
        """Wait for the first byte of a request, as long as the connection allows; False if the other end has closed."""
        while True:
            self._ahead = self._ahead.lstrip(b"\r\n")
            if self._ahead:
                return True
            self._ahead = self._received()
            if not self._ahead:
                return False

    def head(self) -> Head:
        """The head of the request that has begun.

        Raises
        ------
        BadRequest : it is none, or is too long. ConnectionResetError : it ended before its end.
        """
        self._events = _Events()
        self._parser = self._events.parser = httptools.HttpRequestParser(self._events)
        data, fed = self._ahead, 0
        while True:
            at = data.find(_END, max(0, fed - len(_END) + 1))
            end = len(data) if at < 0 else at + len(_END)
            self._fed(data[fed:end])
            if at >= 0:
                break
            if (fed := end) > MOST_HEAD_BYTES:
                status = _TOO_MUCH if b"\r\n" in data else HTTPStatus.REQUEST_URI_TOO_LONG
                raise BadRequest(status, f"the request's head goes on behind {MOST_HEAD_BYTES} bytes: send less")
            if not (piece := self._received()):
                raise ConnectionResetError("the connection ended within a request")
            data += piece
        self._ahead = data[end:]
        return self._made()

    def body(self, head: Head, most: int) -> bytes | bytearray:
        """The request's body, unfolded where it is compressed; asks for it where the client waits to be asked.

        Raises
        ------
        BadRequest : it can be no body. TooLarge : it has more than `most` bytes, or unfolds to more.
        FormatError : no length, or a coding that is not gzip.
        """
        coding = head.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise FormatError(f"the body is coded as {coding[:20]!r}: send it as it is, or with gzip")
        chunked = "transfer-encoding" in head.headers
        size = rest.number(head.headers.get("content-length", ""))
        if chunked and head.headers["transfer-encoding"].lower() != "chunked":
            raise FormatError("the transfer encoding must be chunked alone: compress with Content-Encoding")
        if not chunked and size is None:
            raise FormatError("the request must have a Content-Length, or come in chunks")
        if size is not None and size > most:
            raise TooLarge(f"the request has {size} bytes: {most} at most")
        if head.headers.get("expect", "").lower() == "100-continue" and not self._ahead:
            self._patient.sendall(_CONTINUE)
        body = self._chunks(most) if size is None else self._exactly(size)
        return body if coding == "identity" else _unfolded(body, most)

    def _exactly(self, size: int) -> bytearray:
        body, view_from = bytearray(size), min(size, len(self._ahead))
        body[:view_from] = self._ahead[:view_from]
        self._ahead = self._ahead[view_from:]
        view = memoryview(body)
        while view_from < size:
            if not (count := self._patient.recv_into(view[view_from:])):
                raise ConnectionResetError(f"the connection ended after {view_from} of {size} bytes")
            view_from += count
        return body

    def _chunks(self, most: int) -> bytes:
        """Where the chunks end within what was read, the parser does not say: nothing may follow them."""
        events = self._events
        piece, self._ahead = self._ahead, b""
        while True:
            self._fed(piece)
            if events.body_bytes > most:
                raise TooLarge(f"the request has more than {most} bytes")
            if len(events.headers) > MOST_HEADERS:
                raise BadRequest(HTTPStatus.BAD_REQUEST, f"more than {MOST_HEADERS} trailers: send fewer")
            if events.ended:
                return b"".join(events.body)
            if not (piece := self._received()):
                raise ConnectionResetError("the connection ended between two chunks")

    def _received(self) -> bytes:
        return self._patient.recv(_PIECE_BYTES)

    def _fed(self, data: bytes) -> None:
        try:
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an upgrade is an offer, which we do not take
        except httptools.HttpParserInvalidMethodError as error:
            raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, f"the request has no method of HTTP: {error}") from error
        except httptools.HttpParserError as error:
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"the request is no HTTP/1.1: {str(error)[:200]}") from error

    def _made(self) -> Head:
        events, parser = self._events, self._parser
        version = parser.get_http_version()
        if not events.whole or version not in ("1.0", "1.1"):
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"the request is HTTP/{version}: it must be HTTP/1.1")
        if len(events.headers) > MOST_HEADERS:
            raise BadRequest(_TOO_MUCH, f"more than {MOST_HEADERS} headers: send fewer")
        headers: dict[str, str] = {}
        for name, value in events.headers:
            if name in headers and name in _ONCE:
                raise BadRequest(HTTPStatus.BAD_REQUEST, f"the header {name} comes twice: send it once")
            headers[name] = value
        if (expected := headers.get("expect", "100-continue").lower()) != "100-continue":
            raise BadRequest(HTTPStatus.EXPECTATION_FAILED, f"{expected[:20]!r} is expected: only 100-continue can be")
        return Head(
            method=parser.get_method().decode("latin-1"), target=b"".join(events.url).decode("latin-1"),
            version=version, headers=headers,
            keep_alive=events.keep_alive and "transfer-encoding" not in headers,
        )  # fmt: skip


_ONCE = frozenset(
    ("authorization", "content-length", "content-encoding", "transfer-encoding", "expect", rest.HEADER_LENGTH.lower(),
     rest.TIMEOUT_MS)
)  # fmt: skip
"""Headers of which two would leave open which one counts."""


class _Events:
    """What llhttp calls; it may call `on_url` and `on_body` several times."""

    def __init__(self) -> None:
        self.url: list[bytes] = []
        self.headers: list[tuple[str, str]] = []
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.whole = self.ended = self.keep_alive = False
        self.parser: Any = None

    def on_url(self, url: bytes) -> None:
        self.url.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True
        self.keep_alive = self.parser.should_keep_alive()  # afterwards it speaks of the next request
        self.parser = None  # else both would wait for the garbage collector

    def on_body(self, data: bytes) -> None:
        self.body.append(data)
        self.body_bytes += len(data)

    def on_message_complete(self) -> None:
        self.ended = True


def _unfolded(body: bytes | bytearray, most: int) -> bytes:
    """What gzip made `body` of, if it is no more than `most` bytes; never takes more memory to find that out."""
    stream = zlib.decompressobj(_GZIP)
    try:
        data = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise FormatError(f"the body is no gzip ({error}): send it as it is, or compress it anew") from error
    if len(data) > most:
        raise TooLarge(f"the body unfolds to more than {most} bytes")
    if not stream.eof or stream.unused_data:
        raise FormatError("the body is not one whole gzip stream: send it whole, alone")
    return data
