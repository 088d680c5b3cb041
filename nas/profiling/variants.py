"""What compressions save, timed: each variant compiled by itself, against what it takes the place of."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from compile.program_file import program_bytes
from modeltree.files import write_text
from modeltree.layers import LayerSpec
from nas.compression.library import Choice, Library
from nas.jobs.progress import Progress, silent
from nas.profiling.timing import Timer, timed
from transforms import Network, export, technique
from transforms.graph.describe import module_specs

Key = tuple[int, Choice]
Pair = tuple[float, float]
"""Milliseconds of what a variant takes the place of, and of the variant."""

ROUNDS, BURST_S = 5, 0.01


def timed_variants(
    network: Network, library: Library, timer: Timer, *, rng: np.random.Generator, rounds: int = ROUNDS,
    burst_s: float = BURST_S, progress: Progress = silent,
) -> dict[Key, Pair]:  # fmt: skip
    """Every variant of a library timed; those of one form once. What weights they have does not matter."""
    numbers: dict[tuple[tuple[int, ...], tuple[LayerSpec, ...]], int] = {}

    def number(module: nn.Module, shape: tuple[int, ...]) -> int | None:
        layers = tuple(module_specs(module, shape))
        if not layers:
            return None
        if (shape, layers) not in numbers:
            numbers[shape, layers] = timer.add(program_bytes(export(module, shape)))
        return numbers[shape, layers]

    pairs: dict[Key, tuple[int | None, int | None]] = {}
    for done, (index, choice) in enumerate(library.records):
        progress(done, len(library.records), "compiling variants")
        unit, known = network.units[index], technique(choice.technique)
        body = known.reach(unit)
        if choice.ends_network:
            continue
        module, shape = (unit.module(), unit.in_shape) if body is None else (body.module, body.in_shape)
        pairs[index, choice] = number(module, shape), number(known.structure(unit, choice.rate).eval(), shape)
    if not numbers:
        return {}
    found = timed(timer, list(numbers.values()), rounds=rounds, burst_s=burst_s, rng=rng, progress=progress)
    ms = {number: timing.ms for number, timing in zip(numbers.values(), found.timings)}
    return {key: (_ms(ms, before), _ms(ms, behind)) for key, (before, behind) in pairs.items()}


def _ms(ms: Mapping[int, float], number: int | None) -> float:
    return 0.0 if number is None else ms[number]


def read_pairs(path: Path, machine: str) -> dict[Key, Pair]:
    """Timings of an earlier search on the same machine; none where there are none."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if kept.get("machine") != machine:
        return {}
    return {(unit, Choice(name, rate)): (base, own) for unit, name, rate, base, own in kept["ms"]}


def write_pairs(path: Path, machine: str, pairs: Mapping[Key, Pair]) -> None:
    """Keep timings for other searches."""
    rows = [[unit, choice.technique, choice.rate, base, own] for (unit, choice), (base, own) in pairs.items()]
    write_text(path, json.dumps({"machine": machine, "ms": rows}))
