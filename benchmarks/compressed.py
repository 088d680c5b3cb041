"""What compression alone is worth here, measured: the tree of a finished search against its base network.

    python benchmarks/compressed.py RUN [RUN ...] [--rounds 15] [--threads 1] [--no-tune]

Each run must have been searched so that the tree never hands over (a link of 0.001 Mbit/s). The base network and the
tree's own blocks, each in the number format that the tree has for it and once all in f32, are compiled for this machine
and timed in turns, a round each; given are medians, and the median of the ratios of a round. Then every compression in
the tree is compiled by itself in f32, with what it takes the place of.
Accuracies are those in the run's summary, on test images.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from compile.pipeline import compile_block
from compile.program_file import read_program
from compile.targets import Target, host
from compile.tuning import TuningCache
from modeltree.tree import Action, ModelTree
from nas.jobs.machine import load_average
from nas.results.run_directory import read_run
from runtime.execution.library import Library
from transforms import Network, analyse, export, technique

Call = Callable[[], object]
BURST_S = 0.05


class Here:
    """Compiles for this machine, with so many threads."""

    def __init__(self, threads: int, folder: Path, *, tune: bool = True) -> None:
        self.tune = tune
        self.target: Target = msgspec.structs.replace(host(), threads=threads)
        self.folder, self.tiles = folder, TuningCache(folder / "tiles.json")
        self.count = 0

    def call(self, program: torch.export.ExportedProgram, weights: str = "f32") -> Call:
        """Something that runs a program once, on the same numbers each time."""
        tiles = self.tiles if self.tune else None
        made = compile_block(program, self.target, weights=weights, cache=tiles, tune=self.tune)
        self.tiles.save()
        self.count += 1
        path = self.folder / f"{self.count}.so"
        path.write_bytes(made.library)
        x = np.random.default_rng(0).standard_normal((1, *_entering(program)), np.float32)
        with torch.no_grad():
            shape = program.module()(torch.from_numpy(x)).shape
        library = Library(path, shape_in=x.shape, shape_out=tuple(shape), threads=self.target.threads)
        return lambda: library.run(x)


def _entering(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    (node,) = (n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    return tuple(int(side) for side in node.meta["val"].shape[1:])


def burst_ms(calls: Sequence[Call]) -> float:
    """Milliseconds that one run of all the calls takes, the mean over a burst."""
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < BURST_S or runs < 2:
        for call in calls:
            call()
        runs += 1
    return 1e3 * (time.perf_counter() - began) / runs


def in_turns(one: Sequence[Call], other: Sequence[Call], rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of both, and the median of the ratio of a round (one over other)."""
    burst_ms(one), burst_ms(other)
    pairs = [(burst_ms(one), burst_ms(other)) for _ in range(rounds)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second), statistics.median(a / max(b, 1e-9) for a, b in pairs)


def blocks_of(tree: ModelTree) -> tuple[list[tuple[str, str]], list[Action]]:
    """The blocks along the tree's likeliest path, which must end on the device, with their number formats, and what is
    done in them."""
    node = max((n for n in tree.nodes if n.parent is None), key=lambda n: len(n.fork.types or ()))
    blocks, actions = [], list[Action]()
    while True:
        if node.handover is not None:
            raise SystemExit("the tree hands over: search it with a link that is too slow for that")
        blocks.append((node.block, node.number_format))
        actions += node.actions
        if not node.children:
            return [block for block in blocks if block[0]], actions
        node = tree.nodes[node.children[0]]


def measure(run: Path, threads: int, rounds: int, folder: Path, tune: bool) -> None:
    """Print what a run is worth here, and what each of its compressions is."""
    summary, tree = read_run(run)
    here = Here(threads, folder, tune=tune)
    base = read_program(run / "base.pt2")
    blocks, actions = blocks_of(tree)
    network = analyse(base)
    base_call = [here.call(base)]
    programs = {name: read_program(run / "blocks" / f"{name}.pt2") for name, _ in blocks}
    tree_calls = [here.call(programs[name], weights) for name, weights in blocks]
    before_ms, after_ms, ratio = in_turns(base_call, tree_calls, rounds)
    row = next(row for row in summary["methods"] if row["method"] == summary["chosen"])
    print(
        f"{run.name}: load {load_average():.1f}, {threads} threads, {rounds} rounds, {summary['provenance']['commit']}"
    )
    print(f"  base {before_ms:.2f} ms, tree {after_ms:.2f} ms: {ratio:.2f} times as fast; accuracy on test images "
          f"{summary['base']['accuracy']:.2f} -> {row['accuracy']:.2f} % ({row['accuracy_origin']})")  # fmt: skip
    if any(weights != "f32" for _, weights in blocks):
        _, plain_ms, ratio = in_turns(base_call, [here.call(program) for program in programs.values()], rounds)
        formats = ", ".join(weights for _, weights in blocks)
        print(f"  its blocks are in {formats}; all in f32 {plain_ms:.2f} ms, {ratio:.2f} times as fast as the base")
    total: dict[str, list[float]] = {}
    for action in actions:
        if action.technique in ("keep", "absorbed"):
            continue
        now_ms, then_ms = timed(network, action, here, max(3, rounds // 3))
        total.setdefault(action.technique, []).append(now_ms - then_ms)
        print(f"  {action.layer:12} {action.technique}@{action.rate:g}: {now_ms:.3f} -> {then_ms:.3f} ms")
    for name, saved in total.items():
        print(f"  {name}: {len(saved)} times, saves {sum(saved):.2f} ms alone")


def timed(network: Network, action: Action, here: Here, rounds: int) -> tuple[float, float]:
    """Milliseconds of what a compression takes the place of, and of the compression; weights do not matter."""
    unit = next(unit for unit in network.units if unit.name == action.layer)
    known = technique(action.technique)
    body = known.reach(unit)
    module = unit.module() if body is None else body.module
    shape = unit.in_shape if body is None else body.in_shape
    variant = known.structure(unit, action.rate).eval()
    before = [here.call(export(module, shape))]
    if not any(isinstance(part, (nn.Conv2d, nn.Linear)) for part in variant.modules()):
        return in_turns(before, before, rounds)[0], 0.0
    now_ms, then_ms, _ = in_turns(before, [here.call(export(variant, shape))], rounds)
    return now_ms, then_ms


def main() -> None:
    """See the module's docstring."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-tune", action="store_true", help="take the usual tiles, time none")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        for run in given.runs:
            measure(run, given.threads, given.rounds, Path(folder), not given.no_tune)


if __name__ == "__main__":
    main()
