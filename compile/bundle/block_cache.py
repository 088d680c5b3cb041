"""Compiled blocks, kept between runs: an interrupted `nas compile` goes on, and a second one is quick.

A key holds everything that decides the bytes: the block's file, the target's record, the kind of weights, the batch,
the versions of what compiles and our own code. The cache is safe to delete, and nothing in it is believed unchecked.
"""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from modeltree.files import write_bytes

_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "torch", "ziglang")
_SOURCES = {".py", ".S", ".c", ".h"}
_ONNX_PACKAGES = ("onnx", "onnxscript", "torch")


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a compiled block; shapes are per image."""

    sha256: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    weight_bytes: int
    workspace_bytes: int
    macs: int
    max_abs_error: float | None = None
    vouched_error: float | None = None
    relative_error: float | None = None


class Kept:
    """A folder of compiled blocks, each a library and a JSON beside it; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> tuple[Facts, bytes] | None:
        """A library and its facts; None if it is not there whole."""
        if self.folder is None:
            return None
        try:
            facts = msgspec.json.decode((self.folder / f"{key}.json").read_bytes(), type=Facts)
            library = (self.folder / f"{key}.so").read_bytes()
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return (facts, library) if sha256(library) == facts.sha256 else None

    def put(self, key: str, facts: Facts, library: bytes) -> None:
        """Keep a library; what is kept under the key already is replaced."""
        if self.folder is not None:
            write_bytes(self.folder / f"{key}.so", library)
            write_bytes(self.folder / f"{key}.json", msgspec.json.encode(facts))

    def get_onnx(self, key: str) -> bytes | None:
        """The ONNX form of a block; None if it is not there whole."""
        if self.folder is None:
            return None
        try:
            digest, _, model = (self.folder / f"{key}.onnx").read_bytes().partition(b"\n")
        except OSError:
            return None
        return model if digest.decode(errors="replace") == sha256(model) else None

    def put_onnx(self, key: str, model: bytes) -> None:
        """Keep the ONNX form of a block, behind a line with its sha256."""
        if self.folder is not None:
            write_bytes(self.folder / f"{key}.onnx", sha256(model).encode() + b"\n" + model)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def key_of(*parts: Any) -> str:
    """A name for what these parts (plain data) lead to: the first 40 hex digits of the sha256 of their JSON."""
    return sha256(msgspec.json.encode(parts, order="deterministic"))[:40]


def versions(*, onnx: bool = False) -> dict[str, str]:
    """Versions of the packages that compile (or write ONNX), where installed, and of our own code."""
    found = {name: _version(name) for name in (_ONNX_PACKAGES if onnx else _PACKAGES)}
    return {name: version for name, version in found.items() if version} | {"compile": code()}


@cache
def code() -> str:
    """The first 16 hex digits of the sha256 over this package's source files, sorted by name."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SOURCES):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
