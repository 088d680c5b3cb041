"""Exported networks as files (`.pt2`): written without anything that must be unpickled, read without unpickling.

`torch.export.load` unpickles a file's sample inputs and evaluates parts of its graph as Python, so that a file from
elsewhere runs code. Here the archive is opened as what it is, a ZIP of stored members; weights are taken as plain
numbers; the graph passes `compile.program_file_check`; sample inputs are not read. Files that torch
wrote are read as before.
"""

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import (
    ExportedProgramDeserializer,
    _bytes_to_dataclass,
    deserialize_scalar_type,
)

from compile.program_file_check import checked_program
from modeltree.errors import FormatError
from modeltree.files import write_bytes

_MODEL = re.compile(r"(?P<root>[^/]+)/models/(?P<name>[A-Za-z_]\w{0,80})\.json", re.ASCII)
_MEMBER = re.compile(r"[A-Za-z]+_\d{1,9}", re.ASCII)
_LARGEST_GRAPH_BYTES = 256 << 20


def program_bytes(program: torch.export.ExportedProgram) -> bytes:
    """The `.pt2` form of an exported program, without sample inputs and without guards."""
    samples, program.example_inputs = program.example_inputs, None
    try:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    finally:
        program.example_inputs = samples
    return buffer.getvalue()


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program to `path`, whole or not at all."""
    write_bytes(path, program_bytes(program))


def read_program(source: Path | bytes) -> torch.export.ExportedProgram:
    """The exported program in a `.pt2` file or in the bytes of one. Nothing in it is unpickled or run.

    Raises
    ------
    FormatError : it is no such file, it is damaged, or it holds what an exported network has no need of.
    DataError : the file cannot be read.
    """
    name = "the exported program" if isinstance(source, bytes) else str(source)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            return _Reader(archive, name).program()
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"cannot read {name}: {error.strerror or error}: pass an exported program") from error
    except Exception as error:  # a damaged file meets torch's and zipfile's code anywhere
        raise FormatError(f"{name} is no exported program or damaged: write it again with torch.export.save") from error


class _Reader:
    """The members of one archive; everything that a member says is held against the archive's size."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name = archive, name
        self.members = {info.filename: info for info in archive.infolist()}
        if len(self.members) != len(archive.infolist()):
            raise self._error("two members of one name")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in self.members.values()):
            raise self._error("a compressed or encrypted member")
        if sum(info.file_size for info in self.members.values()) > _length(archive.fp):
            raise self._error("members that lie over each other")
        models = [match for match in map(_MODEL.fullmatch, self.members) if match]
        if len(models) != 1:
            raise self._error(f"{len(models)} graphs where one is expected")
        self.root, self.model = models[0]["root"], models[0]["name"]

    def program(self) -> torch.export.ExportedProgram:
        graph = json.loads(self._bytes(f"models/{self.model}.json", _LARGEST_GRAPH_BYTES))
        checked = json.dumps(checked_program(graph, self.name)).encode()
        return ExportedProgramDeserializer().deserialize(
            _bytes_to_dataclass(schema.ExportedProgram, checked), self._tensors("weights"), self._tensors("constants"),
            b"",
        )  # fmt: skip

    def _tensors(self, kind: str) -> dict[str, torch.Tensor]:
        """Weights or constants by name; those that share a member share its memory."""
        config = json.loads(self._bytes(f"data/{kind}/{self.model}_{kind}_config.json", _LARGEST_GRAPH_BYTES))
        flat: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        tensors = {}
        for name, entry in config["config"].items():
            meta, member = entry.get("tensor_meta"), entry["path_name"]
            if entry.get("use_pickle") or meta is None or not _MEMBER.fullmatch(member):
                raise self._error(f"the {kind.removesuffix('s')} {name!r} as an object instead of numbers")
            dtype = deserialize_scalar_type(schema.ScalarType(meta["dtype"]))
            if (member, dtype) not in flat:
                data = bytearray(self._bytes(f"data/{kind}/{member}"))
                flat[member, dtype] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            tensor = _strided(flat[member, dtype], meta)
            if tensor is None:
                raise self._error(f"the {kind.removesuffix('s')} {name!r} larger than its member")
            trained = bool(meta["requires_grad"]) and dtype.is_floating_point
            tensors[name] = torch.nn.Parameter(tensor, requires_grad=trained) if entry["is_param"] else tensor
        return tensors

    def _bytes(self, member: str, most: int | None = None) -> bytes:
        info = self.members.get(f"{self.root}/{member}")
        if info is None:
            raise self._error(f"no {member}")
        if most is not None and info.file_size > most:
            raise self._error(f"{info.file_size} bytes of {member}")
        return self.archive.read(info)

    def _error(self, what: str) -> FormatError:
        return FormatError(f"{self.name} has {what}: write it again with torch.export.save")


def _strided(flat: torch.Tensor, meta: dict[str, Any]) -> torch.Tensor | None:
    """A tensor as its description lays it out over a member's numbers (n,); None if it does not lie inside them."""
    sizes, strides = ([int(size["as_int"]) for size in meta[part]] for part in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    if len(sizes) != len(strides) or min([*sizes, *strides, offset], default=0) < 0:
        return None
    if math.prod(sizes) == 0:
        return torch.empty(sizes, dtype=flat.dtype) if max(sizes) <= 1 << 40 else None
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides))
    if math.prod(sizes) > len(flat) or last >= len(flat):
        return None
    return torch.as_strided(flat, sizes, strides, offset)


def _length(file: IO[bytes] | None) -> int:
    assert file is not None
    return file.seek(0, io.SEEK_END)
