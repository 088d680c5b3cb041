"""What `faults.py` holds answers against: the right numbers of every path, and the device's own time for it."""

import collections
import itertools
import math
import time

import numpy as np

from modeltree.tree import Node
from modeltree.units import s_from_ms
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.execution.library import Library
from runtime.result import Result
from runtime.wire.codec import FLOAT_BITS
from runtime.wire.frames import decode, encode

MEMORY_S = 60.0
ALMOST_ALL = 0.95

Nodes = tuple[int, ...]


class Truth:
    """Every path's output for every image, from bare libraries, computed once."""

    def __init__(self, bundle: Bundle, images: int, seed: int) -> None:
        tree = bundle.manifest.tree
        rng = np.random.default_rng(seed)
        self._pixels = rng.integers(0, 256, (images, *tree.input_shape), dtype=np.uint8)
        mean, std = (np.array(values, np.float32)[:, None, None] * 255 for values in (tree.mean, tree.std))
        self._ready = ((self._pixels - mean) / std).astype(np.float32)
        self._libraries = {name: _library(bundle, name) for name in bundle.manifest.blocks}
        self._outputs = {
            (nodes, by, number): self._output(path, by, self._ready[number])
            for nodes, path in _paths(bundle).items()
            for by in ("device", "cloud")
            for number in range(images)
        }

    def image(self, number: int, ready: bool) -> np.ndarray:
        """Pixels, or (`ready`) normalised already."""
        return self._ready[number] if ready else self._pixels[number]

    def wrong(self, result: Result, number: int) -> str:
        """What is wrong with an answer; empty where nothing is."""
        right = self._outputs.get((result.nodes, result.answered_by, number))
        if right is None:
            return f"{result.nodes} is no path of the tree"
        if np.array_equal(result.output, right):
            return ""
        return f"off by {np.abs(result.output - right).max():.3g} ({result.why})"

    def _output(self, path: tuple[Node, ...], by: str, ready: np.ndarray) -> np.ndarray:
        x = ready[None]
        for node in path:
            if node.block:
                x = self._libraries[node.block].run(x)
            if (crossing := node.handover) is not None:
                if by == "cloud" and crossing.place and crossing.bits != FLOAT_BITS:  # pixels lose nothing in 8 bits
                    x = decode(encode(x, crossing.bits), shape=x.shape)
                x = self._libraries[crossing.block].run(x)
        return x[0]


class Local:
    """How long the device alone takes for a path, measured again and again; old measurements are forgotten."""

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self._device = device
        self._blocks: dict[Nodes, tuple[str, ...]] = {nodes: _blocks(path) for nodes, path in _paths(bundle).items()}
        self._seen: dict[tuple[str, ...], collections.deque[tuple[float, float]]] = {
            blocks: collections.deque() for blocks in self._blocks.values()
        }
        self._turns = itertools.cycle(self._seen)
        pixels = np.zeros(bundle.manifest.tree.input_shape, np.uint8)
        for _ in range(3 * len(self._seen)):
            self.measure(pixels)

    def measure(self, pixels: np.ndarray) -> None:
        """Do the path whose turn it is once."""
        seen = self._seen[blocks := next(self._turns)]
        began = time.perf_counter()
        x, _ = self._device.entering(pixels)
        for block in blocks:
            x = self._device.run(block, x)
        ended = time.perf_counter()
        seen.append((ended, 1e3 * (ended - began)))
        while seen[0][0] < ended - MEMORY_S:
            seen.popleft()

    def usual_ms(self, nodes: Nodes) -> float:
        """The median."""
        return self._quantile(nodes, 0.5)

    def need_ms(self, nodes: Nodes) -> float:
        """What is enough almost always."""
        return self._quantile(nodes, ALMOST_ALL)

    def quickest_ms(self) -> float:
        """The median of the quickest path."""
        return min(map(self.usual_ms, self._blocks))

    def _quantile(self, nodes: Nodes, share: float) -> float:
        times = [ms for _, ms in self._seen[self._blocks[nodes]]]
        return float(np.quantile(times, share)) if times else math.inf


def slower(bundle: Bundle, path_ms: float) -> Device:
    """This machine as a device that takes so long for its quickest path, most of it asleep."""
    device = Device(bundle, threads=1)
    device.warm_up()
    quickest_s = min(sum(map(device.expected_s, _blocks(path))) for path in _paths(bundle).values())
    factor = s_from_ms(path_ms) / quickest_s
    slow = Device(
        bundle, threads=1, least_s={name: factor * device.expected_s(name) for name in bundle.manifest.blocks}
    )  # fmt: skip
    slow.warm_up()
    return slow


def _paths(bundle: Bundle) -> dict[Nodes, tuple[Node, ...]]:
    """From the first level to every leaf."""
    tree = bundle.manifest.tree
    paths = [tree.path(node.id) for node in tree.nodes if node.leaf is not None]
    return {tuple(node.id for node in path): path for path in paths}


def _blocks(path: tuple[Node, ...]) -> tuple[str, ...]:
    """What the device runs along a path, alone."""
    return tuple(name for node in path for name in (node.block, node.handover and node.handover.block) if name)


def _library(bundle: Bundle, name: str) -> Library:
    target = next(name for name, entry in bundle.manifest.targets.items() if "device" in entry.roles)
    entry = bundle.block(name)
    return Library(
        bundle.library_path(name, target=target), shape_in=(1, *entry.in_shape), shape_out=(1, *entry.out_shape),
        runtime=bundle.runtime_path(target), threads=1,
    )  # fmt: skip
