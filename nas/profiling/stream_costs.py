"""The lines of a stream's network: a network with exits, layer by layer, at 1 to 10 images [Song 2021, sec. II-A].

Two origins of the times, which may be mixed, one for the device and one for the server: this machine, where every layer
is compiled for every batch size and its library timed; or a profile, which gives an image's time, and a device runs
images one after the other.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modeltree.layers import LayerSpec
from modeltree.network import FLOAT_BYTES
from modeltree.profiles import DeviceProfile
from modeltree.streams.costs import MOST_IMAGES, Branch, LayerLines, Line, StreamCosts, fit_line
from transforms import Network, export
from transforms.exits import head_layers

SIZES = tuple(range(1, MOST_IMAGES + 1))
Progress = Callable[[int, int, str], None]
Times = Mapping[str, Sequence[float]]
"""Milliseconds of every layer, by name, at each of `SIZES`."""


class Layers:
    """The layers of a network with exits: its segments, and the heads. places : where the heads stand."""

    def __init__(self, network: Network, heads: Mapping[int, nn.Module]) -> None:
        self.network, self.heads = network, dict(sorted(heads.items()))
        self.segments = [f"segment {i}" for i in range(len(network.spec.segments))]
        self.names = [*self.segments, *(f"head {place}" for place in self.heads)]

    def module(self, name: str) -> tuple[nn.Module, tuple[int, ...]]:
        """A layer as a module, and the shape of one image in front of it."""
        kind, number = name.split()
        place = int(number)
        made = self.heads[place] if kind == "head" else self.network.between(place, place + 1)
        return made.eval(), self.network.spec.places[place].shape

    def specs(self, name: str) -> Sequence[LayerSpec]:
        """What a profile prices."""
        kind, number = name.split()
        if kind == "head":
            return head_layers(self.heads[int(number)], self.network.spec.places[int(number)].shape)
        return self.network.spec.layers(int(number), int(number) + 1)

    def branches(self) -> list[list[str]]:
        """The layers of every branch, the network's own last."""
        early = [[*self.segments[:place], f"head {place}"] for place in self.heads]
        return [*early, self.segments]

    def out_bytes(self, name: str) -> int:
        """Of a layer's output, an image, as float32; the paper codes nothing."""
        kind, number = name.split()
        places = self.network.spec.places
        return FLOAT_BYTES * int(np.prod(places[-1].shape)) if kind == "head" else places[int(number) + 1].bytes


def profiled(layers: Layers, profile: DeviceProfile, slowdown: float = 1.0) -> Times:
    """Times from a profile: images one after the other, all `slowdown` times as long."""
    return {
        name: [slowdown * images * profile.compute_ms(layers.specs(name)) for images in SIZES] for name in layers.names
    }


def measured(layers: Layers, *, threads: int = 1, rounds: int = 7, burst_s: float = 0.02, progress: Progress) -> Times:
    """Times of real libraries on this machine, one a layer and batch size, all in turns; medians of `rounds`."""
    from compile.pipeline import compile_block
    from compile.targets import host
    from compile.tuning import TuningCache
    from nas.profiling.timing import timed
    from runtime.execution.library import Library

    class Loaded:
        """Libraries as `nas.profiling.timing.timed` calls them."""

        def __init__(self) -> None:
            self.calls: list[Callable[[], object]] = []

        def add(self, program: bytes) -> int:
            raise NotImplementedError

        def burst(self, number: int, seconds: float) -> float:
            from time import perf_counter

            calls, began = 0, perf_counter()
            while calls < 2 or perf_counter() - began < seconds:
                self.calls[number]()
                calls += 1
            return (perf_counter() - began) / calls

    loaded, cache, keys = Loaded(), TuningCache(None), []
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(layers.names):
            module, shape = layers.module(name)
            with torch.no_grad():
                program = export(module, shape)
            for images in SIZES:
                progress(i * len(SIZES) + images, len(layers.names) * len(SIZES), f"{name}, {images} images")
                made = compile_block(program, host(), batch=images, cache=cache)
                path = Path(folder, f"{i}_{images}.so")
                path.write_bytes(made.library)
                library = Library(path, shape_in=made.input_shape, shape_out=made.output_shape, threads=threads)
                x = np.random.default_rng(0).standard_normal(made.input_shape, np.float32)
                loaded.calls.append(lambda library=library, x=x: library.run(x))  # type: ignore[misc]
                keys.append((name, images))
        numbers = list(range(len(keys)))
        found = timed(loaded, numbers, rounds=rounds, burst_s=burst_s, rng=np.random.default_rng(0), progress=progress)
    ms = dict(zip(keys, (one.ms for one in found.timings), strict=True))
    return {name: [ms[name, images] for images in SIZES] for name in layers.names}


def stream_costs(
    layers: Layers, device: Times, server: Times, accuracies: Sequence[float], *, name: str, origin: str
) -> StreamCosts:
    """Lines fitted to times. accuracies : of every branch, 0..1."""
    lines = {
        layer: LayerLines(
            name=layer, device_ms=fit_line(SIZES, device[layer]), server_ms=fit_line(SIZES, server[layer]),
            out_bytes=Line(k=float(layers.out_bytes(layer))),
        )
        for layer in layers.names
    }  # fmt: skip
    branches = [
        Branch(accuracy=accuracy, layers=tuple(lines[layer] for layer in branch))
        for accuracy, branch in zip(accuracies, layers.branches(), strict=True)
    ]
    in_bytes = Line(k=float(layers.network.spec.places[0].bytes))
    return StreamCosts(name=name, origin=origin, in_bytes=in_bytes, branches=tuple(branches))
