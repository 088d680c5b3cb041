"""Predicted against measured accuracy on random compositions that the predictor never saw.

python benchmarks/predictor.py --data imagefolder:DIR --weights DIR --traces DIR [--compositions 50]
"""

import tempfile
from pathlib import Path

import numpy as np
from instances import arguments, learnt

from nas.compression.accuracy import measure_compositions
from nas.compression.calibration_set import random_plans
from nas.compression.predictor import quality
from nas.jobs.executors import executor
from nas.training.base_network import prepare


def main() -> None:
    """Print rank correlation and mean error per base, for the predictor and for the plain sum of single drops."""
    options = arguments(__doc__, compositions=50, seed=12345)
    print("| base | compositions | rank correlation | mean error, points | sum of single drops: rank | error |")
    print("|---|---|---|---|---|---|")
    for base, config, _, library, predictor in learnt(options):
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(config, Path(scratch), options.cache, lambda *_: None)
            plans = random_plans(prepared.network, library, options.compositions, np.random.default_rng(options.seed))
            images, labels = prepared.search_images(config.seed)
            workers = executor(config.executor, config.workers)
            measured = np.array(measure_compositions(prepared.program, library, plans, images, labels, workers))
        found = quality(np.array([predictor.accuracy(plan) for plan in plans]), measured)
        drops = [sum(library.records[key].drop for key in plan.items()) for plan in plans]
        plain = quality(float(predictor.table[0]) - np.array(drops), measured)
        print(
            f"| {base} | {len(plans)} | {found.rank_correlation:.3f} | {found.mean_error:.2f} "
            f"| {plain.rank_correlation:.3f} | {plain.mean_error:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
