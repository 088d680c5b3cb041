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


def write_block(module: nn.Module, shape: tuple[int, ...], folder: Path, number_format: str = "f32") -> str:
    """Export a part that takes (n, *shape) into a folder, unless it is there; its hash.

    number_format : that it is to be compiled in; another one makes another block of it, and another hash.
    """
    name = content_hash(module)
    if number_format != "f32":
        name = hashlib.sha256(f"{name} in {number_format}".encode()).hexdigest()[:20]
    path = folder / f"{name}.pt2"
    if not path.exists():
        with torch.no_grad():
            write_bytes(path, program_bytes(export(module, shape)))
    return name
