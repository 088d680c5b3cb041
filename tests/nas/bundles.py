"""A bundle made by hand: the tree of docs/run-directory.md, a target for the device, one for the cloud, tiny files."""

import hashlib

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.manifest import (
    BlockEntry,
    FileEntry,
    LibraryEntry,
    Manifest,
    Provenance,
    TargetEntry,
    VariantAccuracy,
    encode_manifest,
    library_file,
    onnx_file,
    paths_of,
    roles_of,
)
from modeltree.tree import Action, BandwidthFork, Handover, Leaf, ModelTree, Node

FIRST, SECOND = "3f0c8a5be1d24796a0b1", "c4471be90a6d2f83e5d0"
FROM_IMAGE, FROM_FOUR = "9d2e61c07f3ab8845512", "07b5d3fe8c19a2604e6f"
IMAGE, FEATURES, LOGITS = (3, 32, 32), (256, 4, 4), (2,)
SHAPES = {
    FIRST: (IMAGE, FEATURES), SECOND: (FEATURES, LOGITS), FROM_IMAGE: (IMAGE, LOGITS), FROM_FOUR: (FEATURES, LOGITS),
}  # fmt: skip
RUNTIME = b"a runtime library"


def leaf(chance, latency_ms, accuracy):
    return Leaf(chance=chance, latency_ms=latency_ms, accuracy=accuracy, accuracy_origin="measured")


def tree():
    """Slow, then slow: both blocks here. Slow, then fast: place 4 crosses. Fast: the image crosses."""
    half = (0.5, 0.5)
    types = BandwidthTypes(representative_mbps=(1.0, 8.0), edges_mbps=(5.0,), transition=(half, half), initial=half)
    nodes = (
        Node(id=0, level=0, parent=None, fork=BandwidthFork(types=(0,)), partition=4, segments=4, device_ms=20.0,
             actions=(Action(layer="conv2d", technique="prune", rate=0.5),), block=FIRST, children=(2, 3)),
        Node(id=1, level=0, parent=None, fork=BandwidthFork(types=(1,)), partition=0, segments=4, device_ms=0.0,
             actions=(), transfer_ms=33.072, cloud_ms=0.9, leaf=leaf(0.5, 33.972, 92.0),
             handover=Handover(place=0, shape=IMAGE, bytes=3072, bits=8, block=FROM_IMAGE)),
        Node(id=2, level=1, parent=0, fork=BandwidthFork(types=(0,)), partition=7, segments=7, device_ms=60.0,
             actions=(Action(layer="linear", technique="keep"),), block=SECOND, leaf=leaf(0.25, 80.0, 90.5)),
        Node(id=3, level=1, parent=0, fork=BandwidthFork(types=(1,)), partition=0, segments=7, device_ms=0.0,
             actions=(), transfer_ms=46.384, cloud_ms=0.6, leaf=leaf(0.25, 66.984, 91.2),
             handover=Handover(place=4, shape=FEATURES, bytes=16384, bits=32, block=FROM_FOUR)),
    )  # fmt: skip
    return ModelTree(
        base="vgg11", input_shape=IMAGE, mean=(0.5,) * 3, std=(0.25,) * 3, classes=("cat", "dog"), places=(0, 4, 11),
        types=types, rtt_ms=30.0, device="phone", cloud="cloud_gpu", trace="wifi_weak_indoor", nodes=nodes,
    )  # fmt: skip


def content(file):
    """What a file of the hand-made bundle holds."""
    return RUNTIME if file.endswith("runtime.so") else f"content of {file}".encode()


def entry(file):
    return {"file": file, "sha256": hashlib.sha256(content(file)).hexdigest(), "bytes": len(content(file))}


def library(target, block, variant, batch):
    file = library_file(target, block, variant=variant, batch=batch)
    error = 1.5e-6 if target == "server" else None
    return LibraryEntry(
        **entry(file), target=target, batch=batch, variant=variant, weight_bytes=1000, workspace_bytes=200, macs=5000,
        max_abs_error=error,
    )  # fmt: skip


def manifest():
    """pi4 runs everything, with f32 and int8 weights; server runs the rests, one image and eight at a time."""
    asked = {"pi4": (("f32", "int8"), (1,)), "server": (("f32",), (1, 8))}
    roles = {"pi4": ("device", "rest"), "server": ("rest",)}
    blocks = {
        name: BlockEntry(
            roles=parts, in_shape=SHAPES[name][0], out_shape=SHAPES[name][1],
            libraries=tuple(library(target, name, variant, batch) for target, (variants, batches) in asked.items()
                            if set(parts) & set(roles[target]) for variant in variants for batch in batches),
            onnx=FileEntry(**entry(onnx_file(name))) if parts == ("rest",) else None,
        )
        for name, parts in roles_of(tree()).items()
    }  # fmt: skip
    records = {
        "pi4": {"name": "pi4", "triple": "aarch64-unknown-linux-gnu", "cpu": "cortex-a72", "features": ("+neon",),
                "threads": 4},
        "server": {"name": "server", "triple": "x86_64-unknown-linux-gnu", "cpu": "x86-64-v3", "features": (),
                   "threads": 2},
    }  # fmt: skip
    runtimes = {"pi4": FileEntry(**entry("lib/pi4/libtvm_runtime.so")), "server": None}
    targets = {
        name: TargetEntry(roles=roles[name], variants=asked[name][0], batches=asked[name][1], record=records[name],
                          runtime=runtimes[name])
        for name in asked
    }  # fmt: skip
    return Manifest(
        tree=tree(), targets=targets, blocks=blocks, paths=paths_of(tree()),
        variant_accuracy={"int8": VariantAccuracy(accuracy=91.25, images=1000, origin="measured on test images")},
        provenance=Provenance(
            config={"base": "vgg11", "K": 2, "N": 2, "seed": 0, "weights": None}, commit="1b676fb",
            machine="x86_64, 2 cores", date="2026-11-21", searched_with={"torch": "2.13.0"},
            compiled_with={"apache-tvm": "0.27.0.post1"},
        ),
    )  # fmt: skip


def write_bundle(folder):
    """The hand-made bundle on the disk."""
    for one in manifest().files():
        path = folder / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(one.file))
    (folder / "manifest.json").write_bytes(encode_manifest(manifest()))
    return folder
