"""Networks from a user's file."""

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeltree.errors import ConfigError
from nas.bases.user_files import reason_of, run_file


def from_file(spec: str, *, num_classes: int, shape: tuple[int, int, int], any_output: bool = False) -> nn.Module:
    """Call the factory named by `path/to/file.py:factory` and check that its network fits the data.

    any_output : whether it may answer with something else than one vector of classes.

    Raises
    ------
    ConfigError : no such file or function; the file or the factory raises; no module comes back, or it does not map
        (2, *shape) to (2, num_classes).
    """
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise ConfigError(f"base is {spec!r} but must be path/to/file.py:factory: name the function after a colon")
    factory = vars(run_file(Path(path))).get(name)
    if not callable(factory):
        raise ConfigError(f"{path} defines no function {name!r}: define it or name another one after the colon")
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{spec} failed with {reason_of(error)}: it must return a network without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{spec} returned {type(model).__name__} but must return a torch.nn.Module: mend the factory")
    answer = _answer(model, spec, shape)
    if not any_output:
        _check_classes(answer, spec, num_classes)
    return model


def _answer(model: nn.Module, spec: str, shape: tuple[int, int, int]) -> Any:
    """What it gives for two black images."""
    try:
        with torch.no_grad():
            return copy.deepcopy(model).eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise ConfigError(
            f"{spec} does not run on images of shape {(2, *shape)}, {reason_of(error)}: {_cure(model, shape)}"
        ) from error


def _check_classes(logits: Any, spec: str, num_classes: int) -> None:
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"{spec} gives {got} for two images but must give (2, {num_classes}): fit it to the data")


def _cure(model: nn.Module, shape: tuple[int, int, int]) -> str:
    """What to do about a network that cannot run on such images."""
    needed = [
        one.name for one in inspect.signature(model.forward).parameters.values()
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    if len(needed) != 1:
        return (
            f"it takes {', '.join(needed) or 'nothing'}, but must take one tensor, pictures: wrap it in one that does"
        )
    if any(isinstance(module, nn.Embedding) for module in model.modules()):
        return "a network of token ids cannot be searched, one input of pictures is what it must take"
    channels, height, width = shape
    others = {1: "L", 3: "RGB"}
    for count, name in others.items():
        for size in dict.fromkeys(((height, width), (width, height))):
            if (count, *size) != shape and _runs(model, (count, *size)):
                change = "" if count == channels else f" --channels {name}"
                return f"pass{change}" + ("" if size == (height, width) else f" --image-size {size[1]}x{size[0]}")
    return "mend it, or pass another --image-size (WIDTHxHEIGHT)"


def _runs(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            copy.deepcopy(model).eval()(torch.zeros(2, *shape))
    except Exception:  # whatever a user's network raises
        return False
    return True
