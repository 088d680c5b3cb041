"""Files are written whole or not at all."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from modeltree.errors import DataError, FormatError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; rename it to `path` when the block ends without an error.

    The data is flushed to disk before the rename, so a kill at any moment leaves the old file or the new one.

    Raises
    ------
    DataError : the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}: free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse now what could not be written when long work has ended; nothing is left behind.

    Raises
    ------
    DataError : `path` is a folder, something on the way to it is a file, or its folder cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file to write")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write {path}: {folder}: {error.strerror}: choose another folder") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` whole or not at all."""
    write_bytes(path, text.encode())


_PARTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", re.ASCII)


def inside(folder: Path, name: str) -> Path:
    """The path of what a file calls `name`, in `folder`: every name that was read becomes a path here.

    name : plain parts between slashes. A link may lead elsewhere within the folder, not out of it.

    Raises
    ------
    FormatError : the name is empty, absolute, has `..` or other than plain characters, or a link leads out.
    """
    if not isinstance(name, str) or not all(_PARTS.fullmatch(part) for part in name.split("/")):
        raise FormatError(
            f"{str(name)[:80]!r} is no name of a file in {folder}: it must be plain parts between slashes"
        )
    path = Path(folder) / name
    try:
        within = path.resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError) as error:  # links in a circle
        raise FormatError(f"{path} cannot be followed: replace the link by a file") from error
    if not within:
        raise FormatError(f"{path} is a link that leads out of {folder}: replace it by the file")
    return path
