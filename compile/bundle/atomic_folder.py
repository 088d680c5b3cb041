"""Folders are written whole or not at all, and only what we wrote ourselves is ever replaced."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from modeltree.errors import ConfigError, DataError
from modeltree.manifest import MANIFEST_NAME, is_manifest

OWN = {MANIFEST_NAME, "lib", "onnx"}
"""What a bundle's folder holds."""


@contextlib.contextmanager
def staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside `out`; it takes `out`'s place when the block ends without an error.

    Everything is flushed to disk before. What a killed run left beside `out` is cleared away, or, where it was killed
    between taking the old bundle away and putting the new one there, put back.

    Raises
    ------
    ConfigError : `out` is not ours to replace, or another run is writing it. DataError : the disk refuses.
    """
    part, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    with contextlib.ExitStack() as held:
        with _refusing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(out))
            _recover(out, old)
            check_replaceable(out, overwrite=overwrite)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
        try:
            yield part
            with _refusing(out):
                _flush(part)
                check_replaceable(out, overwrite=overwrite)  # someone may have put something there meanwhile
                _swap(part, out, old)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def check_replaceable(out: Path, *, overwrite: bool) -> None:
    """Whether a bundle may be written to `out`: nothing is there, an empty folder, or a bundle and `overwrite`.

    Raises
    ------
    ConfigError : it may not.
    """
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise ConfigError(f"{out} is not a folder: pass another --out")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    manifest = out / MANIFEST_NAME
    if not (manifest.is_file() and is_manifest(manifest.read_bytes())):
        raise ConfigError(f"{out} is not empty and not a bundle: pass another --out")
    if not overwrite:
        raise ConfigError(f"{out} holds a bundle already: pass --force to replace it, or another --out")
    if foreign := sorted(there - OWN):
        raise ConfigError(f"{out} holds {foreign[0]!r}, which no bundle has: move it away, or pass another --out")


def _recover(out: Path, old: Path) -> None:
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _swap(part: Path, out: Path, old: Path) -> None:
    if out.exists():
        out.rename(old)
    try:
        part.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    _sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """A lock held until the block ends or the process dies, whatever kills it."""
    name = out.with_name(f".{out.name}.lock")
    handle = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.fstat(handle).st_nlink > 0  # else its holder has just ended, and a third may be starting
        except BlockingIOError:
            free = False
        if not free:
            raise ConfigError(f"another nas compile is writing {out}: wait for it, or pass another --out")
        try:
            yield
        finally:
            name.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _flush(folder: Path) -> None:
    for where, _, names in os.walk(folder):
        for name in names:
            _sync(Path(where, name))
        _sync(Path(where))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _refusing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or error}: free some space or choose another folder"
        ) from error
