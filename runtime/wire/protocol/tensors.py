"""A tensor as the protocol carries it: a name, a type, a shape, and its numbers in row order, little endian."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeltree.errors import FormatError

TYPES: dict[str, np.dtype] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
"""What this project sends; the protocol knows more."""

X, FRAME, LOGITS = "x", "frame", "logits"
"""Names of our tensors: a batch as it is, a batch coded (`runtime.wire.frames`), and the answer."""

PROBE = "nas-probe"
"""A model that every front serves: it takes a `frame` of any bytes and answers with nothing."""

VERSION = "1"
SECONDS = "nas_seconds"
"""Parameter of an answer: seconds from the whole request being there to the answer being ready."""

WAITING = "nas_waiting"
"""Parameter of an answer: seconds until the server has done what waits or runs there when it answers."""

CHECKSUM = "nas_crc32"
"""Parameter of an answer: CRC-32 of its tensors' bytes, one after the other."""

_MAX_DIMENSIONS = 8
_MAX_NUMBERS = 2**48
"""Of a tensor, sizes of 0 counted as 1: numpy refuses an empty array whose other sizes exceed its address space."""
_SHOWN = 40
"""Characters of a text from outside that an error repeats."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """`data` is exactly as long as type and shape ask for."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "Tensor":
        """A float32 or uint8 array, of any shape, under a name."""
        datatype = next(key for key, dtype in TYPES.items() if dtype == array.dtype)
        data = np.ascontiguousarray(array, TYPES[datatype]).data.cast("B") if array.size else b""
        return cls(name=name, datatype=datatype, shape=array.shape, data=data)

    @classmethod
    def checked(
        cls, name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview | Sequence[Any]
    ) -> "Tensor":
        """One that came from outside, as bytes or as a list of numbers, nested or not.

        Raises
        ------
        FormatError : a type that we do not take, or type, shape and content that do not fit together.
        """
        short = name[:_SHOWN]  # what is said goes back in a header, and must fit there
        if datatype not in TYPES:
            raise FormatError(f"tensor {short!r} is {datatype[:_SHOWN]!r}: it must be one of {', '.join(TYPES)}")
        if len(shape) > _MAX_DIMENSIONS or any(not 0 <= size <= _MAX_NUMBERS for size in shape):
            raise FormatError(
                f"tensor {short!r} has {len(shape)} sizes: they must be {_MAX_DIMENSIONS} at most, in 0..{_MAX_NUMBERS}"
            )
        if math.prod(max(size, 1) for size in shape) > _MAX_NUMBERS:
            raise FormatError(f"tensor {short!r} has shape {list(shape)}: it must hold {_MAX_NUMBERS} numbers at most")
        if not isinstance(data, bytes | memoryview):
            data = _packed(short, datatype, data)
        if (asked := math.prod(shape) * TYPES[datatype].itemsize) != len(data):
            raise FormatError(
                f"tensor {short!r} has {len(data)} bytes: {datatype} of shape {list(shape)} takes {asked}; "
                "send them raw"
            )
        return cls(name=name, datatype=datatype, shape=tuple(shape), data=data)

    def array(self) -> np.ndarray:
        """The numbers, read-only, without a copy."""
        array = np.frombuffer(self.data, TYPES[self.datatype]).reshape(self.shape)
        array.flags.writeable = False
        return array


def checksum(tensors: Sequence[Tensor]) -> int:
    """See `CHECKSUM`."""
    found = 0
    for one in tensors:
        found = zlib.crc32(one.data, found)
    return found


def _packed(name: str, datatype: str, numbers: Sequence[Any]) -> bytes:
    try:
        array = np.asarray(numbers).ravel()
        if datatype == "UINT8":
            return bytes(array.tolist())
        with np.errstate(over="ignore"):
            return array.astype(TYPES[datatype], casting="same_kind").tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"tensor {name!r} holds what is no {datatype}: {error}") from error
