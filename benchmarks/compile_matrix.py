"""Every base network and every technique on it, compiled for every target; what runs here is compared with torch.

    python benchmarks/compile_matrix.py [--base vgg11 ...] [--target pi4 ...]

Tiles are reckoned, not timed: which one is taken does not matter. Of each technique the mildest rate, on the middle one
of the layers that take it. Random weights. Prints a line a network and technique, and ends with status 1 if anything is
refused or differs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

import compile.tuning
from compile.pipeline import compile_block
from compile.targets import TARGETS, load_target
from compile.verify import verify_block
from modeltree.errors import NasError, NotApplicable
from nas.bases import BASES, build
from transforms import TECHNIQUES, Network, Technique, analyse, compose, export

IMAGE = (3, 32, 32)


def plugged(network: Network, technique: Technique) -> torch.nn.Module | None:
    """The network with the technique on the middle one of its layers that take it; None if none does."""
    fitting = []
    for unit in network.units:
        try:
            fitting.append((unit.index, technique.apply(unit, technique.rates[0])))
        except NotApplicable:
            continue
    if not fitting:
        return None
    index, variant = fitting[len(fitting) // 2]
    return compose(network, 0, len(network.spec.places) - 1, {index: variant})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="append", choices=sorted(BASES))
    parser.add_argument("--target", action="append")
    given = parser.parse_args()
    targets = [load_target(name) for name in given.target or ["host", *TARGETS]]
    compile.tuning.timed = lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0)
    bad = 0
    for base in given.base or sorted(BASES):
        network = analyse(export(build(base, num_classes=10, image_size=IMAGE[1]).eval(), IMAGE))
        whole: dict[str, torch.nn.Module | None] = {"keep": compose(network, 0, len(network.spec.places) - 1, {})}
        whole |= {name: plugged(network, technique) for name, technique in TECHNIQUES.items()}
        for name, module in whole.items():
            if module is None:
                print(f"{base} {name}: no layer takes it", flush=True)
                continue
            started, cells = time.perf_counter(), []
            program = export(module.eval(), IMAGE)
            for target in targets:
                try:
                    made = compile_block(program, target)
                    cells.append(target.name)
                    if target.runs_here:
                        with tempfile.TemporaryDirectory() as folder:
                            path = Path(folder) / f"{base}-{name}-{target.name}.so"
                            path.write_bytes(made.library)
                            cells[-1] += f" (off by {verify_block(program, path).largest:.1e})"
                except NasError as error:
                    bad += 1
                    cells.append(f"{target.name} FAILED: {error}")
            print(f"{base} {name}: {', '.join(cells)}; {time.perf_counter() - started:.1f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
