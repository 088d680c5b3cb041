"""HTTP that no honest device sends; see hostile_messages."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from bundles import FROM_IMAGE, IMAGE
from hostile_messages import LARGEST_BYTES, TENSORS, TOKEN, Asked, Hostile, X, flipped

_INFER = f"/v2/models/{FROM_IMAGE}/infer"
_FLAT = f'"name":"x","datatype":"FP32","shape":[1,{",".join(map(str, IMAGE))}]'


def http(
    body: bytes, *, path: str = _INFER, length: str | None = None, header_length: str | None = None,
    token: str | None = TOKEN, more: bytes = b"", method: str = "POST",
) -> bytes:  # fmt: skip
    """A request, byte for byte."""
    lines = [f"{method} {path} HTTP/1.1", f"content-length: {len(body) if length is None else length}"]
    lines += [] if token is None else [f"authorization: Bearer {token}"]
    lines += [] if header_length is None else [f"Inference-Header-Content-Length: {header_length}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + more + b"\r\n" + body


def http_request(asked: Asked) -> bytes:
    """With the tensors as bytes behind the JSON."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in asked.inputs
    ]
    head = {"id": asked.id, "inputs": inputs, "outputs": [{"name": name} for name in asked.outputs]}
    text = json.dumps(head).encode()
    version = f"/versions/{quote(asked.version, safe='')}" if asked.version else ""
    path = f"/v2/models/{quote(asked.model, safe='')}{version}/infer"
    return http(text + b"".join(one[3] for one in asked.inputs), path=path, header_length=str(len(text)))


def _of_json(text: bytes | str, *, passes: bool = False) -> Hostile:
    data = text.encode() if isinstance(text, str) else text
    return Hostile(kind="", data=http(data), passes=passes)


def _input(more: str) -> str:
    """JSON with the right input, but for what is said of its numbers."""
    return '{"inputs":[{' + _FLAT + more + "}]}"


def _data(numbers: str) -> Hostile:
    return _of_json(_input(f',"data":{numbers}'))


def _sized(size: str) -> Hostile:
    text = _input(',"parameters":{"binary_data_size":' + size + "}").encode()
    return Hostile(kind="", data=http(text + X.tobytes(), header_length=str(len(text))))


def _sent(data: bytes, **said: bool) -> Hostile:
    return Hostile(kind="", data=data, **said)


_GOOD = http_request(Asked())
_HEAD, _, _BODY = _GOOD.partition(b"\r\n\r\n")
_JSON_SIZE = str(len(_BODY) - X.nbytes)
_ZEROS = ",".join("0" * X.size)


def _with(header: bytes) -> bytes:
    """A good request with headers more."""
    return http(_BODY, header_length=_JSON_SIZE, more=header)


HTTP_CODING: dict[str, Callable[[random.Random], Hostile]] = {
    "JSON: nested deeply": lambda rng: _of_json(rng.choice(["[", '{"a":', '{"inputs":[{"data":' + "["]) * 50_000),
    "JSON: nested data": lambda rng: _data("[" * 40 + "]" * 40),
    "JSON: huge number": lambda rng: _data(f"[{rng.choice(['1e999', '-1e400', '1' * 400, '1' * 20_000, '1e39'])}]"),
    "JSON: NaN": lambda rng: _data(rng.choice(["[NaN]", "[Infinity]", "[null]", "[-]", "[0x1]", "[01]", "[1.]"])),
    "JSON: a long text among numbers": lambda rng: _data(f'["{"a" * 100_000}",{_ZEROS}]'),
    "JSON: duplicate keys": lambda rng: _of_json(
        '{"inputs":[],"id":"1","id":"2",' + _input(f',"data":[],"data":[{_ZEROS}]')[1:], passes=True
    ),
    "JSON: wrong types": lambda rng: _of_json(
        rng.choice(['{"inputs":{}}', '{"inputs":[1]}', "[]", "1", '""', "null", "{}", '{"inputs":null}',
                    '{"id":1,"inputs":[]}', '{"inputs":[],"parameters":[]}',
                    '{"inputs":[{"name":"x","datatype":"FP32","shape":"3"}]}',
                    '{"inputs":[{"name":"x","datatype":"FP32","shape":[1e3]}]}',
                    _input(',"data":[true]'), _input(',"data":{"a":1}'), _input(',"data":[[1],2,[[3]]]')])
    ),
    "JSON: no text": lambda rng: _of_json(
        rng.choice([b"\xef\xbb\xbf{}", b"\xff\xfe{}", b'{"id":"\xed\xa0\x80"}', b'{"id":"\\ud800"}', b'{"id":"\x00"}',
                    b'{"id":"\\udc00\\ud800","inputs":[]}', b"{} {}", b"", b"\x00" * 100])
    ),
    "JSON: sizes beyond counting": lambda rng: _of_json(
        '{"inputs":[{"name":"x","datatype":"FP32","shape":[' + ",".join(["9" * 4000] * 8) + '],"data":[]}]}'
    ),
    "JSON: empty lists by the million": lambda rng: _data(f"[{'[],' * rng.choice([9, 500_000])}1]"),
    "JSON: tensors by the thousand": lambda rng: _of_json('{"inputs":[' + ",".join(["{" + _FLAT + "}"] * 5000) + "]}"),
    "JSON: bits flipped": lambda rng: _sent(
        _HEAD + b"\r\n\r\n" + flipped(rng, _BODY[:150]) + _BODY[150:], passes=True
    ),
    "HTTP: another size of the JSON": lambda rng: _sent(
        http(_BODY, header_length=rng.choice(["-1", "0", "1", "99999999999", "1e2", "0x10", "", "9" * 5000]))
    ),
    "HTTP: another size of a tensor": lambda rng: _sized(
        rng.choice(["-1", "0", "1", "12287", "12289", "1e3", "true", "null", '"12288"', "[]", "9" * 4000, "1" * 9])
    ),
    "HTTP: no length": lambda rng: _sent(_HEAD.replace(b"content-length", b"x-length") + b"\r\n\r\n" + _BODY),
    "HTTP: another length": lambda rng: _sent(
        http(_BODY, length=rng.choice(["-1", "+5", "1_0", "1e3", "0x10", "", "9" * 30, "5, 5", str(LARGEST_BYTES + 1)]))
    ),
    "HTTP: two lengths": lambda rng: _sent(
        _with(b"content-length: %d\r\n" % rng.choice([0, 5, 10**6]))
    ),
    "HTTP: shorter than it says": lambda rng: _sent(_GOOD[: len(_GOOD) - rng.randint(1, 12_000)], silent=True),
    "HTTP: longer than it says": lambda rng: _sent(_GOOD + rng.randbytes(rng.randint(1, 100)), passes=True),
    "HTTP: chunked": lambda rng: _sent(http(b"5\r\nhello\r\n0\r\n\r\n", more=b"transfer-encoding: chunked\r\n")),
    "HTTP: compressed": lambda rng: _sent(http(_BODY, more=b"content-encoding: gzip\r\n")),
    "HTTP: too large": lambda rng: _sent(
        http(b"", length=str(10**11)) if rng.random() < 0.9 else http(bytes(LARGEST_BYTES + 1))
    ),
    "HTTP: noise": lambda rng: _sent(rng.randbytes(rng.randint(1, 300)) + b"\r\n\r\n", silent=True),
    "HTTP: another line": lambda rng: _sent(
        rng.choice([b"GET\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / / HTTP/1.1\r\n\r\n",
                    b"POST  HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"])
    ),
    "HTTP: many headers": lambda rng: _sent(_with(b"a: b\r\n" * rng.choice([101, 5000]))),
    "HTTP: a long header": lambda rng: _sent(_with(b"a: " + b"b" * rng.choice([70_000, 10**6]) + b"\r\n")),
    "HTTP: a header that hides those behind it": lambda rng: _sent(
        _with(rng.choice([b"no colon", b"a : b", b"a\x00: b", b": b"]) + b"\r\ntransfer-encoding: chunked\r\n")
    ),
    "HTTP: a header on two lines": lambda rng: _sent(_with(b"a: b\r\n c\r\n"), passes=True),
    "HTTP: another path": lambda rng: _sent(
        http(_BODY, path=rng.choice(["/", "//", "/v2", "/v2/models", "/v2/models//infer", "/../../etc/passwd", "*",
                                     "/v2/models/%2e%2e%2finfer", "/v2/models/%ff%fe/infer", "/v2/models/%/infer",
                                     "/v2/models/a/versions/1/infer", "http://elsewhere/v2"]))
    ),
    "HTTP: another path asked for": lambda rng: _sent(
        http(b"", method="GET", path=rng.choice(["/", "/v3", "/v2/models/nothing", "/v2/models/a/b/c/d", "/v2/health",
                                                 "/v2/models/%00", "/v2/models/" + "%41" * 9000]))
    ),
    "HTTP: no patience": lambda rng: _sent(
        _with(b"nas-timeout-ms: %s\r\n" % rng.choice([b"-1", b"0", b"x", b"9" * 40]))
    ),
    "HTTP: no token": lambda rng: _sent(_GOOD.replace(b"authorization", b"x-authorization")),
    "HTTP: another token": lambda rng: _sent(
        http(_BODY, token=rng.choice(["", "x", TOKEN + "x", TOKEN[:-1], "\xe9", "b" * 4000]))
    ),
}  # fmt: skip


HTTP_KINDS = (*TENSORS, *HTTP_CODING)


def over_http(rng: random.Random, kind: str = "") -> Hostile:
    """One of a kind, or of any."""
    kind = kind or rng.choice(HTTP_KINDS)
    if kind in TENSORS:
        asked = TENSORS[kind](rng)
        return Hostile(kind=kind, data=http_request(asked), passes=asked.passes)
    return replace(HTTP_CODING[kind](rng), kind=kind)
