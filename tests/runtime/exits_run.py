"""A small network with exits and coded hand-overs as a run: every kind of fork below one node that is always taken."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from forked_run import first_tiles
from torch import nn

from compile.bundle import Wanted, compile_run
from compile.program_file import program_bytes
from compile.targets import host
from modeltree.files import write_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import BandwidthFork, BitsFork, ExitFork, Handover, Leaf, ModelTree, Node, encode_tree
from runtime.wire.codec import dequantise, quantise
from transforms.graph.lifting import export

IMAGE, FEATURES, CLASSES = (3, 12, 12), (8, 6, 6), ("a", "b", "c", "d")
FIRST, REST, HEAD, SECOND_EXIT = "1" * 20, "2" * 20, "3" * 20, "4" * 20
END, FOUR_BITS, SURE, EXIT, EIGHT_BITS = 1, 2, 3, 4, 5
"""Leaves: the end here where it is slow, 4 bits where it is fast, exit 1 when sure; two for policies alone."""
SLOW_MBPS, MIDDLE_MBPS, FAST_MBPS, EDGE_MBPS = 1.0, 10.0, 20.0, 5.0


@cache
def networks() -> dict[str, nn.Module]:
    """Block -> module."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    rest = nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(CLASSES)))
    head[2].weight.data *= 20
    second_exit = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(288, len(CLASSES)))
    return {FIRST: first.eval(), REST: rest.eval(), HEAD: head.eval(), SECOND_EXIT: second_exit.eval()}


def image(seed: int) -> np.ndarray:
    """uint8 (3, 12, 12), one of many brightnesses."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 32 + 32 * (seed % 7), IMAGE, dtype=np.uint8)


def answered(leaf: int, pixels: np.ndarray) -> np.ndarray:
    """What torch answers on the path to a leaf, quantised where it crosses: (4,) logits."""
    modules, bits = networks(), {FOUR_BITS: 4, EIGHT_BITS: 8}.get(leaf)
    with torch.no_grad():
        x = modules[FIRST](torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5)[None] / 0.25))
        if bits is not None:
            x = torch.from_numpy(dequantise(quantise(x.numpy(), bits)))
        block = {SURE: HEAD, EXIT: SECOND_EXIT}.get(leaf, REST)
        return np.asarray(modules[block](x).numpy()[0])


def entropy(logits: np.ndarray) -> float:
    """Of their softmax, by torch, in nats."""
    return float(torch.distributions.Categorical(logits=torch.from_numpy(logits)).entropy())


@cache
def threshold() -> float:
    """Midway between two images, so that rounding decides nothing; about half of them are surer."""
    found = sorted(entropy(answered(SURE, image(seed))) for seed in range(20))
    return (found[9] + found[10]) / 2


def tree() -> ModelTree:
    """Node 0 runs FIRST whatever the link is; below it, the five leaves above."""
    half = (0.5, 0.5)
    types = BandwidthTypes(
        representative_mbps=(SLOW_MBPS, FAST_MBPS), edges_mbps=(EDGE_MBPS,), transition=(half, half), initial=half
    )

    def crossing(bits: int, size_bytes: int) -> dict:
        handover = Handover(place=1, shape=FEATURES, bytes=size_bytes, bits=bits, block=REST, device_ms=60.0)
        return {"partition": 0, "handover": handover, "cloud_ms": 1.0}

    def end(number: int, fork: BandwidthFork | BitsFork | ExitFork, accuracy: float, chance: float, **rest) -> Node:
        rest = {"partition": 1, "device_ms": 0.0} | rest
        leaf = Leaf(chance=chance, latency_ms=30.0, accuracy=accuracy, accuracy_origin="measured")
        return Node(id=number, level=1, parent=0, fork=fork, segments=1, actions=(), leaf=leaf, **rest)

    nodes = (
        Node(id=0, level=0, parent=None, fork=BandwidthFork(types=(0, 1)), partition=1, segments=1, actions=(),
             device_ms=1.0, block=FIRST, children=(END, FOUR_BITS, SURE, EXIT, EIGHT_BITS)),
        end(END, BandwidthFork(types=(0,)), 90.0, 0.3, device_ms=60.0, block=REST),
        end(FOUR_BITS, BitsFork(types=(1,), bits=4), 88.0, 0.3, **crossing(4, 14_400)),
        end(SURE, ExitFork(exit=1, entropy=threshold()), 97.0, 0.4, device_ms=1.0, block=HEAD),
        end(EXIT, ExitFork(exit=2), 84.0, 0.0, device_ms=20.0, block=SECOND_EXIT),
        end(EIGHT_BITS, BitsFork(types=(), bits=8), 90.0, 0.0, **crossing(8, 28_800)),
    )  # fmt: skip
    return ModelTree(
        base="tiny", input_shape=IMAGE, mean=(0.5,) * 3, std=(0.25,) * 3, classes=CLASSES, places=(0, 1, 4),
        types=types, rtt_ms=2.0, device="pi4", cloud="cloud_cpu", trace="steps", nodes=nodes, exits=(1, 3),
    )  # fmt: skip


def compiled(folder: Path) -> Path:
    """The bundle for this machine."""
    run = folder / "run"
    (run / "blocks").mkdir(parents=True)
    write_bytes(run / "tree.json", encode_tree(tree()))
    for name, module in networks().items():
        program = export(module, IMAGE if name == FIRST else FEATURES)
        write_bytes(run / "blocks" / f"{name}.pt2", program_bytes(program))
    with first_tiles():
        compile_run(run, folder / "bundle", Wanted(targets=[host()]))
    return folder / "bundle"
