"""Bundles that were tampered with, and whether a reader refuses them before it loads anything."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from forked_run import compiled
from hostile_messages import flipped

from modeltree.errors import ConfigError, DataError, FormatError, NasError
from modeltree.manifest import MAX_MANIFEST_BYTES
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.server.engine.engine import BundleEngine

MANIFEST = "manifest.json"


class Loaded(BaseException):
    """Something was about to be loaded."""


def whole(folder: Path) -> Path:
    """A sound bundle, which a device runs and a server serves."""
    folder.mkdir()
    return compiled(folder)


def opened(folder: Path, good: Path) -> tuple[str, str]:
    """What a device and a server make of a bundle, in a word; and what is wrong with that ("" where it is right)."""
    readers: tuple[Callable[[], object], ...] = (lambda: Device(Bundle.open(folder)), lambda: BundleEngine(folder))
    words = []
    for reader in readers:
        try:
            with mock.patch("ctypes.CDLL", side_effect=Loaded):
                reader()
        except (FormatError, DataError, ConfigError) as error:
            words.append(type(error).__name__)
            if not str(error):
                return words[-1], "refused without a word"
        except Loaded:
            words.append("harmless")
            if _files(folder) != _files(good):
                return "loaded", f"{folder} was loaded although it is not what it was"
        except Exception as error:
            return "broke", f"{type(error).__name__}: {error}"
    return " ".join(words), ""


def _files(folder: Path) -> object:
    """What a bundle's manifest says of its files, and what is wrong with them."""
    try:
        bundle = Bundle.open(folder)
    except NasError as error:
        return str(error)
    return {(one.file, one.sha256, one.bytes) for one in bundle.manifest.files()}, bundle.problems()


# ---- what is done to one file


def _written(change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, Path], None]:
    def done(rng: random.Random, path: Path) -> None:
        data = change(rng, path.read_bytes())
        path.unlink()  # it is linked to the good bundle's
        path.write_bytes(data)

    return done


def _replaced(make: Callable[[Path], object]) -> Callable[[random.Random, Path], None]:
    def done(rng: random.Random, path: Path) -> None:
        path.unlink()
        make(path)

    return done


def _outside(rng: random.Random, path: Path) -> None:
    """The right content, from a place outside the bundle."""
    outside = path.parents[2].with_suffix(".outside")
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def _another(rng: random.Random, path: Path) -> None:
    other = rng.choice([one for one in path.parents[2].rglob("*.so") if one != path])
    path.unlink()
    os.link(other, path)


FILES: dict[str, Callable[[random.Random, Path], None]] = {
    "file: bits flipped": _written(flipped),
    "file: cut short": _written(lambda rng, data: data[: rng.randrange(len(data))]),
    "file: longer": _written(lambda rng, data: data + rng.randbytes(rng.randint(1, 5000))),
    "file: noise of its size": _written(lambda rng, data: rng.randbytes(len(data))),
    "file: empty": _written(lambda rng, data: b""),
    "file: another of the bundle": _another,
    "file: missing": _replaced(lambda path: None),
    "file: a folder": _replaced(Path.mkdir),
    "file: a pipe": _replaced(os.mkfifo),
    "file: a device without end": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "file: a link in a circle": _replaced(lambda path: path.symlink_to(path.name)),
    "file: a link outside": _outside,
}


# ---- what is done to the manifest


def _said(pattern: str, values: list[str]) -> Callable[[random.Random, Path], None]:
    """One place that the pattern finds says something else."""

    def change(rng: random.Random, data: bytes) -> bytes:
        text = data.decode()
        found = rng.choice(list(re.finditer(pattern, text)))
        return (text[: found.start(1)] + rng.choice(values) + text[found.end(1) :]).encode()

    return _written(change)


def _huge(path: Path) -> None:
    with path.open("wb") as made:
        made.truncate(MAX_MANIFEST_BYTES * 1000)  # takes no room on the disk


MANIFESTS: dict[str, Callable[[random.Random, Path], None]] = {
    "manifest: bits flipped": _written(flipped),
    "manifest: cut short": _written(lambda rng, data: data[: rng.randrange(len(data))]),
    "manifest: a part twice": _written(lambda rng, data: data[: (at := rng.randrange(len(data)))] + data[at // 2 :]),
    "manifest: a file elsewhere": _said(
        r'"file": "([^"]*)"',
        ["../../../etc/passwd", "/etc/passwd", "lib/host/../../../x.so", "lib/../lib/host/x.so", "lib//x.so", "",
         "lib/host/.", "lib/host/..", "lib\\\\host\\\\x.so", "lib/host/a\\u0000.so", "lib/host/" + "x" * 5000, "~/x.so",
         "lib/host/x.so\\n", "./lib/host/x.so", "file:///etc/passwd", "lib/other/x.so", "manifest.json"],
    ),
    "manifest: another size": _said(
        r'"bytes": (\d+)', ["0", "-1", "1", "1e3", "1.5", "true", "null", '"9"', "9" * 20, "9" * 5000, str(2**48)]
    ),
    "manifest: another checksum": _said(r'"sha256": "([^"]*)"', ["", "0" * 64, "f" * 63, "F" * 64, "0" * 64 + "\\n"]),
    "manifest: another shape": _said(
        r'"in_shape": (\[[^\]]*\])', ["[]", "[-1]", "[0, 1]", f"[{2**48}, {2**48}]", "null", "[[1]]", "[1e9]", '"3"']
    ),
    "manifest: another block": _said(r'"block": "([^"]*)"', ["", "0" * 20, "g" * 20, "../" * 5, "0" * 5000]),
    "manifest: another target": _said(r'"target": "([^"]*)"', ["", "other", "..", "a/b", "x" * 500]),
    "manifest: another runtime": _said(r'("runtime": \{)', ['"runtime": null, "other": {', '"runtime": {"file": 1, ']),
    "manifest: another format": _said(
        r'("nas-bundle",\n  "version": 1)',
        ['"nas-bundle", "version": 2', '"x", "version": 1', '"nas-bundle"', '"nas-bundle", "version": "1"',
         '"nas-bundle", "version": ' + "9" * 30],
    ),
    "manifest: an unknown key": _said(r'(\{)', ['{"__class__": "os.system", ', '{"file": "x", "file": "y", ']),
    "manifest: nested deeply": _said(r'("record": \{)', ['"record": ' + "[" * 90_000, '"record": {"a": ' * 90_000]),
    "manifest: no numbers": _said(r": (\d+\.?\d*)", ["NaN", "Infinity", "-Infinity", "1e999", "01", "0x1", "1" * 5000]),
    "manifest: no text": _written(
        lambda rng, data: rng.choice([b"", b"\xff\xfe", b"\xef\xbb\xbf" + data, data + data, b"null", b"[]",
                                      data.replace(b"a", b"\xff"), rng.randbytes(9000)])
    ),
    "manifest: huge": _replaced(_huge),
    "manifest: a folder": _replaced(Path.mkdir),
    "manifest: a pipe": _replaced(os.mkfifo),
    "manifest: a device without end": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "manifest: a link in a circle": _replaced(lambda path: path.symlink_to(path.name)),
    "manifest: missing": _replaced(lambda path: None),
}  # fmt: skip
KINDS = (*FILES, *MANIFESTS)


def tampered(rng: random.Random, good: Path, folder: Path, kind: str = "") -> tuple[str, Path]:
    """A copy of a good bundle with one thing done to it: of a kind, or of any."""
    shutil.copytree(good, folder, copy_function=os.link)
    kind = kind or rng.choice(KINDS)
    if kind in MANIFESTS:
        MANIFESTS[kind](rng, folder / MANIFEST)
    else:
        files = sorted(one for one in folder.rglob("*") if one.is_file() and one.name != MANIFEST)
        FILES[kind](rng, rng.choice(files))
    return kind, folder
