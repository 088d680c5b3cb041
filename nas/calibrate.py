"""Random compositions to teach the predictor on."""

import numpy as np

from nas.library import Choice, Library
from transforms import Network

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
        plan = {u: options[u][rng.integers(len(options[u]))] for u in chosen}
        ends = min((u for u, choice in plan.items() if choice.technique == "gap"), default=None)
        plans.append({u: c for u, c in plan.items() if ends is None or u <= ends})
    return plans
