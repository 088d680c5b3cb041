"""What a network returns, whatever it is wrapped in: named tensors, and the network as one that returns one tensor."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from modeltree.errors import ConfigError


def named_tensors(answer: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an answer, in order: of tuples, lists, dicts, named tuples and dataclasses, nested at will.

    Names are keys and fields, and positions of plain tuples; joined by dots; `output` for a lone tensor. None is passed
    over.

    Raises
    ------
    ConfigError : something else is in it.
    """
    if isinstance(answer, torch.Tensor):
        yield name or "output", answer
        return
    if answer is None:
        return
    if isinstance(answer, Mapping):
        parts = [(str(key), value) for key, value in answer.items()]
    elif dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        parts = [(field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer)]
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        parts = list(zip(answer._fields, answer))
    elif isinstance(answer, (tuple, list)):
        parts = [(f"{'' if name else 'output_'}{i}", value) for i, value in enumerate(answer)]
        parts = [("" if len(answer) == 1 and not name else key, value) for key, value in parts]
    else:
        raise ConfigError(
            f"the network's answer holds a {type(answer).__name__}"
            f"{f' ({name})' if name else ''}: return tensors, or tuples, dicts and dataclasses of them"
        )
    for key, value in parts:
        yield from named_tensors(value, ".".join(filter(None, (name, key))))


def shapes_of(answer: Any, images: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes per image of an answer to so many images, checked.

    Raises
    ------
    ConfigError : no tensor, one that is not float32, whose first side is not the batch, or two of one name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in named_tensors(answer):
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"output {name!r} is {kind}: it must be float32, "
                + ("call .float()" if tensor.is_floating_point() else "return what is in front of argmax, top-k or NMS")
            )
        if tensor.ndim < 1 or tensor.shape[0] != images:
            raise ConfigError(
                f"output {name!r} has shape {tuple(tensor.shape)} for {images} images: its first side must be the "
                "batch, or leave it out"
            )
        if math.prod(tensor.shape) == 0:
            raise ConfigError(f"output {name!r} is empty, {tuple(tensor.shape)}: leave it out")
        if name in shapes:
            raise ConfigError(f"two outputs are called {name!r}: give them names of their own")
        shapes[name] = tuple(tensor.shape[1:]) or (1,)
    if not shapes:
        raise ConfigError("the network returns no tensor: return its answer")
    return shapes


class OneTensor(nn.Module):
    """A network whose outputs leave as one tensor: a lone one as it is, several flattened one behind the other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x : (n, ...). Answers (n, ...) of a lone output, (n, numbers) of several."""
        tensors = [tensor for _, tensor in named_tensors(self.network(x))]
        tensors = [tensor if tensor.ndim > 1 else tensor[:, None] for tensor in tensors]
        return tensors[0] if len(tensors) == 1 else torch.cat([tensor.flatten(1) for tensor in tensors], 1)
