"""What a network answers where that is not one vector of classes: named tensors.

One tensor crosses every cut, the last place included. A network with several outputs therefore ends in one vector, all
of them one behind the other, and whoever shows the answer takes it apart again.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from modeltree.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

OutputKind = Literal["classes", "pixels", "embedding", "numbers"]
"""How two answers are compared; `nas.quality.agreement` says it for each."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor of an answer. shape : per image, without the batch."""

    name: str
    shape: tuple[int, ...]
    kind: OutputKind = "numbers"

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def answer_shape(outputs: Sequence[Output]) -> tuple[int, ...]:
    """Of what leaves the network's last place: the one output as it is, several as one vector."""
    return outputs[0].shape if len(outputs) == 1 else (sum(output.size for output in outputs),)


def taken_apart(answer: "np.ndarray", outputs: Sequence[Output]) -> dict[str, "np.ndarray"]:
    """The outputs by name, in their order.

    answer : (n, ...) with the shape of `answer_shape` behind n, or one image's without n. Parts share its memory.
    """
    whole = answer_shape(outputs)
    batch = answer.shape[: answer.ndim - len(whole)]
    if answer.shape != (*batch, *whole):
        raise FormatError(f"the answer has shape {answer.shape}: it must end in {whole}")
    flat, at, parts = answer.reshape(*batch, -1), 0, {}
    for output in outputs:
        parts[output.name] = flat[..., at : at + output.size].reshape(*batch, *output.shape)
        at += output.size
    return parts


def check_outputs(outputs: Sequence[Output]) -> None:
    """Raises FormatError where two have one name, or a shape is none."""
    names = [output.name for output in outputs]
    if len(set(names)) != len(names) or not all(names):
        raise FormatError(f"the outputs are called {names}: each must have a name of its own")
    for output in outputs:
        if any(side < 1 for side in output.shape):
            raise FormatError(f"output {output.name!r} has shape {list(output.shape)}: sides must be at least 1")
