"""What is answered at which path of the REST form.

GET, HEAD  /v2   /v2/health/live   /v2/health/ready   /v2/models   /v2/models/M[/versions/1][/ready]
POST       /v2/models/M[/versions/1]/infer   /v2/repository/index

A slash may follow. Health needs no token, all else does.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec

from modeltree.errors import FormatError
from modeltree.units import s_from_ms
from runtime.server.fronts.admission import Admission
from runtime.server.fronts.http_request import Head
from runtime.server.fronts.request_handler import EXTENSIONS, Refusal, RequestHandler
from runtime.server.interface import UnknownModel
from runtime.wire.protocol import rest
from runtime.wire.protocol.reasons import KEY, Reason
from runtime.wire.protocol.tensors import CHECKSUM, FRAME, PROBE, SECONDS, VERSION, WAITING, X, checksum

_READ = ("GET", "HEAD")
_NOTHING = "there is nothing at this path: see /v2, /v2/health/ready, /v2/models and /v2/repository/index"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A status, the body, and headers beside those that every answer has."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where a path leads. free : whether no token is needed."""

    methods: tuple[str, ...]
    answer: Callable[["Asked"], Answer]
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A whole request: from where, with which parts of its path behind `/v2`, and since when it is there."""

    head: Head
    body: bytes | bytearray
    address: str
    path: tuple[str, ...]
    begun: float


class Routes:
    """Answers for a request handler, to those whom `admission` lets in."""

    def __init__(self, handler: RequestHandler, admission: Admission) -> None:
        self._handler, self._admission = handler, admission

    def find(self, path: tuple[str, ...]) -> Route:
        """What there is at a path.

        Raises
        ------
        UnknownModel : nothing.
        """
        match path:
            case ():
                return Route(methods=_READ, answer=self._server)
            case ("health", "live"):
                return Route(methods=_READ, answer=lambda _: _json(200, {"live": True}), free=True)
            case ("health", "ready"):
                return Route(methods=_READ, answer=self._ready, free=True)
            case ("models",):
                return Route(methods=_READ, answer=self._models)
            case ("repository", "index"):
                return Route(methods=("POST",), answer=self._index)
            case ("models", _, "infer") | ("models", _, "versions", _, "infer"):
                return Route(methods=("POST",), answer=self._infer)
            case ("models", _) | ("models", _, "versions", _):
                return Route(methods=_READ, answer=self._model)
            case ("models", _, "ready") | ("models", _, "versions", _, "ready"):
                return Route(methods=_READ, answer=self._model_ready)
        raise UnknownModel(_NOTHING)

    def _server(self, asked: Asked) -> Answer:
        return _json(200, {"name": "nas", "version": VERSION, "extensions": EXTENSIONS})

    def _ready(self, asked: Asked) -> Answer:
        ready = self._handler.ready()
        return _json(200 if ready else 503, {"ready": ready})

    def _models(self, asked: Asked) -> Answer:
        return _json(200, {"models": self._handler.models()})

    def _index(self, asked: Asked) -> Answer:
        try:
            wanted = msgspec.json.decode(asked.body, type=rest.IndexRequest) if asked.body else rest.IndexRequest()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f'the request is not JSON such as {{"ready": true}}: {error}') from error
        ready = self._handler.ready()
        state = "READY" if ready else "UNAVAILABLE"
        names = self._handler.models() if ready or not wanted.ready else []
        return _json(200, [{"name": name, "version": VERSION, "state": state, "reason": ""} for name in names])

    def _model(self, asked: Asked) -> Answer:
        name, version = _model_of(asked.path)
        info = self._handler.model(name, version)
        return _json(200, {
            "name": name, "versions": [VERSION], "platform": "nas",
            "inputs": [{"name": X, "datatype": "FP32", "shape": [-1, *info.shape_in]},
                       {"name": FRAME, "datatype": "UINT8", "shape": [-1]}],
            "outputs": [{"name": answer, "datatype": "FP32", "shape": [-1, *shape]}
                        for answer, shape in info.answers.items()],
        })  # fmt: skip

    def _model_ready(self, asked: Asked) -> Answer:
        name, version = _model_of(asked.path)
        served = name == PROBE or bool(self._handler.model(name, version))
        return _json(200, {"name": name, "ready": served and self._handler.ready()})

    def _infer(self, asked: Asked) -> Answer:
        name, version = _model_of(asked.path)
        with self._admission.place(asked.address):
            header, blob = rest.split(asked.body, asked.head.headers.get(rest.HEADER_LENGTH.lower()))
            try:
                wanted = msgspec.json.decode(header, type=rest.InferRequest)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise FormatError(f"the request is not the JSON that it must be: {error}") from error
            outputs = [one.name for one in wanted.outputs]
            answered = self._handler.infer(name, version, rest.tensors(wanted.inputs, blob), outputs, _left_s(asked))
        binary = wanted.wants_binary()
        reply = rest.InferReply(
            model_name=name, model_version=VERSION, id=wanted.id,
            parameters={
                SECONDS: answered.seconds, WAITING: answered.waiting_s, CHECKSUM: checksum(answered.tensors),
            },
            outputs=[rest.describe(one, binary=binary) for one in answered.tensors],
        )  # fmt: skip
        whole, header_length = rest.joined(reply, [one.data for one in answered.tensors] if binary else [])
        return Answer(status=200, body=whole, headers={rest.HEADER_LENGTH: str(header_length)} if binary else {})


def parts_of(target: str) -> tuple[str, ...]:
    """What stands in a path behind `/v2`, without a slash at its end.

    Raises
    ------
    UnknownModel : it is another path.
    """
    parts = tuple(unquote(part) for part in target.split("?")[0].split("/"))
    if len(parts) > 2 and parts[-1] == "":
        parts = parts[:-1]
    if parts[:2] != ("", "v2"):
        raise UnknownModel(_NOTHING)
    return parts[2:]


def refused(refusal: Refusal) -> Answer:
    """What is said instead of an answer."""
    headers = {KEY: refusal.reason.word}
    if refusal.reason in (Reason.BUSY, Reason.DRAINING):
        headers["retry-after"] = "1"
    if refusal.reason is Reason.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return Answer(status=refusal.reason.http_status, body=_error(refusal.message), headers=headers)


def unreadable(status: HTTPStatus, message: str) -> Answer:
    """What is said to what is no request."""
    return Answer(status=status, body=_error(message), headers={KEY: Reason.MALFORMED.word})


def not_allowed(route: Route) -> Answer:
    """What is said to another method than a path has."""
    methods = ", ".join(route.methods)
    made = unreadable(HTTPStatus.METHOD_NOT_ALLOWED, f"the method must be {' or '.join(route.methods)}")
    return Answer(status=made.status, body=made.body, headers={**made.headers, "allow": methods})


def _model_of(path: tuple[str, ...]) -> tuple[str, str]:
    """Name and version, "" where none is named."""
    return path[1], path[3] if path[2:3] == ("versions",) else ""


def _left_s(asked: Asked) -> float | None:
    """Until the deadline; None without one.

    Raises
    ------
    FormatError : it is no number.
    """
    given = asked.head.headers.get(rest.TIMEOUT_MS)
    if given is None:
        return None
    timeout_ms = rest.number(given)
    if timeout_ms is None:
        raise FormatError(f"{rest.TIMEOUT_MS} is {given[:20]!r}: it must be whole milliseconds")
    return s_from_ms(timeout_ms) - (time.monotonic() - asked.begun)


def _json(status: int, what: Any) -> Answer:
    return Answer(status=status, body=msgspec.json.encode(what))


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": message})
