"""Accuracy and bytes of a hand-over at every cut and width, on real images through the real codec.

    python benchmarks/bits.py --base alexnet --data imagefolder:DIR --weights FILE [--images 1000] [--bits 2 4 8]
        [--tune 2 3] [--plot FILE.svg]

`--tune` fine-tunes the part in front of the cut for these widths (quantisation-aware, 200 steps); `--plot` draws
accuracy against bytes, a line a place. One row a place; a cell is `bytes of the frame (times fewer than float32):
accuracy less that without coding`.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import altair as alt
import numpy as np
from coding import Coded, coded_table, coding_aware

from modeltree.files import write_text
from nas.cli.search import default_cache
from nas.config import SearchConfig
from nas.jobs.machine import commit, processor, today
from nas.report.pieces import charts
from nas.report.pieces.colours import colours
from nas.training.base_network import prepare
from nas.training.teacher import distillation_set

BATCH = 250
TUNED = 200
SHOWN = 6.0
"""Points of accuracy below which a code is not drawn."""


def main() -> None:
    """Measure and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "data", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--bits", type=int, nargs="*", default=[2, 3, 4, 6, 8, 12])
    parser.add_argument("--tune", type=int, nargs="*", default=[])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    config = SearchConfig(base=options.base, data=options.data, weights=options.weights)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, Path(folder), options.cache, lambda *_: None)
    test = prepared.dataset.test
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[: options.images])  # of all classes
    parts = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    batches = [(prepared.dataset.normalise(test.images[part]), test.labels[part]) for part in parts]
    places = range(len(prepared.network.spec.segments))
    plain = next(coded_table(prepared.network, batches, places=[0], bits=[32])).accuracy
    fronts = {}
    if options.tune:
        with tempfile.TemporaryDirectory() as folder:
            examples = distillation_set(prepared, Path(folder), 0, lambda *_: None)
        for place in places[1:]:
            for width in options.tune:
                fronts[place, width] = coding_aware(prepared.network, place, width, examples, steps=TUNED)
    rows = list(coded_table(prepared.network, batches, places=places, bits=options.bits))
    if fronts:
        tuned = list(coded_table(prepared.network, batches, places=places[1:], bits=options.tune, fronts=fronts))
        rows += [replace(row, bits=-row.bits) for row in tuned]  # beside the plain one of the same width
    shown = [*options.bits, *(-width for width in options.tune)]
    if options.plot:
        draw(rows, plain, options.plot)
    print(f"{options.base}, {rows[0].images} test images at {plain:.1f} % without coding; {processor()}, {today()}, "
          f"commit {commit()}\n")  # fmt: skip
    names = [f"{abs(width)} bits{' tuned' * (width < 0)}" for width in shown]
    print(f"| place | after | shape | float32 | {' | '.join(names)} |")
    print("|---" * (4 + len(shown)) + "|")
    for place in places:
        mine = {row.bits: row for row in rows if row.place == place}
        one = next(iter(mine.values()))
        after = prepared.network.spec.places[place].after
        shape = "x".join(map(str, one.shape))
        cells = " | ".join(_cell(mine[width], plain) if width in mine else "" for width in shown)
        print(f"| {place} | {after} | {shape} | {one.raw_bytes} | {cells} |")


def draw(rows: list[Coded], plain: float, path: Path) -> None:
    """Accuracy against the bytes of a frame: a line a place, a dot a width."""
    rows = [row for row in rows if row.bits > 0 and row.accuracy > plain - SHOWN]
    places = [f"place {place}" for place in sorted({row.place for row in rows})]
    data = [{"name": f"place {row.place}", "bytes": row.frame_bytes, "accuracy": row.accuracy} for row in rows]
    picture = (
        alt.Chart(charts.rows(data), width=charts.WIDTH, height=330)
        .mark_line(point=True)
        .encode(
            x=alt.X("bytes:Q").scale(type="log", nice=False).title("bytes of a frame (log scale)"),
            y=alt.Y("accuracy:Q").scale(zero=False).title("accuracy in %"),
            color=alt.Color("name:N").scale(domain=places, range=list(colours(places).values())).title(None),
        )
    )
    write_text(path, charts.as_svg(picture))


def _cell(row: Coded, plain: float) -> str:
    return f"{row.frame_bytes:.0f} ({row.fewer:.1f}x): {row.accuracy - plain:+.1f}"


if __name__ == "__main__":
    main()
