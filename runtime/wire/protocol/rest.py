"""The REST form: a JSON object, and behind it the tensors' bytes (the binary tensor extension).

The header `Inference-Header-Content-Length` says where the JSON ends; without it all of the body is JSON. A tensor says
in its parameter `binary_data_size` how many of the bytes behind are its own, in order; one without has `data`, a list.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from modeltree.errors import FormatError
from runtime.wire.protocol.tensors import Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"
TIMEOUT_MS = "nas-timeout-ms"
"""How long from now the device waits, whole milliseconds; what the deadline is in gRPC."""

_MOST_DIGITS = 12
_MOST_BRACKETS = 100_000
"""Of the JSON: an empty list takes twenty times the memory that it takes on the wire."""
_BINARY_SIZE = "binary_data_size"

_Flat = list[int | float]
_Rank2 = list[int | float | _Flat]
_Rank3 = list[int | float | _Rank2]
_Rank4 = list[int | float | _Rank3]
_Rank5 = list[int | float | _Rank4]
_Rank6 = list[int | float | _Rank5]
_Rank7 = list[int | float | _Rank6]
Numbers = list[int | float | _Rank7]
"""A tensor in JSON, flat or nested. Numbers alone: among them one long text would make numpy give each as much room."""


class Described(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A tensor without its bytes. `parameters` may be null, as some servers write what they leave out."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = {}
    data: Numbers | None = None


class Requested(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is posted to `/v2/models/NAME/infer`."""

    id: str = ""
    parameters: dict[str, Any] = {}
    inputs: list[Described]
    outputs: list[Requested] = []

    def wants_binary(self) -> bool:
        """Whether the (one) output shall come as bytes."""
        everywhere = self.parameters.get("binary_data_output") is True
        return bool(self.outputs[0].parameters.get("binary_data", everywhere)) if self.outputs else everywhere


class IndexRequest(msgspec.Struct, kw_only=True):
    """What is posted to `/v2/repository/index`. ready : whether only models that are ready are asked for."""

    ready: bool = False


class InferReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What comes back. Some servers write null for what they leave out."""

    model_name: str
    model_version: str | None = ""
    id: str | None = ""
    parameters: dict[str, Any] | None = {}
    outputs: list[Described]


class Metadata(msgspec.Struct, kw_only=True):
    """What `GET /v2/models/NAME` says. Some servers write null for what they leave out."""

    name: str
    versions: list[str] | None = []
    platform: str | None = ""
    inputs: list[Described]
    outputs: list[Described]


def joined(what: InferRequest | InferReply, blobs: Iterable[bytes | memoryview]) -> tuple[bytes, int]:
    """Body and length of its JSON."""
    header = msgspec.json.encode(what)
    return b"".join([header, *blobs]), len(header)


def describe(tensor: Tensor, *, binary: bool = True) -> Described:
    """A tensor's JSON: with its numbers in it, or the count of bytes behind."""
    described = Described(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))
    if binary:
        described.parameters = {_BINARY_SIZE: len(tensor.data)}
    else:
        described.data = tensor.array().ravel().tolist()
    return described


def split(body: bytes | bytearray, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON, and the bytes behind it.

    Raises
    ------
    FormatError : the header is no number within the body, or the JSON has more lists and objects than any tensor.
    """
    end = len(body) if header_length is None else number(header_length)
    if end is None or end > len(body):
        raise FormatError(f"{HEADER_LENGTH} is {str(header_length)[:20]!r}: it must be a number within 0..{len(body)}")
    if (brackets := body.count(b"[", 0, end) + body.count(b"{", 0, end)) > _MOST_BRACKETS:
        raise FormatError(f"the JSON has {brackets} lists and objects: {_MOST_BRACKETS} at most; send numbers as bytes")
    whole = memoryview(body)
    return whole[:end], whole[end:]


def number(text: str) -> int | None:
    """A whole number in plain digits; None if it is none, or longer than any that we take."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def tensors(described: Sequence[Described], blob: memoryview) -> list[Tensor]:
    """Tensors with their numbers, from the JSON or from behind it.

    Raises
    ------
    FormatError : sizes, types and contents do not fit together, or bytes are left over.
    """
    made = []
    for one in described:
        size = (one.parameters or {}).get(_BINARY_SIZE)
        if size is None:
            made.append(Tensor.checked(one.name, one.datatype, one.shape, one.data or []))
            continue
        if type(size) is not int or not 0 <= size <= len(blob) or one.data is not None:
            shown = f"{_BINARY_SIZE} {repr(size)[:40]}"
            raise FormatError(f"tensor {one.name[:40]!r} has {shown}: it must be within 0..{len(blob)}, without data")
        made.append(Tensor.checked(one.name, one.datatype, one.shape, blob[:size]))
        blob = blob[size:]
    if blob:
        raise FormatError(f"{len(blob)} bytes belong to no tensor: {_BINARY_SIZE} must add up to what follows the JSON")
    return made
