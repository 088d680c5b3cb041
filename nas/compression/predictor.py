"""Accuracy of a composition from what its variants do alone.

Each variant v of unit u by technique t does damage  s_v = w_u w_t m_v^a,  m_v being the relative error of the network's
output with v alone plugged in. Damage adds up, and costs  D (1 - exp(-(c S)^q))  points of accuracy, S being the sum
and D the way down to chance. The exponents, c, and a weight per unit and technique are fitted to random compositions
that were measured, and to the drops of single variants; the weights are drawn towards 1.

Summing the drops of single variants instead is several points too kind, since drops compound. The additive S is what
lets dynamic programming find the optimum (`nas.treesearch.exact`): it is kept as a whole number, at a
two-thousandth of its range.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from modeltree.errors import DataError
from nas.compression.library import Choice, Library

Composition = Mapping[int, Choice]

_LEVELS = 2000
_RANGE = 0.8  # of the way down to chance that the table covers
_PULL = 1.0  # towards weights of 1
_SINGLE = 0.3  # weight of a single variant's drop against a composition's
_FOLDS = 5
_LEAST = 1e-5  # relative output error taken as none


class Quality(NamedTuple):
    """How predictions compare with measurements, on compositions the predictor was not fitted to.

    points : (predicted, measured) accuracy in percent. mean_error : points of accuracy.
    """

    points: list[tuple[float, float]]
    rank_correlation: float
    mean_error: float


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A fitted predictor as whole numbers and a table.

    damage : per (unit, choice). table : (levels + 1,) accuracy in percent for every total damage; beyond, the last.
    """

    damage: dict[tuple[int, Choice], int]
    table: np.ndarray

    def accuracy(self, plan: Composition) -> float:
        """Predicted accuracy, in percent, on the search images."""
        return float(self.table[min(sum(self.damage[key] for key in plan.items()), len(self.table) - 1)])

    def damage_of(self, drop: float) -> int:
        """The damage of something that alone loses so many points of accuracy, none where it gains."""
        return min(int(np.searchsorted(self.table[0] - self.table, drop)), len(self.table) - 1)


def fit_predictor(
    library: Library, plans: Sequence[Composition], measured: Sequence[float], *, base: float, chance: float
) -> tuple[Predictor, Quality]:
    """Fit to measured compositions, and say how well by cross-validation.

    With a library of nothing there is nothing to learn: what endings lose alone adds up, less as it nears chance.

    measured : accuracy in percent of each plan on the search images; base : of the base network on the same;
        chance : of an answer that knows nothing of its image.

    Raises
    ------
    DataError : fewer compositions than folds.
    """
    if not library.records:
        depth = max(base - chance, 1.0)
        reach = -np.log1p(-_RANGE) * np.arange(_LEVELS + 1) / _LEVELS
        return Predictor(damage={}, table=base + depth * np.expm1(-reach)), Quality([], 1.0, 0.0)
    if len(plans) < _FOLDS:
        raise DataError(f"{len(plans)} compositions were measured: the predictor needs at least {_FOLDS}")
    drops = base - np.array(measured)
    model = _Model(library, max(base - chance, 1.0))
    guesses = np.empty(len(plans))
    for fold in range(_FOLDS):
        held = np.arange(len(plans)) % _FOLDS == fold
        theta = model.fit([p for p, h in zip(plans, held) if not h], drops[~held])
        guesses[held] = model.predict(theta, [p for p, h in zip(plans, held) if h])
    theta = model.fit(plans, drops)
    return model.as_predictor(theta, base), quality(base - guesses, np.array(measured))


def quality(predicted: np.ndarray, measured: np.ndarray) -> Quality:
    """Rank correlation and mean error of predicted accuracies, (compositions,), in percent as the measured."""
    constant = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    rank = 1.0 if constant else float(spearmanr(predicted, measured)[0])
    points = [(float(p), float(m)) for p, m in zip(predicted, measured)]
    return Quality(points, rank, float(np.abs(predicted - measured).mean()))


class _Model:
    """theta = (log a, log c, log q, log w per unit, log w per technique)."""

    def __init__(self, library: Library, depth: float) -> None:
        self.depth = depth
        self.keys = list(library.records)
        self.position = {key: i for i, key in enumerate(self.keys)}
        units = sorted({unit for unit, _ in self.keys})
        names = sorted({choice.technique for _, choice in self.keys})
        self.unit = np.array([units.index(unit) for unit, _ in self.keys], dtype=int)
        self.name = np.array([len(units) + names.index(c.technique) for _, c in self.keys], dtype=int)
        self.weights = len(units) + len(names)
        self.error = np.log([max(library.records[key].logit_error, _LEAST) for key in self.keys])
        self.alone = np.array([library.records[key].drop for key in self.keys])

    def log_damage(self, theta: np.ndarray) -> np.ndarray:
        """log s_v of every variant."""
        weights = theta[3:]
        return weights[self.unit] + weights[self.name] + np.exp(theta[0]) * self.error

    def cost(self, theta: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Points lost for a total damage."""
        return self.depth * -np.expm1(-((np.exp(theta[1]) * total) ** np.exp(theta[2])))

    def incidence(self, plans: Sequence[Composition]) -> np.ndarray:
        """(plans, variants): which variants each plan plugs in."""
        matrix = np.zeros((len(plans), len(self.keys)))
        for row, plan in enumerate(plans):
            matrix[row, [self.position[key] for key in plan.items()]] = 1.0
        return matrix

    def predict(self, theta: np.ndarray, plans: Sequence[Composition]) -> np.ndarray:
        """Points lost by every plan."""
        return self.cost(theta, self.incidence(plans) @ np.exp(self.log_damage(theta)))

    def fit(self, plans: Sequence[Composition], drops: np.ndarray) -> np.ndarray:
        """Least squares, forgiving outliers; large drops may be missed by more."""
        plugged = self.incidence(plans)
        tolerance = 2.0 + 0.1 * np.abs(drops)

        def residuals(theta: np.ndarray) -> np.ndarray:
            damage = np.exp(self.log_damage(theta))
            composed = (self.cost(theta, plugged @ damage) - drops) / tolerance
            single = _SINGLE * (self.cost(theta, damage) - self.alone) / 2.0
            pulled = _PULL * np.concatenate([[theta[0] - np.log(0.7)], theta[3:]])
            return np.concatenate([composed, single, pulled])

        start = np.concatenate([[np.log(0.7)], np.zeros(2 + self.weights)])
        bounds = np.concatenate([[3.0, 8.0, 1.5], np.full(self.weights, 5.0)])
        return np.asarray(least_squares(residuals, start, loss="soft_l1", bounds=(-bounds, bounds)).x)

    def as_predictor(self, theta: np.ndarray, base: float) -> Predictor:
        """Round damage to whole numbers over a table."""
        furthest = float((-np.log1p(-_RANGE)) ** np.exp(-theta[2]) / np.exp(theta[1]))
        unit = furthest / _LEVELS
        damage = np.exp(self.log_damage(theta)) / unit
        whole = {key: int(min(round(float(d)), _LEVELS)) for key, d in zip(self.keys, damage)}
        return Predictor(damage=whole, table=base - self.cost(theta, np.arange(_LEVELS + 1) * unit))
