"""Networks from a user's file, and weights to and from safetensors."""

import copy
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from modeltree.errors import ConfigError, DataError
from modeltree.files import write_bytes

HEADS = "exits."
"""What the keys of an exit's head begin with, in a file that holds them beside a network's own weights."""


def from_file(spec: str, *, num_classes: int, image_size: int) -> nn.Module:
    """Call the factory named by `path/to/file.py:factory` and check that its network fits the data.

    Raises
    ------
    ConfigError : no such file or function; the file or the factory raises; no module comes back, or it does not map
        (2, 3, image_size, image_size) to (2, num_classes).
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
    _check_fits(model, spec, num_classes=num_classes, image_size=image_size)
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


def _check_fits(model: nn.Module, spec: str, *, num_classes: int, image_size: int) -> None:
    shape = (2, 3, image_size, image_size)
    try:
        with torch.no_grad():
            logits = copy.deepcopy(model).eval()(torch.zeros(shape))
    except Exception as error:
        raise ConfigError(f"{spec} does not run on images of shape {shape}, {_told(error)}: mend it") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"{spec} gives {got} for two images but must give (2, {num_classes}): fit it to the data")


def load_weights_(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file; on any error it is left as it was.

    Counters of batches seen (`num_batches_tracked`) may be missing or left over, heads of exits may be there too.

    Raises
    ------
    DataError : no such file, not safetensors, or keys, shapes or finiteness that do not fit; names the first few.
    """
    try:
        found = load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"no file {path}: pass an existing .safetensors file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as safetensors, {_told(error)}: pass a whole .safetensors file") from error
    wanted = _state(model)
    heads = {key for key in found.keys() - wanted.keys() if key.startswith(HEADS)}
    found = {key: value for key, value in found.items() if not _is_counter(key) and key not in heads}
    wrong = [f"missing {key}" for key in sorted(wanted.keys() - found.keys())]
    wrong += [f"unexpected {key}" for key in sorted(found.keys() - wanted.keys())]
    for key in sorted(wanted.keys() & found.keys()):
        if found[key].shape != wanted[key].shape:
            wrong.append(f"{key} is {tuple(found[key].shape)}, must be {tuple(wanted[key].shape)}")
        elif not torch.isfinite(found[key]).all():
            wrong.append(f"{key} holds values that are not finite")
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise DataError(f"{path} does not fit the network: {'; '.join(wrong[:4])}{more}: pass weights of this network")
    with torch.no_grad():
        for key, value in found.items():
            wanted[key].copy_(value)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters and buffers to `path` as safetensors, whole or not at all."""
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    write_bytes(path, save(state))


def fingerprint(model: nn.Module) -> str:
    """sha256, in hex, of the names, types, shapes and bytes of all parameters and buffers but batch counters."""
    digest = hashlib.sha256()
    for key, value in sorted(_state(model).items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if not _is_counter(key)}


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
