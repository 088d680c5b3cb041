"""A grid of field runs: links x round trips x networks x devices, every simple choice beside the tree.

    python benchmarks/field_grid.py --spec grid.json --traces DIR --out DIR [--cache DIR] [--count 40] [--table]

The JSON holds {"networks": {NAME: [options of nas search]}, "devices": [...], "links": [names of traces], "rtt_ms":
[numbers, or null for the trace's own]}. A cell is searched (`nas search`, valued as the runtime will meet the link),
compiled (every method of METHODS that does not do the same as a simpler one) and played by `nas field` with the device
slowed down to its profile, in the stretch of its trace that is most like the whole (benchmarks/field.py), all methods
interleaved, so that what else the machine does meets them alike. Each step that has left its result is not done again,
so that a grid goes on where it was stopped; cells are ordered so that every link comes once before any comes twice. How
long a step took is printed. `--measured DIR` searches with what the cells of the same names in DIR met, or, where
DIR is a single field run, all with what that one met. `--prepare` leaves playing for later, when nothing else runs.
`--table` does nothing but print what is there, as Markdown.

A row: mean reward of the tree less that of the best simple choice, and its name; mean latency of both and of the
hindsight oracle; whether the tree hands over at some types and not at others, and how many of its inferences the
cloud answered.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from field import like_the_whole

from modeltree.link.traces import read_trace
from modeltree.tree import Node, decode_tree
from nas.field.record import MethodRun, decode_field

METHODS = ("device_only", "cloud_raw", "cloud_jpeg", "surgery", "branch", "tree")
TREE = "tree"


class Cell(NamedTuple):
    """One search and its field run."""

    network: str
    device: str
    link: str
    rtt_ms: float | None

    @property
    def name(self) -> str:
        """Of its folder."""
        rtt = "own" if self.rtt_ms is None else f"{self.rtt_ms:g}"
        return f"{self.network}-{self.device}-{self.link}-{rtt}"


def main() -> None:
    """Do what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("spec", "traces", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--images", type=Path, default=None, help="folder that the networks at 224 are shown")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--every-ms", type=float, default=250.0)
    parser.add_argument("--measured", type=Path, default=None, help="grid of cells played before, or one field run")
    parser.add_argument("--tune", default=None, help="as nas compile has it; none: tiles are reckoned")
    parser.add_argument("--prepare", action="store_true", help="search and compile, which need no idle machine")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    told = parser.parse_args()
    spec = json.loads(told.spec.read_text())
    for cell in cells(spec):
        if not told.table and not (told.out / cell.name / "field" / "field.json").exists():
            play(cell, spec["networks"][cell.network], told)
    print_table([(cell, told.out / cell.name) for cell in cells(spec)])


def cells(spec: dict[str, Any]) -> Iterator[Cell]:
    """All of a grid."""
    for rtt_ms, device, network, link in itertools.product(
        spec["rtt_ms"], spec["devices"], spec["networks"], spec["links"]
    ):
        yield Cell(network, device, link, rtt_ms)


def play(cell: Cell, options: list[str], told: argparse.Namespace) -> None:
    """Search, compile and play one cell; a step that fails is told and ends the cell."""
    folder, trace = told.out / cell.name, told.traces / f"{cell.link}.csv"
    run, bundles = folder / "run", folder / "bundles"
    rtt = [] if cell.rtt_ms is None else ["--rtt-ms", str(cell.rtt_ms)]
    cache = [] if told.cache is None else ["--cache", str(told.cache)]
    if not (run / "summary.json").exists():
        resume = ["--resume"] if (run / "config.json").exists() else []
        met = [] if told.measured is None else ["--measured", str(met_in(told.measured, cell))]
        words = ["search", *options, "--trace", str(trace), "--device", cell.device, "--measure", "estimated"]
        words += [*rtt, *cache, *met, "--method", "surgery", "--method", "branch", "--method", "tree"]
        if not nas(cell, [*words, "--out", str(run), "--json", *resume]):
            return
    missing = [method for method in different(run) if not (bundles / method / "manifest.json").exists()]
    if missing:
        kept = [] if told.cache is None else ["--cache", str(told.cache / "compiled")]
        kept += [] if told.tune is None else ["--tune", told.tune]
        named = [word for method in missing for word in ("--method", method)]
        where = bundles if len(missing) > 1 else bundles / missing[0]
        if not nas(cell, ["compile", str(run), *named, "--out", str(where), *kept]):
            return
    if told.prepare:
        return
    tree = decode_tree((run / "tree.json").read_bytes(), cell.name)
    offset_s = like_the_whole(tree, read_trace(trace), told.count * told.every_ms / 1e3)
    shown = ["--images", str(told.images)] if told.images is not None and tree.input_shape[1] >= 128 else []
    nas(
        cell,
        ["field", str(bundles), "--trace", str(trace), *rtt, "--slowdown", "profile", "--count", str(told.count),
         "--every-ms", str(told.every_ms), "--offset-s", str(offset_s), "--link", "relay", "--interleaved",
         "--threads", "1", "--quiet", *shown, "--out", str(folder / "field")],
    )  # fmt: skip


def met_in(measured: Path, cell: Cell) -> Path:
    """The field run that a cell is searched by."""
    return measured if (measured / "field.json").exists() else measured / cell.name / "field"


def different(run: Path) -> list[str]:
    """The methods of a run, less those whose nodes are those of one before; the tree in any case."""
    found: dict[str, tuple[Node, ...]] = {}
    for method in METHODS:
        nodes = decode_tree((run / "methods" / f"{method}.json").read_bytes(), method).nodes
        if method == TREE or nodes not in found.values():
            found[method] = nodes
    return list(found)


def nas(cell: Cell, words: list[str]) -> bool:
    """Run a verb; whether it ended well."""
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from nas.cli import main; main()", *words], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    print(f"{cell.name}: {words[0]} took {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        print(f"{cell.name}: {words[0]} failed: {done.stderr[-300:]}", file=sys.stderr, flush=True)
    return not done.returncode


def print_table(rows: list[tuple[Cell, Path]]) -> None:
    """What was met, a row a cell, and the means."""
    print(
        "| network | device | link | rtt ms | tree | reward | best simple | reward | gain | oracle ms | over | forks | "
        "by the cloud |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    gains, overs, forking = [], [], 0
    for cell, folder in rows:
        if not (folder / "field" / "field.json").exists():
            continue
        field = decode_field((folder / "field" / "field.json").read_bytes(), cell.name)
        met = {run.name: run for run in field.methods}
        worth = {
            name: (reward_of(run, folder / "run" / "methods" / f"{name}.json"), latency_of(run))
            for name, run in met.items()
        }
        best = max((name for name in worth if name != TREE), key=lambda name: worth[name][0])
        oracle_ms = statistics.fmean(field.oracle_ms)
        gain, over = worth[TREE][0] - worth[best][0], worth[TREE][1] / oracle_ms - 1
        forks = splits(folder / "run" / "tree.json")
        asked = statistics.fmean(shot.answered_by == "cloud" for shot in met[TREE].shots)
        gains.append(gain)
        overs.append(over)
        forking += forks
        print(
            f"| {cell.network} | {cell.device} | {cell.link.split('__')[0]} | {field.rtt_ms:.0f} | "
            f"{worth[TREE][1]:.1f} ms | {worth[TREE][0]:.2f} | {best}, {worth[best][1]:.1f} ms | "
            f"{worth[best][0]:.2f} | "
            f"{gain:+.2f} | {oracle_ms:.1f} | {over:+.0%} | {'yes' if forks else 'no'} | {asked:.0%} |"
        )
    if gains:
        print(
            f"\n{len(gains)} runs: gain {statistics.fmean(gains):+.2f} on average, {min(gains):+.2f} at worst; "
            f"{statistics.fmean(overs):+.0%} over the oracle on average, {max(overs):+.0%} at worst; {forking} fork."
        )


def latency_of(run: MethodRun) -> float:
    """Mean latency met."""
    return statistics.fmean(shot.total_ms for shot in run.shots)


def reward_of(run: MethodRun, tree: Path) -> float:
    """Mean reward: latency as met, accuracy of the path that was taken as measured on test images."""
    known = decode_tree(tree.read_bytes(), str(tree))
    accuracy = {leaf.id: leaf.leaf.accuracy for leaf in known.leaves() if leaf.leaf}
    return statistics.fmean(float(known.reward.of(accuracy[shot.nodes[-1]], shot.total_ms)) for shot in run.shots)


def splits(path: Path) -> bool:
    """Whether a tree hands over at some types and stays on the device at others."""
    leaves = decode_tree(path.read_bytes(), str(path)).leaves()
    return len({end.handover is None for end in leaves if end.leaf and end.leaf.chance}) == 2


if __name__ == "__main__":
    main()
