"""Parts of networks as files that are named by what they hold."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from compile.program_file import program_bytes
from modeltree.files import write_bytes
from nas.bases import fingerprint
from transforms import export


def content_hash(module: nn.Module) -> str:
    """sha256, in hex (20 digits), of a block's code and weights."""
    code = getattr(module, "code", "") + repr(module)
    return hashlib.sha256((code + fingerprint(module)).encode()).hexdigest()[:20]


def write_block(module: nn.Module, shape: tuple[int, ...], folder: Path) -> str:
    """Export a part that takes (n, *shape) into a folder, unless it is there; its hash."""
    name = content_hash(module)
    path = folder / f"{name}.pt2"
    if not path.exists():
        with torch.no_grad():
            write_bytes(path, program_bytes(export(module, shape)))
    return name
