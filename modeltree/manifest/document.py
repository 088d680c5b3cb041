"""The manifest as a whole, and as JSON."""

import json
from collections.abc import Iterator

import msgspec

from modeltree.errors import ConfigError, FormatError
from modeltree.manifest.checks import all_files, check_blocks, check_files, check_shapes, check_target
from modeltree.manifest.entries import (
    BlockEntry,
    BlockHash,
    FileEntry,
    Name,
    PathEntry,
    Provenance,
    TargetEntry,
    VariantAccuracy,
)
from modeltree.manifest.tree_parts import paths_of
from modeltree.tree import ModelTree

MANIFEST_FORMAT = "nas-bundle"
MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 64 * 2**20
"""A manifest of a thousand paths is about a megabyte; what is far larger is no manifest."""


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
        check_blocks(self.tree, self.blocks)
        for leaf in self.tree.leaves():
            check_shapes(self.tree, self.blocks, self.tree.path(leaf.id))
        if self.paths != paths_of(self.tree):
            raise FormatError("paths are not those of the tree: compile it again")
        for name, target in self.targets.items():
            check_target(self.blocks, name, target)
        check_files(self.targets, self.blocks)

    def files(self) -> Iterator[FileEntry]:
        """Every file of the bundle but the manifest, each place once, in the order of the manifest."""
        seen: set[str] = set()
        for entry in all_files(self.targets, self.blocks):
            if entry.file not in seen:
                seen.add(entry.file)
                yield entry

    def files_of(self, target: str) -> Iterator[FileEntry]:
        """The files that a machine of this target loads: its runtime library, then the compiled blocks."""
        runtime = self.targets[target].runtime
        wanted = {library.file for block in self.blocks.values() for library in block.libraries
                  if library.target == target} | ({runtime.file} if runtime else set())  # fmt: skip
        return (entry for entry in self.files() if entry.file in wanted)


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
