"""The manifest of a bundle: what `nas compile` made of a model tree, and what every file of it must be. No torch.

`docs/bundle.md` is the specification. What a manifest may say is checked here, before anyone touches a file it names.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from modeltree.errors import ConfigError, FormatError
from modeltree.tree import ExitFork, ModelTree, Node

MANIFEST_FORMAT = "nas-bundle"
MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
"""A manifest of a thousand paths is about a megabyte; what is far larger is no manifest."""

SHIM_NAME = "libnas_runtime.so"
"""Our runtime library in C, which comes with the bundle where TVM publishes none for the target."""
TVM_NAME = "libtvm_runtime.so"
"""TVM's runtime library. A bundle holds one of the two for every target."""

Role = Literal["device", "rest"]
"""Blocks of the tree run on the device; rests, what the cloud runs after a hand-over, run anywhere."""

_LARGEST_BYTES = 2**48
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

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
        _check_place(self.file)


class LibraryEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block compiled for one target, one kind of weights and one batch size.

    variant : how weights are kept: `f32`, `bf16`, `int8`, ...
    weight_bytes : of the packed weights inside. workspace_bytes : for feature maps while it runs. macs : a whole batch.
    max_abs_error : against the torch block, as the compiler measured it; None where it was not run.
    """

    target: Name
    batch: Positive
    variant: Name
    weight_bytes: Count
    workspace_bytes: Count
    macs: Count
    max_abs_error: float | None = None

    def __post_init__(self) -> None:
        _check_place(self.file)
        if self.max_abs_error is not None and not (math.isfinite(self.max_abs_error) and self.max_abs_error >= 0):
            raise FormatError(f"max_abs_error of {self.file} is {self.max_abs_error}: it must be a finite number, 0 up")


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


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle's table of contents: the tree, and every block, target and file.

    Raises
    ------
    FormatError : parts of it contradict each other; says which.
    """

    format: str = MANIFEST_FORMAT
    version: int = MANIFEST_VERSION
    tree: ModelTree
    targets: dict[Name, TargetEntry]
    blocks: dict[BlockHash, BlockEntry]
    paths: tuple[PathEntry, ...]
    variant_accuracy: dict[Name, VariantAccuracy] = {}
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        if self.format != MANIFEST_FORMAT or self.version != MANIFEST_VERSION:
            raise _other_version(self.format, self.version)
        _check_blocks(self)
        for leaf in self.tree.leaves():
            _check_shapes(self, self.tree.path(leaf.id))
        if self.paths != paths_of(self.tree):
            raise FormatError("paths are not those of the tree: compile it again")
        for name, target in self.targets.items():
            _check_target(self, name, target)
        _check_files(self)

    def files(self) -> Iterator[FileEntry]:
        """Every file of the bundle but the manifest, each place once, in the order of the manifest."""
        seen: set[str] = set()
        for entry in self._entries():
            if entry.file not in seen:
                seen.add(entry.file)
                yield entry

    def files_of(self, target: str) -> Iterator[FileEntry]:
        """The files that a machine of this target loads: its runtime library, then the compiled blocks."""
        runtime = self.targets[target].runtime
        wanted = {library.file for block in self.blocks.values() for library in block.libraries
                  if library.target == target} | ({runtime.file} if runtime else set())  # fmt: skip
        return (entry for entry in self.files() if entry.file in wanted)

    def _entries(self) -> Iterator[FileEntry]:
        yield from (target.runtime for target in self.targets.values() if target.runtime is not None)
        for block in self.blocks.values():
            yield from block.libraries
            if block.onnx is not None:
                yield block.onnx


def paths_of(tree: ModelTree) -> tuple[PathEntry, ...]:
    """One entry per leaf, in the order of the tree."""
    found = []
    for end in tree.leaves():
        assert end.leaf is not None
        nodes = tree.path(end.id)
        found.append(
            PathEntry(
                leaf=end.id, nodes=tuple(node.id for node in nodes),
                blocks=tuple(node.block for node in nodes if node.block),
                handover_place=end.handover.place if end.handover else None,
                rest=end.handover.block if end.handover else None,
                latency_ms=end.leaf.latency_ms, accuracy=end.leaf.accuracy,
                accuracy_origin=end.leaf.accuracy_origin, chance=end.leaf.chance,
            )
        )  # fmt: skip
    return tuple(found)


def roles_of(tree: ModelTree) -> dict[str, tuple[Role, ...]]:
    """Every block and rest that the tree names, by hash, with its roles; sorted by hash.

    Raises
    ------
    FormatError : a node that runs on the device, or a hand-over, names no block: the tree was not exported.
    """
    device: set[str] = set()
    rest: set[str] = set()
    for node in tree.nodes:
        runs = node.partition > 0 or isinstance(node.fork, ExitFork)
        if bool(node.block) != runs:
            state = "names no block" if runs else f"names block {node.block} but runs nothing"
            raise FormatError(f"node {node.id} {state}: a node must name a block exactly when it runs on the device")
        device |= {node.block} - {""}
        if node.handover is not None:
            if not node.handover.block:
                raise FormatError(
                    f"node {node.id} hands over to no block: a hand-over must name the rest of the network"
                )
            rest.add(node.handover.block)
    sides: tuple[tuple[Role, set[str]], ...] = (("device", device), ("rest", rest))
    return {name: tuple(role for role, names in sides if name in names) for name in sorted(device | rest)}


def library_file(target: str, block: str, *, variant: str = "f32", batch: int = 1) -> str:
    """Where a compiled block lies in a bundle."""
    kind = "" if variant == "f32" else f".{variant}"
    size = "" if batch == 1 else f".b{batch}"
    return f"lib/{target}/{block}{kind}{size}.so"


def runtime_file(target: str, name: str) -> str:
    """Where a target's runtime library lies in a bundle."""
    return f"lib/{target}/{name}"


def onnx_file(block: str) -> str:
    """Where the ONNX form of a block lies in a bundle."""
    return f"onnx/{block}.onnx"


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON, two spaces deep, objects without a fixed order sorted; equal manifests, equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(data: bytes, origin: str) -> Manifest:
    """Read a manifest from JSON; `origin` (a file name) goes into the error.

    Raises
    ------
    FormatError : not JSON, not a manifest, too large, of another version, or inconsistent.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise FormatError(f"{origin} is not a bundle's manifest: it is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.format != MANIFEST_FORMAT or header.version != MANIFEST_VERSION:
            raise _other_version(header.format, header.version)
        json.loads(data, object_pairs_hook=_without_duplicates)
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, FormatError, ConfigError, ValueError, RecursionError) as error:
        raise FormatError(f"{origin} is not a bundle's manifest: {error}") from error


def is_manifest(data: bytes) -> bool:
    """Whether this is a bundle's manifest, of whatever version."""
    try:
        return msgspec.json.decode(data, type=_Header).format == MANIFEST_FORMAT
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


class _Header(msgspec.Struct):
    """What every version of a manifest begins with; read first, so that a newer one is named as such."""

    format: str
    version: int


def _other_version(form: str, version: int) -> FormatError:
    newer = form == MANIFEST_FORMAT and version > MANIFEST_VERSION
    return FormatError(
        f"this is {form!r} version {version}, we read {MANIFEST_FORMAT!r} version {MANIFEST_VERSION}: "
        + ("it is newer than this program, use a newer nas" if newer else "compile it again with this nas")
    )


def _without_duplicates(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FormatError(f"key {twice!r} is there twice in one object: once, or two readers may see two manifests")


def _check_place(file: str) -> None:
    parts = file.split("/")
    if file.startswith("/") or ".." in parts:
        raise FormatError(f"file {file!r} leaves the bundle: it must be a relative path without '..'")
    deep = {"lib": 3, "onnx": 2}.get(parts[0])
    if len(parts) != deep or not all(_PART.fullmatch(part) for part in parts):
        raise FormatError(
            f"file {file!r} is out of place: it must be lib/TARGET/NAME or onnx/NAME, in plain characters"
        )


def _check_blocks(manifest: Manifest) -> None:
    wanted = roles_of(manifest.tree)
    if missing := sorted(set(wanted) - set(manifest.blocks)):
        raise FormatError(f"block {missing[0]} of the tree is not among the blocks: compile it again")
    if spare := sorted(set(manifest.blocks) - set(wanted)):
        raise FormatError(f"block {spare[0]} is not named by the tree: every block must be")
    for name, block in manifest.blocks.items():
        if block.roles != wanted[name]:
            raise FormatError(f"block {name} has roles {list(block.roles)}: in the tree they are {list(wanted[name])}")


def _check_shapes(manifest: Manifest, path: tuple[Node, ...]) -> None:
    tree, end = manifest.tree, path[-1]
    names = [node.block for node in path if node.block]
    tensor = tree.input_shape
    if end.handover is not None:
        names.append(end.handover.block)
    for name in names:
        block = manifest.blocks[name]
        if end.handover is not None and name is names[-1] and end.handover.shape != tensor:
            raise FormatError(
                f"node {end.id} hands over {list(end.handover.shape)}: {list(tensor)} is what arrives there"
            )
        if block.in_shape != tensor:
            raise FormatError(
                f"block {name} takes {list(block.in_shape)}: on the way to leaf {end.id} it gets {list(tensor)}"
            )
        tensor = block.out_shape
    if tensor != (len(tree.classes),):
        raise FormatError(f"the path to leaf {end.id} ends with {list(tensor)}: it must be {len(tree.classes)} logits")


def _check_target(manifest: Manifest, name: str, target: TargetEntry) -> None:
    if target.record.get("name") != name:
        raise FormatError(f"the record of target {name} names {target.record.get('name')!r}: it must name {name!r}")
    if "rest" not in target.roles or len(set(target.roles)) != len(target.roles):
        raise FormatError(f"target {name} has roles {list(target.roles)}: they must be device and rest, or rest")
    if target.runtime is not None and not target.runtime.file.startswith(f"lib/{name}/"):
        raise FormatError(f"{target.runtime.file} is the runtime of target {name}: it must lie in lib/{name}/")
    wanted = sorted(itertools.product(target.variants, target.batches))
    if not wanted:
        raise FormatError(f"target {name} has no variants or no batches: it must have one of each")
    for block_hash, block in manifest.blocks.items():
        due = wanted if set(block.roles) & set(target.roles) else []
        there = sorted((library.variant, library.batch) for library in block.libraries if library.target == name)
        if there != due:
            raise FormatError(f"block {block_hash} has libraries {there} for target {name}: they must be {due}")


def _check_files(manifest: Manifest) -> None:
    for name, block in manifest.blocks.items():
        for library in block.libraries:
            if library.target not in manifest.targets:
                known = ", ".join(sorted(manifest.targets)) or "none"
                raise FormatError(f"{library.file} of block {name} is for target {library.target!r}: known are {known}")
            if not library.file.startswith(f"lib/{library.target}/"):
                raise FormatError(
                    f"{library.file} is for target {library.target}: it must lie in lib/{library.target}/"
                )
        if block.onnx is not None and not block.onnx.file.startswith("onnx/"):
            raise FormatError(f"{block.onnx.file} is the ONNX form of block {name}: it must lie in onnx/")
    content: dict[str, tuple[str, int]] = {}
    for entry in manifest._entries():
        here = (entry.sha256, entry.bytes)
        if content.setdefault(entry.file, here) != here:
            raise FormatError(f"{entry.file} is named with two contents: one file must have one sha256 and one size")
