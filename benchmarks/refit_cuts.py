"""How far `nas refit` brings a profile on a device that another framework runs, on measured cuts of networks.

    python benchmarks/refit_cuts.py --cuts FOLDER [--profile pi4_ncnn]

The cuts (data/cuts of a measuring folder) are the first parts of VGG16, AlexNet and ResNet18 in PyTorch on a Raspberry
Pi, batch 8; the profile is of ncnn's kernels on one. Nothing is run here. Some cuts, drawn at random, are what was met;
the others are foretold by the profile as it is, by one that is scaled as a whole (`nas refit` without `--run`), and by
one whose terms are mended (with it): medians of |predicted - met| over met, over 20 draws. Then each network by the
others.
"""

import argparse
import csv
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from fit_compiled_profiles import _cuts

from modeltree.met import Met, Timed
from modeltree.profiles import DeviceProfile, load_profile
from nas.refit import errors_of, refitted

DRAWS, SIZES = 20, (4, 8, 16, 32)
BATCH = 8

Cut = tuple[str, Timed]


def cuts(folder: Path, profile: DeviceProfile) -> list[Cut]:
    """(network, its first part as it was met)."""
    known = _cuts()
    with (folder / "splitrl_lookup_table_1_pi_to_GPU.csv").open() as file:
        rows = [
            (name, int(cut), 1e3 * float(s) / BATCH) for name, cut, s, *_ in itertools.islice(csv.reader(file), 1, None)
        ]
    found = []
    for name, cut, ms in rows:
        if name in known and 1 <= cut <= len(known[name][1]):
            layers = tuple(known[name][0][: known[name][1][cut - 1]])
            found.append((name, Timed(predicted_ms=profile.compute_ms(layers), ms=ms, count=10, layers=layers)))
    return found


def missed(seen: Sequence[Cut], others: Sequence[Cut], profile: DeviceProfile) -> tuple[float, float, float]:
    """Median errors on the others: of the profile, scaled as a whole, and mended term by term."""
    plain = (
        [msgspec.structs.replace(one, layers=()) for _, one in seen],
        [msgspec.structs.replace(one, layers=()) for _, one in others],
    )
    rows = [
        errors_of(
            _met(after, profile), refitted(_met(before, profile), profile, load_profile("cloud_gpu")), same=False
        )[0]
        for before, after in (plain, ([one for _, one in seen], [one for _, one in others]))
    ]
    return rows[0].before, rows[0].after, rows[1].after


def _met(times: Sequence[Timed], profile: DeviceProfile) -> Met:
    blocks = {f"{i:020x}": one for i, one in enumerate(times)}
    return Met(
        kind="session", device=profile.name, cloud="cloud_gpu", origin="cuts", blocks=blocks, rests={}, encodings=()
    )  # fmt: skip


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=Path, required=True)
    parser.add_argument("--profile", default="pi4_ncnn")
    told = parser.parse_args()
    profile = load_profile(told.profile)
    known, rng = cuts(told.cuts, profile), np.random.default_rng(0)
    print(f"{len(known)} cuts; {profile.name}\n")
    print("| met | foretold | as shipped % | as a whole % | term by term % |\n|---|---|---|---|---|")
    for size in SIZES:
        errors = []
        for _ in range(DRAWS):
            order = rng.permutation(len(known)).tolist()
            errors.append(missed([known[i] for i in order[:size]], [known[i] for i in order[size:]], profile))
        print(
            f"| {size} cuts | the others | "
            + " | ".join(f"{100 * statistics.median(e):.0f}" for e in zip(*errors))
            + " |"
        )
    for name in dict.fromkeys(name for name, _ in known):
        seen, others = [one for one in known if one[0] != name], [one for one in known if one[0] == name]
        print(
            f"| other networks | {name} | " + " | ".join(f"{100 * e:.0f}" for e in missed(seen, others, profile)) + " |"
        )


if __name__ == "__main__":
    main()
