"""How much of a gRPC message is not numbers, told before protobuf unfolds it.

Two bytes on the wire are an empty tensor, and that is a hundred in memory: a message of 16 MB that held nothing else
would take gigabytes. Numbers take about as much room as on the wire, so they are not weighed.
"""

from modeltree.errors import FormatError

RAW_INPUTS, RAW_OUTPUTS = 7, 6
"""Numbers of the fields with raw contents, in a ModelInferRequest and a ModelInferResponse."""

MAX_WEIGHT_BYTES = 64 * 2**10
"""Of names, shapes, parameters and the rest of what is not numbers."""

_TENSORS, _CONTENTS = 5, 5
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_SIZES = {_EIGHT: 8, _FOUR: 4}
_VARINT_BYTES = 10


def check_weight(data: bytes, raw: int) -> None:
    """Whether a message is numbers but for `MAX_WEIGHT_BYTES`.

    Parameters
    ----------
    data : of a ModelInferRequest or ModelInferResponse. raw : `RAW_INPUTS` or `RAW_OUTPUTS`.

    Raises
    ------
    FormatError : it is not, or is no message at all.
    """
    _weighed(data, 0, len(data), raw, 0)


def _weighed(data: bytes, at: int, end: int, numbers: int, weight: int) -> int:
    """`weight`, and that of the fields from `at` to `end`; the field `numbers` weighs nothing."""
    while at < end:
        key, start = _varint(data, at, end)
        field, kind = key >> 3, key & 7
        if kind == _BYTES:
            size, start = _varint(data, start, end)
            stop = start + size
        elif kind == _VARINT:
            _, stop = _varint(data, start, end)
        else:
            stop = start + _SIZES.get(kind, end)
        if stop > end:
            raise FormatError(f"the message has a field at byte {at} that goes on behind its end: send it whole")
        weight += start - at
        if kind == _BYTES and field == _TENSORS and numbers != _CONTENTS:
            weight = _weighed(data, start, stop, _CONTENTS, weight)
        elif kind != _BYTES or field != numbers:
            weight += stop - start
        if weight > MAX_WEIGHT_BYTES:
            raise FormatError(f"the message has more than {MAX_WEIGHT_BYTES} bytes that are not numbers: send less")
        at = stop
    return weight


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    found = 0
    for i, byte in enumerate(data[at : min(at + _VARINT_BYTES, end)]):
        found |= (byte & 127) << 7 * i
        if byte < 128:
            return found, at + i + 1
    raise FormatError(f"the message has no number at byte {at}, where there must be one: send it whole")
