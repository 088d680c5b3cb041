"""Predicted against measured latency of random branches, with a profile that `nas profile` measured on this machine.

    python benchmarks/prediction.py --profile mine.json --base vgg11 --base resnet32 --branches 50 [--threads 2]

Weights are random: they do not change the time.
"""

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from compile.targets import host
from modeltree.profiles import load_profile
from nas.bases import build
from nas.profiling import checked, checks_text, open_timer, provenance


def main() -> None:
    """Draw, compile, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--base", action="append", help="vgg11 alone unless said")
    parser.add_argument("--branches", type=int, default=50)
    parser.add_argument("--threads", type=int, default=host().threads)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiles", type=Path, help="file with tuned tiles, kept from run to run")
    options = parser.parse_args()
    target = msgspec.structs.replace(host(), threads=options.threads)
    bases = [
        (base, build(base, num_classes=10, image_size=options.image_size, seed=options.seed))
        for base in options.base or ["vgg11"]
    ]
    print(provenance(target, options.threads, rpc=None, rounds=options.rounds))
    with open_timer(target, options.threads, tiles=options.tiles) as timer:
        branches = checked(
            bases, load_profile(options.profile), timer, branches=options.branches, image_size=options.image_size,
            rounds=options.rounds, burst_s=0.02, rng=np.random.default_rng(options.seed),
            progress=lambda done, total, text: print(f"{done}/{total} {text}", file=sys.stderr),
        )  # fmt: skip
    print(checks_text(branches), end="")


if __name__ == "__main__":
    main()
