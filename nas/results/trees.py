"""The trees of run directories and bundles, by method, and the links that they were searched for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeltree.errors import ConfigError, NasError
from modeltree.link.scenes import load_trace
from modeltree.link.traces import Trace
from modeltree.tree import ModelTree, decode_tree
from nas.names import TITLES
from nas.results.run_directory import read_run
from runtime.execution.bundle import Bundle, is_bundle

TREE = "tree"
"""What a tree is called that does not say which method it comes from."""


@dataclass(frozen=True, kw_only=True)
class MethodTrees:
    """Trees of methods. links : (trace, its seed, round trip in ms) that each was searched for, without repeats."""

    trees: Mapping[str, ModelTree]
    links: tuple[tuple[str, int, float], ...]


def read_methods(paths: Iterable[Path]) -> MethodTrees:
    """Every method's tree, simplest method first.

    Where two differing trees have a name in common, all names are put behind that of their folder: `runs-a/tree`.

    Parameters
    ----------
    paths : run directories (an older one without `methods/` has its tree alone), bundles, and folders of bundles.

    Raises
    ------
    ConfigError : no path, one that is none of these, or trees that tell different classes apart.
    FormatError : a file that is not what it should be.
    """
    entries: list[tuple[str, str, ModelTree]] = []
    links: dict[tuple[str, int, float], None] = {}
    folders = list(dict.fromkeys(path.resolve() for path in paths))
    short = len({folder.name for folder in folders}) == len(folders)
    for path in folders:
        for method, tree, config in _read(path):
            entries.append((path.name if short else str(path), method, tree))
            links[tree.trace, int(config.get("seed") or 0), tree.rtt_ms] = None
    if not entries:
        raise ConfigError("there is no tree to emulate: pass run directories or bundles")
    if len({tree.classes for _, _, tree in entries}) > 1:
        raise ConfigError("these trees tell different classes apart: pass runs and bundles of the same data")
    named: dict[str, ModelTree] = {}
    apart = any(named.setdefault(method, tree) != tree for _, method, tree in entries)
    if apart:
        named = {f"{folder}/{method}": tree for folder, method, tree in entries}
    return MethodTrees(trees=dict(sorted(named.items(), key=lambda item: rank(item[0]))), links=tuple(links))


def searched_links(found: MethodTrees, *, seed: int | None, rtt_ms: float | None) -> list[Trace]:
    """The traces that the trees were searched for, with their round trips; `seed` and `rtt_ms` override what was used.

    Raises
    ------
    ConfigError : one cannot be loaded here.
    """
    links = dict.fromkeys((name, used if seed is None else seed, rtt if rtt_ms is None else rtt_ms)
                          for name, used, rtt in found.links)  # fmt: skip
    traces = []
    for name, used, rtt in links:
        try:
            traces.append(load_trace(name, seed=used, rtt_ms=rtt))
        except NasError as error:
            raise ConfigError(
                f"the trace that the tree was searched for is not here ({error}): pass --trace"
            ) from error
    return traces


def rank(name: str) -> tuple[str, int, str]:
    """Sorts methods by their folder, then the simplest first."""
    folder, _, method = name.rpartition("/")
    known = list(TITLES)
    return folder, known.index(method) if method in known else len(known), method


def _read(path: Path) -> list[tuple[str, ModelTree, Mapping[str, Any]]]:
    """(method, tree, config of the search) of all that lies in a folder."""
    if is_bundle(path):
        return [_of_bundle(path)]
    if (path / "config.json").exists():
        summary, tree = read_run(path)
        config = summary.get("config") or {}
        files = sorted((path / "methods").glob("*.json"))
        return [(file.stem, decode_tree(file.read_bytes(), str(file)), config) for file in files] or [
            (TREE, tree, config)
        ]
    bundles = sorted(child for child in path.iterdir() if is_bundle(child)) if path.is_dir() else []
    if not bundles:
        raise ConfigError(f"{path} is no run directory, no bundle and no folder of bundles: pass one of them")
    return [_of_bundle(bundle) for bundle in bundles]


def _of_bundle(path: Path) -> tuple[str, ModelTree, Mapping[str, Any]]:
    manifest = Bundle.open(path).manifest
    return manifest.provenance.method or TREE, manifest.tree, manifest.provenance.config
