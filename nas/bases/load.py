"""Networks from a user's file."""

import copy
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from modeltree.errors import ConfigError


def from_file(spec: str, *, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Call the factory named by `path/to/file.py:factory` and check that its network fits the data.

    Raises
    ------
    ConfigError : no such file or function; the file or the factory raises; no module comes back, or it does not map
        (2, *shape) to (2, num_classes).
    """
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise ConfigError(f"base is {spec!r} but must be path/to/file.py:factory: name the function after a colon")
    factory = vars(_import(Path(path))).get(name)
    if not callable(factory):
        raise ConfigError(f"{path} defines no function {name!r}: define it or name another one after the colon")
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{spec} failed with {_told(error)}: it must return a network without arguments") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{spec} returned {type(model).__name__} but must return a torch.nn.Module: mend the factory")
    _check_fits(model, spec, num_classes=num_classes, shape=shape)
    return model


def _import(path: Path) -> ModuleType:
    """Run the file as a module of its own; the name keeps two files called model.py apart."""
    if not path.is_file():
        raise ConfigError(f"no file {path}: pass an existing path/to/file.py:factory")
    name = "nas_user_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: pass path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look the module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported, {_told(error)}: mend it") from error
    return module


def _told(error: BaseException) -> str:
    """The first line of an error, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _check_fits(model: nn.Module, spec: str, *, num_classes: int, shape: tuple[int, int, int]) -> None:
    try:
        with torch.no_grad():
            logits = copy.deepcopy(model).eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise ConfigError(
            f"{spec} does not run on images of shape {(2, *shape)}, {_told(error)}: {_cure(model, shape)}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"{spec} gives {got} for two images but must give (2, {num_classes}): fit it to the data")


def _cure(model: nn.Module, shape: tuple[int, int, int]) -> str:
    """What to do about a network that cannot run on such images."""
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
