"""A bundle for a cloud that is this machine: the tree of tests/nas/bundles.py, its two rests compiled for real."""

import functools
from pathlib import Path
from unittest import mock

import msgspec
import torch
from bundles import FEATURES, FIRST, FROM_FOUR, FROM_IMAGE, IMAGE, LOGITS, SECOND, SHAPES, tree
from torch import nn

from compile.bundle.block_cache import sha256
from compile.machine_code.linking import runtime_library
from compile.pipeline import compile_block
from compile.targets import host
from modeltree.manifest import (
    BlockEntry,
    FileEntry,
    LibraryEntry,
    Manifest,
    TargetEntry,
    encode_manifest,
    library_file,
    paths_of,
    runtime_file,
)
from transforms import export

BATCHES = (1, 4, 8)


@functools.cache
def library(block: str, batch: int, seed: int) -> bytes:
    """A rest with weights of its own for every seed."""
    torch.manual_seed(seed)
    nets: dict[str, nn.Module] = {
        FROM_IMAGE: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                  nn.Linear(8 * 16 * 16, *LOGITS)),
        FROM_FOUR: nn.Sequential(nn.Flatten(), nn.Linear(256 * 4 * 4, *LOGITS)),
    }  # fmt: skip
    shape = IMAGE if block == FROM_IMAGE else FEATURES
    with mock.patch("compile.tuning.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0)):
        return compile_block(export(nets[block].eval(), shape), host(), batch=batch).library


def write_small_bundle(folder: Path, *, image_seed: int = 0, batches: tuple[int, ...] = BATCHES) -> Path:
    """Write it. image_seed : of the weights behind the image; those behind place 4 are always the same."""
    files: dict[str, bytes] = {}

    def written(file: str, data: bytes) -> FileEntry:
        files[file] = data
        return FileEntry(file=file, sha256=sha256(data), bytes=len(data))

    def entry(block: str, batch: int) -> LibraryEntry:
        data = library(block, batch, image_seed if block == FROM_IMAGE else 0)
        one = written(library_file("host", block, batch=batch), data)
        return LibraryEntry(
            **msgspec.structs.asdict(one), target="host", batch=batch, variant="f32", weight_bytes=0,
            workspace_bytes=0, macs=0,
        )  # fmt: skip

    blocks = {
        name: BlockEntry(
            roles=("rest",) if name in (FROM_IMAGE, FROM_FOUR) else ("device",), in_shape=SHAPES[name][0],
            out_shape=SHAPES[name][1],
            libraries=tuple(entry(name, batch) for batch in batches) if name in (FROM_IMAGE, FROM_FOUR) else (),
        )
        for name in sorted((FIRST, SECOND, FROM_IMAGE, FROM_FOUR))
    }  # fmt: skip
    name, content = runtime_library(host())
    target = TargetEntry(
        roles=("rest",), variants=("f32",), batches=batches, record=msgspec.to_builtins(host()),
        runtime=written(runtime_file("host", name), content),
    )  # fmt: skip
    manifest = Manifest(tree=tree(), targets={"host": target}, blocks=blocks, paths=paths_of(tree()))
    for file, data in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return folder
