"""Field runs of many searches, each on the link it was made for: the tree against surgery, branch and the oracle.

    python benchmarks/field.py --bundles DIR --traces DIR --out DIR [--rtt-ms 3] [--count 50] [--every-ms 250]

DIR of --bundles holds folders BASE-DEVICE-TRACE, each with a bundle a method (`nas compile RUN --method ... --out`).
Every one is played by `nas field` with the device slowed down to its profile, in the stretch of its trace that is most
like the whole: where the share of time in each bandwidth type is nearest to the trace's, and among those the one that
changes type most often. Finished runs (field.json is there) are read, not repeated. The same stretch is also emulated
(predicted compute, the link known); both are in the table.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from modeltree.link.traces import Trace, read_trace
from modeltree.manifest import MANIFEST_NAME, decode_manifest
from modeltree.tree import ModelTree
from nas.field.record import FieldRun, MethodRun, decode_field

METHODS = ("tree", "surgery", "branch")


def main() -> None:
    """Play what is not there yet, and print all of it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundles", "traces", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rtt-ms", type=float, default=None)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--every-ms", type=float, default=250.0)
    parser.add_argument("--link", default="relay")
    told = parser.parse_args()
    rows = []
    for folder in sorted(told.bundles.iterdir()):
        base, _, name = folder.name.split("-", 2)
        trace, out = told.traces / f"{name}.csv", told.out / folder.name
        if not (out / "field.json").exists():
            tree = decode_manifest((folder / "tree" / MANIFEST_NAME).read_bytes(), folder.name).tree
            offset_s = like_the_whole(tree, read_trace(trace), told.count * told.every_ms / 1e3)
            words = [
                sys.executable, "-c", "from nas.cli import main; main()", "field",
                *(str(folder / method) for method in METHODS), "--trace", str(trace), "--slowdown", "profile",
                "--count", str(told.count), "--every-ms", str(told.every_ms), "--offset-s", str(offset_s),
                "--link", told.link, "--threads", "1", "--quiet", "--out", str(out),
            ]  # fmt: skip
            if told.rtt_ms is not None:
                words += ["--rtt-ms", str(told.rtt_ms)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        field = decode_field((out / "field.json").read_bytes(), str(out))
        rows.append((base, name.split("__")[0], field))
    print_table(rows)


def like_the_whole(tree: ModelTree, trace: Trace, length_s: float) -> float:
    """Where in the trace the stretch of this length begins that is most like all of it."""
    step_s = 0.25
    grid = np.arange(0.0, trace.end_s, step_s)
    types = np.array([tree.types.match(trace.at(float(at_s))) for at_s in grid])
    whole = np.bincount(types, minlength=tree.types.count) / len(types)
    inside = max(1, int(length_s / step_s))
    best = (np.inf, 0.0)
    for first in range(0, max(1, len(types) - inside), 4):
        part = types[first : first + inside]
        share = np.bincount(part, minlength=tree.types.count) / len(part)
        away = round(float(np.abs(share - whole).sum()), 1) - 1e-3 * int(np.count_nonzero(np.diff(part)))
        best = min(best, (away, float(grid[first])))
    return best[1]


def print_table(rows: list[tuple[str, str, FieldRun]]) -> None:
    """One line a link, and the means of each base network."""
    heads = ("base", "link", "rtt ms", "tree ms", "surgery", "branch", "oracle", "tree under surgery", "under branch",
             "over oracle", "accuracy tree, surgery", "handed over", "emulated tree, surgery")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    margins: dict[str, list[tuple[float, ...]]] = {}
    for base, name, field in rows:
        runs = {run.name: run for run in field.methods}
        ms = {method: _mean(runs[method]) for method in METHODS}
        oracle = statistics.fmean(field.oracle_ms)
        under = [100 * (1 - ms["tree"] / ms[other]) for other in ("surgery", "branch")]
        found = (*under, 100 * (ms["tree"] / oracle - 1))
        accuracy = [_accuracy(runs[method]) for method in ("tree", "surgery")]
        margins.setdefault(base, []).append((*found, accuracy[0] - accuracy[1]))
        shots = runs["tree"].shots
        cloud = 100 * sum(shot.answered_by == "cloud" for shot in shots) / len(shots)
        emulated = [statistics.fmean(runs[method].emulated_ms) for method in ("tree", "surgery")]
        print(f"| {base} | {name} | {field.rtt_ms:g} | {ms['tree']:.1f} | {ms['surgery']:.1f} | {ms['branch']:.1f} | "
              f"{oracle:.1f} | {found[0]:+.0f} % | {found[1]:+.0f} % | {found[2]:+.0f} % | {accuracy[0]:.2f}, "
              f"{accuracy[1]:.2f} | {cloud:.0f} % | {emulated[0]:.1f}, {emulated[1]:.1f} |")  # fmt: skip
    for base, found in margins.items():
        means = [statistics.fmean(one) for one in zip(*found, strict=True)]
        print(f"\n{base}, mean of {len(found)} links: the tree {means[0]:.0f} % under surgery, {means[1]:.0f} % under "
              f"branch, {means[2]:.0f} % over the oracle, {means[3]:+.2f} points of accuracy to surgery")  # fmt: skip


def _mean(run: MethodRun) -> float:
    return statistics.fmean(shot.total_ms for shot in run.shots)


def _accuracy(run: MethodRun) -> float:
    """Expected over the paths taken, as the bundle says."""
    known = {leaf.leaf: leaf.accuracy for leaf in run.leaves}
    return statistics.fmean(known[shot.nodes[-1]] for shot in run.shots)


if __name__ == "__main__":
    main()
