"""The state of a long job, written so that a kill at any moment costs at most one step of it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from modeltree.errors import DataError
from modeltree.files import write_bytes


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them to `path`, whole or not at all.

    Raises
    ------
    DataError : the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU. Nothing but tensors and plain values is ever built.

    Raises
    ------
    DataError : no such file, or not one of ours.
    """
    if not path.exists():
        raise DataError(f"no checkpoint {path}: pass an existing one")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not the zip archive that torch writes")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything
        raise DataError(f"{path} is not a whole checkpoint of ours: delete it to start afresh") from error
    if not isinstance(state, dict):
        raise DataError(f"{path} holds a {type(state).__name__} but must hold a dict: delete it to start afresh")
    return state
