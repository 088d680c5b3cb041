"""What a manifest lists: files, libraries, blocks, targets, paths, and where they come from."""

import math
from typing import Annotated, Any, Literal

import msgspec

from modeltree.errors import FormatError
from modeltree.manifest.places import check_place

Role = Literal["device", "rest"]
"""Blocks of the tree run on the device; rests, what the cloud runs after a hand-over, run anywhere."""

_LARGEST_BYTES = 2**48

Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_BYTES)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST_BYTES)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
BlockHash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{20}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")]
Shape = tuple[Positive, ...]
Plain = str | int | float | tuple[str, ...]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle: where it lies, its sha256 in hex, and its size.

    Raises
    ------
    FormatError : the place is not a plain relative path below `lib/` or `onnx/`.
    """

    file: str
    sha256: Sha256
    bytes: Positive

    def __post_init__(self) -> None:
        check_place(self.file)


class LibraryEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block compiled for one target, one kind of weights and one batch size.

    variant : how weights are kept: `f32`, `bf16`, `int8`, ...; `f32` means as the tree says, which is f32 unless the
        search chose another format for the block.
    number_format : that one, where it is not f32; not written otherwise.
    weight_bytes : of the packed weights inside. workspace_bytes : for feature maps while it runs. macs : a whole batch.
    max_abs_error : against the torch block, as the compiler measured it; None where it was not run.
    vouched_error : the same of its twin: its stages and tiles as code for the machine that compiled; None without one.
    relative_error : root mean square of the difference over that of torch's numbers, of whichever was run; not written
        where neither was.
    """

    target: Name
    batch: Positive
    variant: Name
    weight_bytes: Count
    workspace_bytes: Count
    macs: Count
    max_abs_error: float | None = msgspec.field(default_factory=lambda: None)  # a factory's default is always written
    vouched_error: float | None = msgspec.field(default_factory=lambda: None)
    relative_error: float | None = None
    number_format: str = ""

    def __post_init__(self) -> None:
        check_place(self.file)
        for name in ("max_abs_error", "vouched_error", "relative_error"):
            error = getattr(self, name)
            if error is not None and not (math.isfinite(error) and error >= 0):
                raise FormatError(f"{name} of {self.file} is {error}: it must be a finite number, 0 up")


class BlockEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block of the tree or a rest; shapes are per image.

    roles : `device` where a node names it, `rest` where a hand-over does; a block that nothing changed may be both.
    """

    roles: tuple[Role, ...]
    in_shape: Shape
    out_shape: Shape
    in_dtype: Literal["float32"] = "float32"
    out_dtype: Literal["float32"] = "float32"
    libraries: tuple[LibraryEntry, ...] = ()
    onnx: FileEntry | None = None


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that the bundle holds libraries for.

    roles : whose libraries it has: a target of the device has both, one of the cloud only rests.
    variants, batches : every block of these roles has one library for each pair.
    record : the compiler's target as plain data (`name`, `triple`, `cpu`, `features`, `threads`, ...).
    runtime : the library that loads the others; None where none is shipped.
    """

    roles: tuple[Role, ...]
    variants: tuple[Name, ...]
    batches: tuple[Positive, ...]
    record: dict[str, Plain]
    runtime: FileEntry | None = None


class PathEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way through the tree: its nodes, the blocks the device runs, the rest after a hand-over, and what it is worth.

    latency_ms : predicted. accuracy : percent; accuracy_origin : `predicted` or `measured`. chance : that it is taken.
    handover_place, rest : None where the path ends on the device.
    """

    leaf: int
    nodes: tuple[int, ...]
    blocks: tuple[BlockHash, ...]
    handover_place: int | None
    rest: BlockHash | None
    latency_ms: float
    accuracy: float
    accuracy_origin: str
    chance: float


class VariantAccuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kind of weights is worth: percent of `images` images classified rightly, expected over the paths."""

    accuracy: Annotated[float, msgspec.Meta(ge=0, le=100)]
    images: Positive
    origin: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a bundle comes from. Nothing here tells when or where it was compiled: equal input gives equal bytes.

    config : of the search, as its `config.json` has it. commit, machine, date, searched_with : of the search.
    method : which one's tree it is; empty for the one that the search chose.
    compiled_with : versions of what compiled it.
    """

    config: dict[str, Any] = {}
    method: str = ""
    commit: str = ""
    machine: str = ""
    date: str = ""
    searched_with: dict[str, str] = {}
    compiled_with: dict[str, str] = {}
