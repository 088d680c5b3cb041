"""Random compositions to teach the predictor on."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from modeltree.files import write_text
from nas.compression.accuracy import measure_compositions
from nas.compression.library import Choice, Library, covered
from nas.jobs.executors import Executor
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from transforms import Network

COMPOSITIONS = 64
"""How many random compositions the predictor is taught on."""

WORST_ALONE = 10.0
"""Points of accuracy: a variant that alone loses more is not offered to any search."""


def screened(library: Library) -> Library:
    """The library without variants that lose more than `WORST_ALONE` points on their own."""
    good = {key: record for key, record in library.records.items() if record.drop <= WORST_ALONE}
    bad = {
        key: f"loses {record.drop:.1f} points on its own (more than {WORST_ALONE:g})"
        for key, record in library.records.items()
        if record.drop > WORST_ALONE
    }
    return Library(folder=library.folder, records=good, declined=dict(library.declined) | bad)


def random_plans(network: Network, library: Library, count: int, rng: np.random.Generator) -> list[dict[int, Choice]]:
    """`count` compositions: one to all units changed, which ones and how drawn evenly."""
    options: dict[int, list[Choice]] = {}
    for unit, choice in library.records:
        options.setdefault(unit, []).append(choice)
    units = sorted(options)
    plans = []
    for _ in range(count if units else 0):
        chosen = sorted(int(u) for u in rng.choice(units, size=rng.integers(1, len(units) + 1), replace=False))
        plans.append(apart(network, {u: options[u][rng.integers(len(options[u]))] for u in chosen}))
    return plans


def apart(network: Network, plan: Mapping[int, Choice]) -> dict[int, Choice]:
    """A composition without the variants whose unit one in front takes the place of."""
    kept: dict[int, Choice] = {}
    taken: set[int] = set()
    for unit in sorted(plan):
        if unit not in taken:
            kept[unit] = plan[unit]
            taken.update(covered(network.units[unit], plan[unit]))
    return kept


def calibrate(
    prepared: Prepared, library: Library, executor: Executor, seed: int, progress: Progress
) -> tuple[list[dict[int, Choice]], list[float], float]:
    """Measure random compositions on the search images, or read what an earlier search with this library measured.

    Returns the plans, their accuracies in percent, and the base network's on the same images.
    """
    rng = np.random.default_rng([seed, 1])
    plans = random_plans(prepared.network, library, COMPOSITIONS, rng)
    tag = hashlib.sha256(repr([sorted(plan.items()) for plan in plans]).encode()).hexdigest()[:12]
    path = library.folder / f"calibration_{tag}.json"
    if path.exists():
        measured = json.loads(path.read_text())
    else:
        images, labels = prepared.search_images(seed)
        measured = measure_compositions(
            prepared.program, library, [{}, *plans], images, labels, executor, progress, prepared.measure
        )  # fmt: skip
        write_text(path, json.dumps(measured))
    return plans, measured[1:], measured[0]
