"""The placement: stages of a bundle's path, the members that may run each, and where the members are.

Device and members read the same file. Whoever is not in it is not talked to. `docs/placement.md` has the form.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from modeltree.errors import DataError, FormatError, unknown
from modeltree.files import write_bytes

DEVICE = "device"
FORMAT, VERSION = "nas-placement", 1
MAX_BYTES = 2**20
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_ADDRESS = re.compile(r"(grpcs?|https?)://[^\s/]+")

Block = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{20}\Z")]


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server. metrics : `http://host:port/metrics`, where `nas servers` reads its load; empty: not known."""

    name: str
    address: str
    metrics: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Blocks that run on one host, one after the other.

    members : who may run it, the planned one first; `device` alone for what the device runs itself.
    expected_ms : as planned, arrival included.
    """

    blocks: tuple[Block, ...]
    members: tuple[str, ...]
    expected_ms: float = 0.0


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stages in their order. bits : of a number between hosts, 32 for floats as they are."""

    stages: tuple[Stage, ...]
    members: tuple[Member, ...]
    bits: int = 32
    format: str = FORMAT
    version: int = VERSION

    def __post_init__(self) -> None:
        if (self.format, self.version) != (FORMAT, VERSION):
            raise FormatError(f"this is {self.format!r} version {self.version}: we read {FORMAT!r} version {VERSION}")
        names = [member.name for member in self.members]
        if len(set(names)) != len(names) or DEVICE in names:
            raise FormatError(f"members are called {', '.join(names)}: each needs a name of its own, not {DEVICE!r}")
        for member in self.members:
            if not _NAME.fullmatch(member.name):
                raise FormatError(f"member {member.name!r}: names are up to 32 of a-z, 0-9, - and _")
            if not _ADDRESS.fullmatch(member.address):
                raise FormatError(f"member {member.name} is at {member.address!r}: must be like grpcs://host:8001")
        if self.bits != 32 and not 1 <= self.bits <= 16:
            raise FormatError(f"bits is {self.bits}: it must be 1 to 16, or 32")
        self._check_stages(set(names))

    def _check_stages(self, names: set[str]) -> None:
        left_device = False
        for index, stage in enumerate(self.stages):
            if not stage.blocks or not stage.members or not 0 <= stage.expected_ms < 1e9:
                raise FormatError(f"stage {index} needs blocks, members and a time from 0 up")
            strangers = set(stage.members) - names - {DEVICE}
            if strangers or (DEVICE in stage.members and stage.members != (DEVICE,)):
                raise FormatError(
                    f"stage {index} is for {', '.join(stage.members)}: members of the file, or the device alone"
                )
            if stage.members == (DEVICE,) and left_device:
                raise FormatError(f"stage {index} goes back to the device: its stages must come first")
            left_device |= stage.members != (DEVICE,)
        if not self.stages:
            raise FormatError("a placement needs at least one stage")

    @property
    def id(self) -> str:
        """Names the stages and their blocks, whoever runs them: 16 hex digits."""
        stages = "\n".join(",".join(stage.blocks) for stage in self.stages)
        return hashlib.sha256(stages.encode()).hexdigest()[:16]

    @property
    def first(self) -> int:
        """The first stage that a member runs; as many as there are where none does."""
        return sum(stage.members == (DEVICE,) for stage in self.stages)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Of all stages, in their order."""
        return tuple(block for stage in self.stages for block in stage.blocks)

    def address(self, name: str) -> str:
        """Where a member is.

        Raises
        ------
        ConfigError : there is none of that name.
        """
        for member in self.members:
            if member.name == name:
                return member.address
        raise unknown("member", name, [member.name for member in self.members])


def decode_placement(data: bytes, origin: str) -> Placement:
    """A placement from JSON.

    Raises
    ------
    FormatError : it is none.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{origin} has {len(data)} bytes: a placement has {MAX_BYTES} at most")
    try:
        return msgspec.json.decode(data, type=Placement)
    except (msgspec.MsgspecError, FormatError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{origin} is not a placement: {error}: write it anew with nas place") from error


def read_placement(path: Path) -> Placement:
    """A placement from a file.

    Raises
    ------
    DataError : it cannot be read. FormatError : it is none.
    """
    try:
        return decode_placement(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: pass a placement file") from error


def write_placement(placement: Placement, path: Path) -> None:
    """Write it, whole or not at all."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(placement), indent=2) + b"\n")


def stages_of(blocks: Sequence[str], bounds: Sequence[int], members: Sequence[Sequence[str]]) -> tuple[Stage, ...]:
    """Stages from blocks, the bounds between them (first and last included), and who may run each."""
    runs = zip(bounds, bounds[1:], members, strict=False)
    return tuple(Stage(blocks=tuple(blocks[a:b]), members=tuple(names)) for a, b, names in runs)
