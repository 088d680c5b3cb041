"""The predictor on accuracies made by the very law it assumes, and on what no law made."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from modeltree.errors import DataError
from nas.compression.calibration_set import random_plans
from nas.compression.library import Choice, Library, Record
from nas.compression.predictor import fit_predictor, quality

UNITS, NAMES = 6, ("svd", "prune", "mobilenet")
BASE, CLASSES = 92.0, 10
DEPTH = BASE - 100 / CLASSES
C, Q = 1.3, 0.8


class Law:
    """drop = D (1 - exp(-(c S)^q)), S the sum of a damage per variant [the form the predictor fits]."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        choices = [Choice(name, rate) for name in NAMES for rate in (0.5, 0.25)]
        keys = [(u, choice) for u in range(UNITS) for choice in choices]
        errors = rng.uniform(0.01, 0.6, len(keys))
        weight = {u: rng.uniform(0.7, 1.4) for u in range(UNITS)}
        self.damage = {key: weight[key[0]] * error**0.7 * 0.3 for key, error in zip(keys, errors)}
        records = {
            key: Record(
                unit=key[0], technique=key[1].technique, rate=key[1].rate, error=error, logit_error=error,
                drop=self.drop({key[0]: key[1]}), seconds=0.0, layers=(), kept=0, foldable=False, settled=True,
            )
            for key, error in zip(keys, errors)
        }  # fmt: skip
        self.library = Library(folder=Path("nowhere"), records=records, declined={})
        self.rng = rng

    def drop(self, plan):
        total = sum(self.damage[key] for key in plan.items())
        return DEPTH * (1 - np.exp(-((C * total) ** Q)))

    def plans(self, count):
        return [
            {int(u): Choice(str(self.rng.choice(NAMES)), float(self.rng.choice([0.5, 0.25])))
             for u in self.rng.choice(UNITS, self.rng.integers(1, UNITS + 1), replace=False)}
            for _ in range(count)
        ]  # fmt: skip


@pytest.fixture(scope="module", params=[0, 1])
def fitted(request):
    law = Law(request.param)
    plans = law.plans(64)
    measured = [BASE - law.drop(plan) for plan in plans]
    predictor, found = fit_predictor(law.library, plans, measured, base=BASE, chance=100.0 / CLASSES)
    return law, predictor, found


def test_the_law_is_recovered(fitted):
    law, predictor, found = fitted
    fresh = law.plans(200)
    guesses = [predictor.accuracy(plan) for plan in fresh]
    truth = [BASE - law.drop(plan) for plan in fresh]
    within = [i for i, t in enumerate(truth) if t > BASE - 0.75 * DEPTH]  # the table covers 0.8 of the way down
    assert len(within) > 100
    assert spearmanr(np.array(guesses)[within], np.array(truth)[within])[0] > 0.98
    assert np.abs(np.array(guesses) - truth)[within].mean() < 0.5
    assert found.rank_correlation > 0.95
    assert len(found.points) == 64


def test_accuracy_never_rises_with_damage_and_starts_at_the_base(fitted):
    _, predictor, _ = fitted
    assert predictor.table[0] == BASE
    assert (np.diff(predictor.table) <= 0).all()
    assert predictor.table[-1] == pytest.approx(BASE - 0.8 * DEPTH)
    assert predictor.accuracy({}) == BASE


def test_damage_is_a_whole_number_that_says_what_the_fit_says(fitted):
    """Over a table of 2000 steps, rounding a handful of variants moves the accuracy by hundredths of a point."""
    from nas.compression.predictor import _Model

    law, predictor, _ = fitted
    plans = law.plans(64)
    model = _Model(law.library, DEPTH)
    theta = model.fit(plans, np.array([law.drop(plan) for plan in plans]))
    rounded = model.as_predictor(theta, BASE)
    smooth = BASE - model.predict(theta, plans)
    inside = [i for i, a in enumerate(smooth) if a > BASE - 0.79 * DEPTH]
    assert len(inside) > 20
    for i in inside:
        assert rounded.accuracy(plans[i]) == pytest.approx(smooth[i], abs=0.2)
    assert all(isinstance(d, int) and 0 <= d < len(predictor.table) for d in predictor.damage.values())


def test_damage_beyond_the_table_is_the_floor(fitted):
    law, predictor, _ = fitted
    worst = {
        u: max((k[1] for k in law.damage if k[0] == u), key=lambda c, u=u: law.damage[(u, c)]) for u in range(UNITS)
    }
    assert predictor.accuracy(worst) >= predictor.table[-1]
    assert sum(predictor.damage[key] for key in worst.items()) >= len(predictor.table) // 2


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_compositions_are_refused(count):
    law = Law(0)
    plans = law.plans(count)
    with pytest.raises(DataError, match=f"{count} compositions were measured: the predictor needs at least 5"):
        fit_predictor(law.library, plans, [80.0] * count, base=BASE, chance=100.0 / CLASSES)


@pytest.mark.parametrize("drop", [0.0, -1.0, 82.0])
def test_compositions_that_are_all_alike_are_no_trouble(drop):
    law = Law(0)
    plans = law.plans(10)
    predictor, found = fit_predictor(law.library, plans, [BASE - drop] * 10, base=BASE, chance=100.0 / CLASSES)
    assert np.isfinite(predictor.table).all()
    assert found.rank_correlation == 1.0


def test_quality_by_hand():
    found = quality(np.array([90.0, 80.0, 70.0]), np.array([91.0, 70.0, 72.0]))
    assert found.rank_correlation == pytest.approx(0.5)
    assert found.mean_error == pytest.approx(13 / 3)
    assert found.points[0] == (90.0, 91.0)


def test_random_compositions_change_one_to_all_units_and_end_behind_f3():
    from networks import made_library, tiny

    library = made_library()
    plans = random_plans(tiny(), library, 200, np.random.default_rng(0))
    assert {len(plan) for plan in plans} == {1, 2, 3, 4, 5}
    assert all(key in library.records for plan in plans for key in plan.items())
    gap = [plan for plan in plans if plan.get(3, Choice("", 1)).technique == "gap"]
    assert len(gap) > 10
    assert all(4 not in plan for plan in gap)
    assert plans == random_plans(tiny(), library, 200, np.random.default_rng(0))


def test_with_nothing_to_compress_what_an_ending_loses_alone_is_what_it_costs():
    library = Library(folder=Path("nowhere"), records={}, declined={})
    predictor, found = fit_predictor(library, [], [], base=BASE, chance=100.0 / CLASSES)
    assert found.points == []
    assert predictor.accuracy({}) == BASE
    for drop in (0.5, 3.0):
        assert predictor.table[0] - predictor.table[predictor.damage_of(drop)] == pytest.approx(drop, abs=0.1)
    assert predictor.damage_of(-1.0) == 0
