"""Weights of networks: read as people have them, written as safetensors.

A file is a network's state dict, as safetensors or as `torch.save` writes one; it may lie one level deeper, its keys
may begin with what training wrappers put there, and its numbers may be of half precision. Nothing is unpickled but
plain tensors (`torch.load(weights_only=True)`).
"""

import hashlib
import warnings
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from modeltree.errors import DataError
from modeltree.files import write_bytes

HEADS = "exits."
"""What the keys of an exit's head begin with, in a file that holds them beside a network's own weights."""


_HOLDERS = ("state_dict", "model_state_dict", "model", "module", "weights", "params_ema", "ema")
_TORCH = (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
_WRAPPERS = ("module.", "_orig_mod.", "model.", "_forward_module.")


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """A file's tensors by name, and in words what was done to get at them.

    Raises
    ------
    DataError : no such file, neither safetensors nor a state dict that `torch.load(weights_only=True)` takes.
    """
    try:
        with path.open("rb") as file:
            first = file.read(2)
        if first not in _TORCH:
            return dict(load_file(path)), ()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}: pass an existing .safetensors or .pth file") from error
    except (SafetensorError, OSError, ValueError) as error:
        text = str(error).strip().splitlines()
        raise DataError(
            f"cannot read {path} as safetensors, {text[0] if text else type(error).__name__}: "
            "pass a whole .safetensors file"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that torch does not write itself
            value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file meets torch's unpickler anywhere
        raise DataError(
            f"{path} is no plain state dict, which alone is read from a file of torch.save: write it with "
            "torch.save(model.state_dict(), ...), or as safetensors"
        ) from error
    return _unwrapped(value, path)


def _unwrapped(value: object, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    notes: list[str] = []
    for _ in range(3):
        inner = next((key for key in _HOLDERS if isinstance(value, dict) and isinstance(value.get(key), dict)), None)
        if inner is None:
            break
        assert isinstance(value, dict)
        value, notes = value[inner], [*notes, f"taken from {inner!r}"]
    tensors = isinstance(value, dict) and value and all(isinstance(one, torch.Tensor) for one in value.values())
    if not tensors or not all(isinstance(key, str) for key in value):  # type: ignore[attr-defined]
        raise DataError(f"{path} holds no state dict: write it with torch.save(model.state_dict(), ...)")
    assert isinstance(value, dict)
    return value, tuple(notes)


def load_weights_(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Fill `model` from a file of weights; on any error it is left as it was.

    Counters of batches seen (`num_batches_tracked`) may be missing or left over, heads of exits may be there too. Of
    tensors that are one in the network (tied), one may stand for all, as `safetensors.torch.save_model` writes them.

    Returns
    -------
    What was done besides copying, in words: prefixes taken off, precision raised, tied weights filled.

    Raises
    ------
    DataError : no such file, another kind of file, keys, shapes or types that do not fit, or numbers that a network
        cannot have (not finite, a negative variance); names the first few.
    """
    weights, notes = read_weights(path)
    wanted = _state(model)
    weights, more = _renamed(weights, set(wanted))
    heads = {key for key in weights.keys() - wanted.keys() if key.startswith(HEADS)}
    weights = {key: value for key, value in weights.items() if not _is_counter(key) and key not in heads}
    weights, tied = _with_tied(weights, wanted)
    wrong = [f"missing {key}" for key in sorted(wanted.keys() - weights.keys())]
    wrong += [f"unexpected {key}" for key in sorted(weights.keys() - wanted.keys())]
    for key in sorted(wanted.keys() & weights.keys()):
        if problem := _problem(key, weights[key], wanted[key]):
            wrong.append(problem)
    if wrong:
        rest = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise DataError(f"{path} does not fit the network: {'; '.join(wrong[:4])}{rest}: pass weights of this network")
    raised = sorted({_word(value) for key, value in weights.items() if value.dtype != wanted[key].dtype})
    with torch.no_grad():
        for key, value in weights.items():
            wanted[key].copy_(value)
    return (*notes, *more, *tied, *(f"{dtype} made float32" for dtype in raised))


def _renamed(weights: dict[str, torch.Tensor], wanted: set[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Keys without what wrappers put in front of all of them, where the network's own do not begin so."""
    notes: list[str] = []
    while prefix := next((one for one in _WRAPPERS if _all_begin(weights, one) and not _any_begins(wanted, one)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
        notes.append(f"{prefix!r} taken off the keys")
    return weights, notes


def _all_begin(keys: Collection[str], prefix: str) -> bool:
    return bool(keys) and all(key.startswith(prefix) for key in keys)


def _any_begins(keys: Collection[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _with_tied(
    weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Names of one tensor that the file leaves out, filled from the name that it has."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for key, value in wanted.items():
        names.setdefault((value.data_ptr(), tuple(value.shape)), []).append(key)
    filled = dict(weights)
    for group in names.values():
        there = [key for key in group if key in weights]
        if len(group) > 1 and there and wanted[group[0]].numel():
            filled |= {key: weights[there[0]] for key in group if key not in weights}
    missing = len(filled) - len(weights)
    return filled, [f"{missing} tied weight{'s' * (missing > 1)} filled from their other names"] if missing else []


def _word(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _problem(key: str, tensor: torch.Tensor, wanted: torch.Tensor) -> str:
    """What keeps a tensor from taking the place of another; empty where nothing does."""
    if tensor.shape != wanted.shape:
        return f"{key} is {tuple(tensor.shape)}, must be {tuple(wanted.shape)}"
    if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_quantized or tensor.is_complex():
        return f"{key} is {_word(tensor)}, must be {_word(wanted)}"
    if tensor.dtype.itemsize < 2 and tensor.is_floating_point():
        return f"{key} is {_word(tensor)}, must be float16 or wider"
    if not torch.isfinite(tensor).all():
        return f"{key} holds values that are not finite"
    if key.rpartition(".")[2] == "running_var" and bool((tensor < 0).any()):
        return f"{key} holds negative variances"
    return ""


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
