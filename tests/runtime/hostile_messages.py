"""Messages that no honest device sends, each with what is wrong with it; the same ones from the same seed.

frames ──┐
tensors ─┴─ Asked ── as gRPC ── Hostile        and what is wrong with the coding itself:
                  └─ as HTTP ── Hostile        `GRPC_CODING`, `HTTP_CODING` (hostile_http), `GRPC_CONNECTIONS`
"""

import functools
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from bundles import FROM_IMAGE, IMAGE

from runtime.wire.frames import encode
from runtime.wire.protocol.messages import message

TOKEN = "let-me-in"
X = np.random.default_rng(0).standard_normal((1, *IMAGE), np.float32)
LARGEST_BYTES = 16_000_000
"""What `nas serve` takes unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A message. kind : what is wrong with it. data : of the call, or all that is sent on a connection of its own.

    passes : it may be answered all the same. silent : the connection may just end.
    method, metadata, timeout_s : of a gRPC call; "" where `data` is sent as it is.
    """

    kind: str
    data: bytes
    method: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 20.0
    passes: bool = False
    silent: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An inference, whatever it is sent over. inputs : name, type, shape, bytes."""

    model: str = FROM_IMAGE
    version: str = ""
    id: str = "1"
    inputs: tuple[tuple[str, str, tuple[int, ...], bytes], ...] = field(
        default_factory=lambda: (("x", "FP32", X.shape, X.tobytes()),)
    )
    outputs: tuple[str, ...] = ()
    passes: bool = False


# ---- frames


def _framed(frame: bytes, *, passes: bool = False) -> Asked:
    return Asked(inputs=(("frame", "UINT8", (len(frame),), frame),), passes=passes)


def _checked(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def flipped(rng: random.Random, data: bytes) -> bytes:
    """With one to eight bits turned."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


@functools.cache
def _frame(bits: int, images: int = 1) -> bytes:
    return encode(np.repeat(X, images, 0), bits)


def _header(shape: tuple[int, ...], payload: bytes, **said: int | float) -> bytes:
    """A frame of 8-bit features that says what it is told to, with a right checksum."""
    fields = {"magic": b"NMF", "version": 1, "kind": 0, "method": 1, "bits": 8, "rank": len(shape), "lo": 0.0,
              "step": 1.0, "length": len(payload)} | said  # fmt: skip
    return _checked(struct.pack("<3s5BffI", *fields.values()) + struct.pack(f"<{len(shape)}I", *shape) + payload)


def _bomb(rng: random.Random) -> Asked:
    """Deflate streams that unfold to a thousand times their size: 3 MB, or 3 GB."""
    images = rng.choice([1] * 20 + [1000])
    return _framed(_header((images, *IMAGE), _zeros_deflated()[: 3000 * images]))


@functools.cache
def _zeros_deflated() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return block * (3_000_000 // len(block) + 1)


def _huffman(rng: random.Random) -> Asked:
    """Blocks of deflate with code lengths that make no code, of no type, or of another length than they say."""
    begins = rng.choice([b"\x05", b"\x07", b"\x01\x10\x00\x10\x00", b"\x00\xff\xff\x00\x00", b"\x04"])
    return _framed(_header((1, *IMAGE), begins + rng.randbytes(rng.randint(0, 2000))))


def _lying(rng: random.Random) -> Asked:
    fields: dict[str, int | float] = {
        "version": rng.randrange(256), "kind": rng.randrange(256), "method": rng.randrange(256),
        "bits": rng.choice([0, 9, 16, 17, 31, 32, 33, 255]), "rank": rng.choice([0, 3, 5, 9, 255]),
        "lo": rng.choice([float("nan"), float("inf"), 3e38]), "step": rng.choice([float("nan"), -1.0, float("inf")]),
        "length": rng.choice([0, 2**31, 2**32 - 1]),
    }  # fmt: skip
    name = rng.choice(list(fields))
    return _framed(_header((1, *IMAGE), bytes(100), **{name: fields[name]}))


def _shaped(rng: random.Random) -> Asked:
    sizes = [0, 1, 3, 32, 2**16, 2**28, 2**32 - 1]
    return _framed(_header(tuple(rng.choice(sizes) for _ in range(rng.randint(1, 8))), rng.randbytes(64)))


def _spliced(rng: random.Random) -> Asked:
    first, second = rng.sample([_frame(bits) for bits in (1, 3, 4, 12, 16, 32)], 2)
    cut = rng.randint(8, 40)
    return _framed(_checked(first[:cut] + second[cut:-4]), passes=True)  # they may fit together


# ---- tensors


def _tensor(**changes: object) -> Callable[[random.Random], Asked]:
    given = {"name": "x", "datatype": "FP32", "shape": X.shape, "data": X.tobytes()} | changes
    return lambda rng: Asked(inputs=(tuple(v(rng) if callable(v) else v for v in given.values()),))  # type: ignore[arg-type]


def _any_shape(rng: random.Random) -> tuple[int, ...]:
    sizes = [-1, -(2**63), 0, 1, 3, 32, 33, 2**31, 2**62, 2**63 - 1]
    return tuple(rng.choice(sizes) for _ in range(rng.choice([0, 1, 2, 3, 4, 4, 4, 5, 9, 1000])))


def _not_finite(rng: random.Random) -> bytes:
    made = X.copy()
    made.flat[rng.randrange(made.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return made.tobytes()


TENSORS: dict[str, Callable[[random.Random], Asked]] = {
    "frame: bits flipped": lambda rng: _framed(flipped(rng, _frame(8))),
    "frame: bits flipped, checksum made right": lambda rng: _framed(
        _checked(flipped(rng, _frame(rng.choice([4, 8, 12])))[:-4]), passes=True
    ),
    "frame: cut short": lambda rng: _framed(_frame(8)[: rng.randrange(len(_frame(8)))]),
    "frame: longer": lambda rng: _framed(_frame(8) + rng.randbytes(rng.randint(1, 100))),
    "frame: spliced of two": _spliced,
    "frame: header lies": _lying,
    "frame: sizes lie": _shaped,
    "frame: deflate bomb": _bomb,
    "frame: no Huffman code": _huffman,
    "frame: noise": lambda rng: _framed(rng.randbytes(rng.randrange(4000))),
    "tensor: another shape": _tensor(shape=_any_shape),
    "tensor: empty, of impossible sizes": _tensor(
        shape=lambda rng: (rng.choice([1, 2]), 0, 2**62, rng.choice([2**62, 4])), data=b""
    ),
    "tensor: another type": _tensor(
        datatype=lambda rng: rng.choice(["FP64", "INT8", "BYTES", "", "fp32", "UINT8", "X" * 100_000])
    ),
    "tensor: another name": _tensor(name=lambda rng: rng.choice(["", "X", "frame", "logits", "é" * 50_000])),
    "tensor: not finite": _tensor(data=_not_finite),
    "tensor: too few bytes": _tensor(data=lambda rng: X.tobytes()[: rng.randrange(X.nbytes)]),
    "tensor: too many bytes": _tensor(data=lambda rng: X.tobytes() + rng.randbytes(rng.randint(1, 99))),
    "request: no input": lambda rng: Asked(inputs=()),
    "request: many inputs": lambda rng: Asked(inputs=Asked().inputs[:1] * rng.choice([2, 5])),
    "request: unknown outputs": lambda rng: Asked(outputs=("logits", "é" * 90_000)[rng.randrange(2) :] * 2),
    "request: unknown model": lambda rng: Asked(
        model=rng.choice(["nothing", "../" * 9, "\n\x01 ", "%00", "é" * 40, FROM_IMAGE[:-1], "m" * 9000])
    ),
    "request: unknown version": lambda rng: Asked(version=rng.choice(["0", "2", "-1", "latest", "v" * 9000])),
    "request: long id": lambda rng: Asked(id="i" * 50_000, passes=True),
}


# ---- gRPC


def grpc_request(asked: Asked) -> bytes:
    """A ModelInferRequest."""
    made = message("inference.ModelInferRequest")(model_name=asked.model, model_version=asked.version, id=asked.id)
    for name, datatype, shape, data in asked.inputs:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
        made.raw_input_contents.append(data)
    for name in asked.outputs:
        made.outputs.add(name=name)
    return made.SerializeToString()


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    return (
        b"" if number < 0 else bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)
    )


_INFER = "/inference.GRPCInferenceService/ModelInfer"
_BEARER = (("authorization", f"Bearer {TOKEN}"),)
_GOOD_GRPC = grpc_request(Asked())


def _call(kind: str, data: bytes, **said: object) -> Hostile:
    return replace(Hostile(kind=kind, data=data, method=_INFER, metadata=_BEARER), **said)


_LARGE = "gRPC: too large"
GRPC_CODING: dict[str, Callable[[random.Random], Hostile]] = {
    "gRPC: bits flipped": lambda rng: _call("", flipped(rng, _GOOD_GRPC), passes=True),
    "gRPC: cut short": lambda rng: _call("", _GOOD_GRPC[: rng.randrange(12_000)]),
    "gRPC: noise": lambda rng: _call("", rng.randbytes(rng.randrange(300))),
    "gRPC: noise behind": lambda rng: _call("", _GOOD_GRPC + rng.randbytes(rng.randint(1, 30)), passes=True),
    "gRPC: huge declared size": lambda rng: _call(
        "", bytes([rng.choice([10, 26, 42, 58])]) + rng.choice([b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01"]) + b"x"
    ),
    "gRPC: groups in groups": lambda rng: _call("", b"\x0b" * rng.choice([1, 100, 50_000])),
    "gRPC: both raw and listed": lambda rng: _call(
        "", _GOOD_GRPC + _field(5, _field(5, _field(6, bytes(4)))) + _field(7, b"")
    ),
    "gRPC: empty tensors by the million": lambda rng: _call("", _field(5, b"") * rng.choice([1000, 1_000_000])),
    "gRPC: empty contents by the million": lambda rng: _call("", _field(7, b"") * rng.choice([1000, 1_000_000])),
    "gRPC: sizes by the million": lambda rng: _call("", _field(5, _field(3, bytes(rng.choice([9, 2_000_000]))))),
    _LARGE: lambda rng: _call("", bytes(LARGEST_BYTES + rng.choice([1, 1_000_000]))),
    "gRPC: no token": lambda rng: _call("", _GOOD_GRPC, metadata=()),
    "gRPC: another token": lambda rng: _call(
        "", _GOOD_GRPC, metadata=(("authorization", rng.choice(["", TOKEN, "Bearer", f"Bearer {TOKEN}x", "b" * 4000])),)
    ),
    "gRPC: unknown call": lambda rng: _call("", b"", method=rng.choice(["/a/b", "/" + "x" * 2000, _INFER + "s"])),
    "gRPC: another call's message": lambda rng: _call(
        "", _GOOD_GRPC, method=_INFER.replace("Infer", rng.choice(["Metadata", "Ready"])), passes=True
    ),
    "gRPC: no time": lambda rng: _call("", _GOOD_GRPC, timeout_s=rng.choice([1e-6, 1e-4]), passes=True),
}

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def _http2(rng: random.Random) -> bytes:
    """Frames of random types and flags, some of which say more than they hold."""
    made = []
    for _ in range(rng.randint(1, 20)):
        payload = rng.randbytes(rng.randrange(60))
        size = len(payload) if rng.random() < 0.8 else rng.choice([2**14, 2**24 - 1])
        head = size.to_bytes(3, "big") + bytes([rng.randrange(12), rng.randrange(256)])
        made.append(head + rng.choice([0, 1, 2, 3, 2**31 - 1]).to_bytes(4, "big") + payload)
    return _PREFACE + _SETTINGS + b"".join(made)


GRPC_CONNECTIONS: dict[str, Callable[[random.Random], bytes]] = {
    "connection: noise": lambda rng: rng.randbytes(rng.randrange(500)),
    "connection: HTTP/1": lambda rng: b"GET / HTTP/1.1\r\n\r\n",
    "connection: TLS": lambda rng: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
    "connection: HTTP/2 frames": _http2,
    "connection: pings": lambda rng: _PREFACE + _SETTINGS + b"\0\0\x08\6\0\0\0\0\0pingping" * 500,
    "connection: settings": lambda rng: _PREFACE + _SETTINGS * 2000,
    "connection: streams opened and reset": lambda rng: _PREFACE + _SETTINGS + b"".join(
        b"\0\0\x03\1\4" + (2 * i + 1).to_bytes(4, "big") + b"\x83\x86\x84"
        + b"\0\0\4\3\0" + (2 * i + 1).to_bytes(4, "big") + b"\0\0\0\x08"
        for i in range(300)
    ),
}  # fmt: skip


GRPC_KINDS = (*TENSORS, *GRPC_CODING, *GRPC_CONNECTIONS)


def over_grpc(rng: random.Random, kind: str = "") -> Hostile:
    """One of a kind; of any, the large ones seldom, since they take a second."""
    kind = kind or rng.choices(GRPC_KINDS, [0.03 if one == _LARGE else 1.0 for one in GRPC_KINDS])[0]
    if kind in TENSORS:
        asked = TENSORS[kind](rng)
        return _call(kind, grpc_request(asked), passes=asked.passes)
    if kind in GRPC_CONNECTIONS:
        return Hostile(kind=kind, data=GRPC_CONNECTIONS[kind](rng), silent=True)
    return replace(GRPC_CODING[kind](rng), kind=kind)
