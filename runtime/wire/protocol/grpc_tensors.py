"""Tensors in and out of the protocol's messages: raw, or as the list of numbers that goes with their type."""

from collections.abc import Sequence
from typing import Any

from modeltree.errors import FormatError
from runtime.wire.protocol.tensors import Tensor

_LISTS = {"FP32": "fp32_contents", "UINT8": "uint_contents"}


def write_tensor(described: Any, raw: Any, tensor: Tensor) -> None:
    """Append a tensor to the repeated fields of a request or an answer."""
    described.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    raw.append(bytes(tensor.data))


def read_tensors(described: Sequence[Any], raw: Sequence[bytes]) -> list[Tensor]:
    """Tensors of a request or an answer.

    Raises
    ------
    FormatError : some come raw and some do not, or sizes, types and contents do not fit together.
    """
    if raw and len(raw) != len(described):
        raise FormatError(f"{len(raw)} raw contents for {len(described)} tensors: there must be one for each, or none")
    made = []
    for i, one in enumerate(described):
        data: Any = raw[i] if raw else getattr(one.contents, _LISTS.get(one.datatype, ""), ())
        if raw and one.HasField("contents"):
            raise FormatError(f"tensor {one.name[:40]!r} has contents twice: raw ones take the place of the others")
        made.append(Tensor.checked(one.name, one.datatype, one.shape, data))
    return made
