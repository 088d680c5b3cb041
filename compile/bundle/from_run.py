"""The whole way from a run directory to a bundle."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from compile.bundle.atomic_folder import staged
from compile.bundle.block_cache import Kept
from compile.bundle.run_files import program_path, provenance, read_tree
from compile.bundle.tools import Tools, real_tools
from compile.bundle.wanted import Wanted
from compile.bundle.writer import Progress, Writer
from modeltree.errors import DataError
from modeltree.manifest import (
    MANIFEST_NAME,
    Manifest,
    VariantAccuracy,
    decode_manifest,
    encode_manifest,
    number_formats_of,
    paths_of,
    roles_of,
)


def compile_run(
    run: Path,
    out: Path,
    wanted: Wanted,
    *,
    method: str = "",
    overwrite: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda stage, done, total, text: None,
    measure: Callable[[Manifest, Path], Mapping[str, VariantAccuracy]] | None = None,
    tune: str | None = None,
    tools: Tools | None = None,
) -> Manifest:
    """Compile the tree of a finished run into the bundle `out`, which is there whole or not at all.

    Parameters
    ----------
    method : whose tree; the one that the search chose unless said.
    overwrite : replace a bundle that is there.
    cache : folder for compiled blocks and tuned tiles; with it an interrupted run goes on where it stopped.
    progress : called with stage, done, total and a text.
    tune : `rpc://host:port` of a device that times tiles for the targets that do not run here; those are compiled anew.
        `none` where all tiles are reckoned: compiled sooner, slower here.
    measure : tells what kinds of weights are worth, given the manifest and the folder its files lie in.

    Raises
    ------
    ConfigError : not a run, contradictory targets, or `out` is not ours to replace.
    DataError : a file of the run cannot be read, or the disk refuses. FormatError : it is not what it should be.
    """
    tree = read_tree(run, method)
    roles = roles_of(tree)
    for name in roles:
        if not program_path(run, name).exists():
            raise DataError(f"{program_path(run, name)} is missing, and the tree names it: run the search again")
    with staged(out, overwrite=overwrite) as folder:
        writer = Writer(
            run=run,
            folder=folder,
            wanted=wanted,
            kept=Kept(cache),
            tools=tools or real_tools(cache, tune),
            tune=tune,
            formats=number_formats_of(tree),
        )
        blocks = writer.blocks(roles, progress)
        manifest = Manifest(
            tree=tree, targets=writer.targets(), blocks=blocks, paths=paths_of(tree),
            provenance=provenance(run, method, onnx=wanted.onnx),
        )  # fmt: skip
        if measure is not None:
            progress("compile", 1, 1, "accuracy")
            manifest = msgspec.structs.replace(manifest, variant_accuracy=dict(measure(manifest, folder)))
        data = encode_manifest(manifest)
        checked = decode_manifest(data, str(out / MANIFEST_NAME))
        writer.write(MANIFEST_NAME, data)
    return checked
