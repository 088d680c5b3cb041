"""Reading a bundle: nothing is loaded before its size and sha256 are what the manifest says. No torch, no compiler.

The manifest says what the files must be; that the manifest is the one its maker wrote, it cannot say.
"""

import hashlib
import os
import stat
from pathlib import Path

from modeltree.errors import ConfigError, DataError, FormatError, unknown
from modeltree.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    BlockEntry,
    FileEntry,
    LibraryEntry,
    Manifest,
    decode_manifest,
)


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a manifest, of whatever kind."""
    return os.path.lexists(folder / MANIFEST_NAME)


class Bundle:
    """An open bundle. `Bundle.open` makes one."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._checked: set[str] = set()
        self._sound: set[str] = set()

    @classmethod
    def open(cls, folder: Path | str, target: str | None = None) -> "Bundle":
        """Read the manifest and, with a target named, check every file that a machine of that target loads.

        Without one, the files of a target are checked, all of them, when the first is asked for: none is loaded before.

        Raises
        ------
        ConfigError : no such folder, not a bundle, or a target it has no libraries for.
        FormatError : the manifest or a file is not what it must be; names the file. DataError : it cannot be read.
        """
        folder = Path(folder)
        if not is_bundle(folder):
            raise ConfigError(f"{folder} is not a bundle (no {MANIFEST_NAME}): pass what nas compile wrote to --out")
        path = folder / MANIFEST_NAME
        bundle = cls(folder, decode_manifest(_read(_inside(folder, MANIFEST_NAME), MAX_MANIFEST_BYTES), str(path)))
        if target is not None:
            bundle.check(target)
        return bundle

    def check(self, target: str) -> None:
        """Check every file that a machine of this target loads; once, however often it is asked for.

        Raises
        ------
        ConfigError : no such target. FormatError : a file is not what the manifest says. DataError : it cannot be read.
        """
        if target not in self.manifest.targets:
            raise unknown(f"target of {self.folder}", target, self.manifest.targets)
        if target not in self._sound:
            for entry in self.manifest.files_of(target):
                self._checked_path(entry)
            self._sound.add(target)

    def block(self, block_hash: str) -> BlockEntry:
        """What the manifest says of a block.

        Raises
        ------
        ConfigError : it has no such block.
        """
        if block_hash not in self.manifest.blocks:
            raise unknown(f"block of {self.folder}", block_hash, self.manifest.blocks)
        return self.manifest.blocks[block_hash]

    def library(self, block_hash: str, *, target: str, variant: str = "f32", batch: int = 1) -> LibraryEntry:
        """What the manifest says of a compiled block.

        Raises
        ------
        ConfigError : it was not compiled so; lists how it was.
        """
        libraries = {(one.target, one.variant, one.batch): one for one in self.block(block_hash).libraries}
        if (target, variant, batch) not in libraries:
            raise unknown(f"library of block {block_hash}", f"{target} {variant} batch {batch}",
                          [f"{t} {v} batch {b}" for t, v, b in libraries])  # fmt: skip
        return libraries[target, variant, batch]

    def library_path(self, block_hash: str, *, target: str, variant: str = "f32", batch: int = 1) -> Path:
        """The file of a compiled block; it and all others of its target are checked.

        Raises
        ------
        ConfigError : it was not compiled so. FormatError : a file is not what the manifest says.
        """
        entry = self.library(block_hash, target=target, variant=variant, batch=batch)
        self.check(target)
        return self.folder / entry.file

    def runtime_path(self, target: str) -> Path | None:
        """The target's runtime library, None where the bundle ships none; all files of the target are checked.

        Raises
        ------
        ConfigError : no such target. FormatError : a file is not what the manifest says.
        """
        self.check(target)
        runtime = self.manifest.targets[target].runtime
        return None if runtime is None else self.folder / runtime.file

    def onnx_path(self, block_hash: str) -> Path | None:
        """The ONNX form of a block, checked; None where the bundle has none.

        Raises
        ------
        ConfigError : no such block. FormatError : the file is not what the manifest says.
        """
        onnx = self.block(block_hash).onnx
        return None if onnx is None else self._checked_path(onnx)

    def problems(self) -> list[str]:
        """Check every file anew; one sentence for each that is off, naming it."""
        found = []
        for entry in self.manifest.files():
            try:
                check_file(self.folder, entry)
            except (FormatError, DataError) as error:
                found.append(str(error))
        return found

    def _checked_path(self, entry: FileEntry) -> Path:
        if entry.file not in self._checked:
            check_file(self.folder, entry)
            self._checked.add(entry.file)
        return self.folder / entry.file


def check_file(folder: Path, entry: FileEntry) -> None:
    """Whether a file of a bundle has the size and sha256 that its entry gives.

    Raises
    ------
    FormatError : it is not there, leaves the bundle, or has other content. DataError : it cannot be read.
    """
    path = _inside(folder, entry.file)
    again = "copy or compile the bundle again"
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != entry.bytes:
                raise FormatError(f"{folder / entry.file} has {size} bytes: it must have {entry.bytes}; {again}")
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(folder / entry.file, error) from error
    if digest != entry.sha256:
        raise FormatError(f"{folder / entry.file} has sha256 {digest}: it must be {entry.sha256}; {again}")


def _inside(folder: Path, file: str) -> Path:
    """The real path of a regular file, which must not lie outside the bundle."""
    path = folder / file
    try:
        root, real = folder.resolve(), path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing: copy or compile the bundle again") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that run in a circle
        raise _unreadable(path, error) from error
    if not real.is_relative_to(root):
        raise FormatError(f"{path} is a link to {real}, outside the bundle: a bundle must hold its own files")
    if not regular:
        raise FormatError(f"{path} is not a regular file: copy or compile the bundle again")
    return real


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise FormatError(f"{path} is larger than {limit} bytes: it is not a bundle's manifest")
    return data


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}: check its permissions")
