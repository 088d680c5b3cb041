"""What a bundle is made from: the files of a finished run."""

import json
from pathlib import Path

import msgspec

from compile.bundle.block_cache import versions
from modeltree.errors import ConfigError, DataError, FormatError, unknown
from modeltree.files import inside
from modeltree.manifest import Provenance
from modeltree.tree import ModelTree, decode_tree


def read_tree(run: Path, method: str = "") -> ModelTree:
    """The tree of a finished run: the one it chose, or that of a method.

    Raises
    ------
    ConfigError : not a run, not finished, or no such method. FormatError : not a tree. DataError : it cannot be read.
    """
    path = run / "tree.json"
    if not path.exists():
        unfinished = (run / "config.json").exists()
        what = "is not finished: pass --resume to nas search to go on" if unfinished else "is not a run directory: "
        raise ConfigError(f"{run} {what}" + ("" if unfinished else "pass what nas search wrote to --out"))
    if method:
        path = run / "methods" / f"{method}.json"
        known = sorted(one.stem for one in path.parent.glob("*.json"))
        if method not in known:
            raise unknown(f"method of {run}", method, known)
    return decode_tree(read_bytes(path), str(path))


def executable_methods(run: Path) -> list[str]:
    """Names of a run's methods whose blocks are exported, sorted.

    Raises
    ------
    ConfigError : not a run, or one from before methods were exported.
    """
    read_tree(run)
    found = []
    for path in sorted((run / "methods").glob("*.json")):
        tree = decode_tree(read_bytes(path), str(path))
        if all(node.handover is None or node.handover.block for node in tree.nodes):
            found.append(path.stem)
    if not found:
        raise ConfigError(f"{run} holds no methods: search again with this nas")
    return found


def provenance(run: Path, method: str, *, onnx: bool) -> Provenance:
    """What the run says of itself, and what compiled it."""
    made_with = versions() | (versions(onnx=True) if onnx else {})
    path = run / "summary.json"
    if not path.exists():
        return Provenance(method=method, compiled_with=made_with)
    try:
        summary = json.loads(read_bytes(path))
        told = summary.get("provenance") or {}
        return msgspec.convert(
            {
                "config": summary.get("config") or {},
                "method": method,
                "searched_with": told.get("versions", {}),
                "compiled_with": made_with,
            }
            | {name: told[name] for name in ("commit", "machine", "date") if name in told},
            Provenance,
        )
    except (ValueError, AttributeError, RecursionError) as error:  # msgspec's ValidationError is a ValueError
        raise FormatError(f"{path} is not a run's summary: {error}: run the search again") from error


def program_path(run: Path, block: str) -> Path:
    """Where a run keeps an exported block."""
    return inside(run / "blocks", f"{block}.pt2")


def read_bytes(path: Path) -> bytes:
    """A file of the run.

    Raises
    ------
    DataError : it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: check its permissions") from error
