"""Accuracy and bytes of a hand-over at every cut and width, on real images through the real codec.

    python benchmarks/bits.py --base alexnet --data imagefolder:DIR --weights FILE [--images 1000] [--bits 2 4 8]

One line a place; a cell is `bytes of the frame (times fewer than float32): accuracy less that without coding`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from nas.cli.search import default_cache
from nas.coding import Coded, coded_table
from nas.config import SearchConfig
from nas.machine import commit, processor, today
from nas.prepare import prepare

BATCH = 250


def main() -> None:
    """Measure and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "data", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--bits", type=int, nargs="*", default=[2, 3, 4, 6, 8, 12])
    parser.add_argument("--cache", type=Path, default=default_cache())
    told = parser.parse_args()
    config = SearchConfig(base=told.base, data=told.data, weights=told.weights)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, Path(folder), told.cache, lambda *_: None)
    test = prepared.dataset.test
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[: told.images])  # of all classes
    parts = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    batches = [(prepared.dataset.normalise(test.images[part]), test.labels[part]) for part in parts]
    places = range(len(prepared.network.spec.segments))
    plain = next(coded_table(prepared.network, batches, places=[0], bits=[32])).accuracy
    rows = list(coded_table(prepared.network, batches, places=places, bits=told.bits))
    print(f"{told.base}, {rows[0].images} test images at {plain:.1f} % without coding; {processor()}, {today()}, "
          f"commit {commit()}\n")  # fmt: skip
    print(f"| place | after | shape | float32 | {' | '.join(f'{width} bits' for width in told.bits)} |")
    print("|---" * (4 + len(told.bits)) + "|")
    for place in places:
        mine = {row.bits: row for row in rows if row.place == place}
        one = next(iter(mine.values()))
        after = prepared.network.spec.places[place].after
        shape = "x".join(map(str, one.shape))
        cells = " | ".join(_cell(mine[width], plain) for width in told.bits)
        print(f"| {place} | {after} | {shape} | {one.raw_bytes} | {cells} |")


def _cell(row: Coded, plain: float) -> str:
    return f"{row.frame_bytes:.0f} ({row.fewer:.1f}x): {row.accuracy - plain:+.1f}"


if __name__ == "__main__":
    main()
