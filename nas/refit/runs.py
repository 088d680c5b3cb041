"""What blocks that were met are made of, read from the search that they come from. Needs torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from compile.program_file import read_program
from modeltree.errors import ConfigError
from modeltree.layers import LayerSpec
from modeltree.met import Met, Timed
from modeltree.tree import Node, decode_tree
from transforms import analyse


def with_layers(met: Met, runs: Sequence[Path]) -> Met:
    """What was met, with the layers of every block that one of the searches has exported.

    Blocks in other number formats than f32 stay without, for profiles tell those prices apart.

    Raises
    ------
    ConfigError : a folder holds no blocks, or none of the blocks that were met. FormatError : a block is damaged.
    """
    folders = [run / "blocks" for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if not folder.is_dir():
            raise ConfigError(f"{run} holds no blocks/: pass the directory that nas search wrote to --run")
    rounded = {node.block for run in runs for node in _nodes(run) if node.number_format != "f32"}
    known: dict[str, tuple[LayerSpec, ...]] = {}
    for name in (key.partition(" ")[0] for key in (*met.blocks, *met.rests)):
        path = next((path for folder in folders if (path := folder / f"{name}.pt2").is_file()), None)
        if path is not None and name not in known and name not in rounded:
            spec = analyse(read_program(path)).spec
            known[name] = tuple(spec.layers(0, len(spec.segments)))
    if runs and not known:
        raise ConfigError(
            f"{', '.join(map(str, runs))} has none of the blocks that were met: pass the search that the bundle was "
            "compiled from to --run"
        )

    def told(times: Mapping[str, Timed]) -> dict[str, Timed]:
        return {
            key: msgspec.structs.replace(one, layers=known.get(key.partition(" ")[0], one.layers))
            for key, one in times.items()
        }

    return msgspec.structs.replace(met, blocks=told(met.blocks), rests=told(met.rests))


def _nodes(run: Path) -> Iterable[Node]:
    """Of all trees of a run."""
    for path in (run / "tree.json", *sorted((run / "methods").glob("*.json"))):
        if path.is_file():
            yield from decode_tree(path.read_bytes(), str(path)).nodes
