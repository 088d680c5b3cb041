"""HTTP as its clients speak it, and what must not get through; byte for byte."""

import contextlib
import gzip
import json
import re
import socket

import pytest

from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.connections import PATIENCE_S, Connections, Stage
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.fronts.rest_front import RestFront
from runtime.server.interface import Answer, ModelInfo

TOKEN = b"authorization: Bearer t\r\n"
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2.5,3]}]}'
POST = b"POST /v2/models/sum/infer HTTP/1.1\r\n" + TOKEN
LIMIT_BYTES = 4096
ZIPPED, TOO_LONG, BOMB = (gzip.compress(data, mtime=0) for data in (BODY, bytes(LIMIT_BYTES + 1), bytes(2**24)))


class Summing:
    def __init__(self):
        self.models = {name: ModelInfo(shape_in=(3,), shape_out=(1,)) for name in ("sum", "other")}

    def ready(self):
        return True

    def infer(self, model, x, *, deadline_s):
        return Answer(output=x.sum(1, keepdims=True), seconds=0.0)


@contextlib.contextmanager
def served(**limits):
    limits = {"max_message_bytes": LIMIT_BYTES, "read_s": 5.0, "idle_s": 5.0} | limits
    front = RestFront(RequestHandler(Summing()), Admission(Limits(**limits), token="t"))
    front.start()
    try:
        yield front.port
    finally:
        front.stop(1.0)


@pytest.fixture(scope="module")
def port():
    with served() as made:
        yield made


def connected(port, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def said(port, data):
    """What the server says until it closes, which the request asks for."""
    with connected(port) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                answer += piece
        return answer


def got(port, line, more=b"connection: close\r\n"):
    head, _, body = said(port, line + b" HTTP/1.1\r\nhost: x\r\n" + TOKEN + more + b"\r\n").partition(b"\r\n\r\n")
    return head, body


def posted(port, body, more, line=POST):
    """Status of the answer, and the numbers in it, if there are."""
    answer = said(port, line + b"connection: close\r\n" + more + b"\r\n" + body)
    sums = re.search(rb'"data":(\[[^]]*\])', answer)
    return int(answer[9:12]), sums and json.loads(sums[1])


def sized(body):
    return b"content-length: %d\r\n" % len(body)


def in_chunks(body, size=7):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\ntrailer: t\r\n\r\n"


@pytest.mark.parametrize("path", [b"/v2/health/live", b"/v2/health/ready", b"/v2", b"/v2/models", b"/v2/models/sum"])
def test_head_says_what_get_says_without_its_body_and_a_slash_may_follow(port, path):
    head, body = got(port, b"GET " + path)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)
    assert got(port, b"HEAD " + path) == (head, b"")
    assert got(port, b"GET " + path + b"/") == (head, body)


def test_models_are_listed_as_kserve_and_as_triton_list_them(port):
    assert json.loads(got(port, b"GET /v2/models")[1]) == {"models": ["other", "sum"]}
    index = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("other", "sum")]
    for body in (b"", b"{}", b'{"ready":true}'):
        assert json.loads(got(port, b"POST /v2/repository/index", sized(body) + b"connection: close\r\n\r\n" + body)[1])
        answer = said(
            port, b"POST /v2/repository/index HTTP/1.1\r\nconnection: close\r\n" + TOKEN + sized(body) + b"\r\n" + body
        )
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == index
    assert posted(port, b"[", sized(b"["), b"POST /v2/repository/index HTTP/1.1\r\n" + TOKEN)[0] == 400


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (b"DELETE /v2/health/live", b"GET, HEAD"),
        (b"POST /v2/models/sum", b"GET, HEAD"),
        (b"GET /v2/models/sum/infer", b"POST"),
        (b"OPTIONS /v2/repository/index", b"POST"),
    ],
)
def test_another_method_is_told_which_there_are(port, line, allowed):
    head, body = got(port, line)
    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"allow: %s" % allowed in head.split(b"\r\n")
    assert json.loads(body)["error"]


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (BODY, sized(BODY)),
        (in_chunks(BODY), b"transfer-encoding: chunked\r\n"),
        (ZIPPED, b"content-encoding: gzip\r\n" + sized(ZIPPED)),
        (in_chunks(ZIPPED), b"content-encoding: x-gzip\r\ntransfer-encoding: chunked\r\n"),
    ],
)
def test_a_body_may_come_whole_in_chunks_or_compressed(port, body, more):
    assert posted(port, body, more) == (200, [6.5])


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (BOMB, b"content-encoding: gzip\r\ncontent-length: %d\r\n" % len(BOMB), 413),
        (TOO_LONG, b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 400),
        (in_chunks(TOO_LONG),
         b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 413),
        (in_chunks(bytes(2**20), 5000), b"transfer-encoding: chunked\r\n", 413),
        (in_chunks(BODY)[:-20] + b"x" * 20, b"transfer-encoding: chunked\r\n", 400),
        (b"5\nhello\r\n0\r\n\r\n", b"transfer-encoding: chunked\r\n", 400),
        (b"f" * 5000, b"transfer-encoding: chunked\r\n", 400),
        (b"0\r\n" + b"a: b\r\n" * 5000 + b"\r\n", b"transfer-encoding: chunked\r\n", 400),
        (ZIPPED[:-3], b"content-encoding: gzip\r\n" + sized(ZIPPED[:-3]), 400),
        (ZIPPED * 2, b"content-encoding: gzip\r\n" + sized(ZIPPED * 2), 400),
        (BODY, b"content-encoding: br\r\n" + sized(BODY), 400),
        (BODY, b"transfer-encoding: gzip, chunked\r\n", 400),
        (BODY, b"transfer-encoding: chunked\r\n" + sized(BODY), 400),
        (BODY, sized(BODY) + sized(BODY), 400),
        (BODY, b"inference-header-content-length: 5\r\ninference-header-content-length: 6\r\n" + sized(BODY), 400),
    ],
)  # fmt: skip
def test_a_body_beyond_the_bounds_or_not_whole_is_refused(port, body, more, status):
    assert posted(port, body, more) == (status, None)
    assert posted(port, BODY, sized(BODY)) == (200, [6.5])


@pytest.mark.parametrize(
    "data",
    [
        bytes(4096),
        b"GET /v2/health/live HTTP/1.1\nhost: x\n\n",
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\na: b\rc: d\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\na: b\0c\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\na: b\r\n c: d\r\n\r\n",
        b"GET /v2/health/live HTTP/2.0\r\n\r\n",
    ],
)
def test_what_a_proxy_could_read_otherwise_is_refused_at_once_in_few_words(port, data):
    answer = said(port, data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert len(answer) < 500
    assert b"\0" not in answer


@pytest.mark.parametrize(
    ("more", "invited"),
    [(TOKEN + b"content-length: 74\r\n", True), (b"content-length: 74\r\n", False),
     (b"authorization: Bearer x\r\ncontent-length: 74\r\n", False), (TOKEN + b"content-length: 5000\r\n", False)],
)  # fmt: skip
def test_who_waits_to_be_asked_for_a_body_is_asked_only_when_it_may_come(port, more, invited):
    with connected(port) as sock:
        sock.sendall(
            b"POST /v2/models/sum/infer HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\n" + more + b"\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n" if invited else b"HTTP/1.1 4")
        if invited:
            sock.sendall(BODY)
            assert b"[6.5]" in sock.recv(65536)


def test_another_expectation_than_to_be_asked_fails(port):
    assert posted(port, BODY, b"expect: a miracle\r\n" + sized(BODY))[0] == 417


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v2/models/sum/infer HTTP/1.1\r\nhost:", POST + b"content-length: 74\r\n\r\n{"]
)
def test_an_address_that_holds_every_place_gives_one_up_to_another_at_once(sent):
    with served(max_connections=6, read_s=60.0, idle_s=60.0) as port, contextlib.ExitStack() as held:
        for _ in range(20):
            held.enter_context(connected(port, "127.0.0.2")).sendall(sent)
        assert posted(port, BODY, sized(BODY)) == (200, [6.5])


class Places:
    """`Connections` with a clock that the test turns."""

    def __init__(self, most=3):
        self.now, self.sockets = 0.0, []
        self.connections = Connections(most, clock=lambda: self.now)

    def enter(self, address, *stages):
        self.sockets.append(socket.socket())
        made = self.connections.entered(self.sockets[-1], address)
        for stage in stages:
            assert self.connections.reached(made, stage)
        return made

    def has(self, *ones):
        return [self.connections.reached(one, one.stage) for one in ones]


@pytest.fixture
def places():
    made = Places()
    yield made
    for one in made.sockets:
        one.close()


def test_who_has_waited_longest_goes_first_and_who_is_answered_stays(places):
    answered = places.enter("a", Stage.SENDING, Stage.ANSWERED)
    places.now = 1.0
    slow = places.enter("a", Stage.SENDING)
    places.now = 1.5
    later = places.enter("a")
    assert places.enter("a") is None  # nobody has been waited for long enough
    places.now = 1.0 + PATIENCE_S
    assert places.enter("a")
    assert places.has(answered, slow, later) == [True, False, True]


def test_a_newcomer_takes_from_the_address_that_has_most_where_strangers_go_first(places):
    known = places.enter("many", Stage.SENDING, Stage.ANSWERED, Stage.IDLE)
    strangers = [places.enter("many"), places.enter("many", Stage.SENDING)]
    places.now = 0.1
    new = places.enter("new")
    assert places.has(known, *strangers, new) == [True, False, True, True]
    assert places.enter("newer")
    assert places.has(known, strangers[1], new) == [True, False, True]
    assert places.enter("newest") is None  # three addresses with a place each
    places.now = 0.2 + PATIENCE_S
    assert places.enter("newest")


def test_a_request_of_a_known_connection_is_not_cut_for_another_address(places):
    sending = [places.enter(name, Stage.SENDING, Stage.ANSWERED, Stage.IDLE, Stage.SENDING) for name in "abc"]
    places.now = 10.0
    assert places.enter("d") is None
    assert all(places.has(*sending))
