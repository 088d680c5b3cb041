"""A small network, sliced once, as a run that really hands over: the image at place 0, or features at place 1."""

from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from compile.bundle import Wanted, compile_run
from compile.program_file import program_bytes
from compile.targets import host
from modeltree.files import write_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import BandwidthFork, Handover, Leaf, ModelTree, Node, encode_tree
from transforms.graph.lifting import export

IMAGE, FEATURES, CLASSES = (3, 12, 12), (8, 6, 6), ("a", "b", "c", "d")
FIRST, SECOND, FROM_IMAGE = "1" * 20, "2" * 20, "3" * 20
SLOW_MBPS, EDGE_MBPS, FAST_MBPS = 1.0, 5.0, 20.0
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def networks() -> dict[str, nn.Module]:
    """Block -> module: the first half (compressed: other weights), the rest, and the whole base network."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    base_first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    return {FIRST: first.eval(), SECOND: second.eval(), FROM_IMAGE: nn.Sequential(*base_first, *second).eval()}


def tree() -> ModelTree:
    """Slow: both blocks here. Medium (slow, then fast): features cross in 8 bits. Fast: the image crosses."""
    half = (0.5, 0.5)
    types = BandwidthTypes(
        representative_mbps=(SLOW_MBPS, FAST_MBPS), edges_mbps=(EDGE_MBPS,), transition=(half, half), initial=half
    )

    def leaf(chance: float) -> Leaf:
        return Leaf(chance=chance, latency_ms=10.0, accuracy=90.0, accuracy_origin="measured")

    def crossing(place: int, shape: tuple[int, ...], bits: int, block: str) -> Handover:
        return Handover(place=place, shape=shape, bytes=int(np.prod(shape)) * bits // 8, bits=bits, block=block)

    common = {"actions": (), "device_ms": 1.0}
    nodes = (
        Node(id=0, level=0, parent=None, fork=BandwidthFork(types=(0,)), partition=1, segments=1, block=FIRST,
             children=(2, 3), **common),
        Node(id=1, level=0, parent=None, fork=BandwidthFork(types=(1,)), partition=0, segments=1, leaf=leaf(0.5),
             handover=crossing(0, IMAGE, 8, FROM_IMAGE), **common),
        Node(id=2, level=1, parent=0, fork=BandwidthFork(types=(0,)), partition=1, segments=1, block=SECOND,
             leaf=leaf(0.25), **common),
        Node(id=3, level=1, parent=0, fork=BandwidthFork(types=(1,)), partition=0, segments=1, leaf=leaf(0.25),
             handover=crossing(1, FEATURES, 32, SECOND), **common),
    )  # fmt: skip
    return ModelTree(
        base="tiny", input_shape=IMAGE, mean=MEAN, std=STD, classes=CLASSES, places=(0, 1, 2), types=types, rtt_ms=2.0,
        device="pi4", cloud="cloud_cpu", trace="steps", nodes=nodes,
    )  # fmt: skip


def first_tiles() -> AbstractContextManager[object]:
    """Tiles as they are reckoned: timing all of them takes longer than the tests."""
    return patch("compile.tuning.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0))


def compiled(folder: Path, *, onnx: bool = False) -> Path:
    """The bundle for this machine."""
    run = folder / "run"
    (run / "blocks").mkdir(parents=True)
    write_bytes(run / "tree.json", encode_tree(tree()))
    for name, module in networks().items():
        shape = FEATURES if name == SECOND else IMAGE
        write_bytes(run / "blocks" / f"{name}.pt2", program_bytes(export(module, shape)))
    with first_tiles():
        compile_run(run, folder / "bundle", Wanted(targets=[host()], cloud_targets=[host()], onnx=onnx))
    return folder / "bundle"


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 (3, h, w) as the networks take it, by hand."""
    mean, std = (np.array(v)[:, None, None] for v in (MEAN, STD))
    return ((pixels / 255 - mean) / std).astype(np.float32)


def wanted(nodes: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """What torch answers along a path of the tree, for one normalised image."""
    modules = networks()
    with torch.no_grad():
        tensor = torch.from_numpy(x[None])
        if nodes == (1,):
            return modules[FROM_IMAGE](tensor).numpy()[0]
        return modules[SECOND](modules[FIRST](tensor)).numpy()[0]
