"""How many times dearer each term of a profile is than it says, from few measured blocks.

met = call + sum over terms of m_t predicted_t, with ln m_t = s + d_t: the machine as a whole is s apart from its
profile, and every term d_t apart from that. The most likely values are sought: s may be anything, d_t is normal about
0 with a spread that is chosen by leaving each block out, so that few blocks move the scale alone and many move every
term that they tell apart. Errors count by their logarithm, and one that is far off counts as its distance, no longer as
its square [Huber 1964], so that a disturbed measurement moves little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SPREADS = (0.05, 0.15, 0.4, 1.0)
"""Of d_t, tried from the least: a profile whose kinds are in proportion needs little."""

USUAL_SPREAD = 0.15
"""Where there are too few blocks to leave one out: what shipped profiles miss of networks held out of their fits."""

FEWEST = 4
"""Blocks from which on the spread is chosen."""

_SCALE_SPREAD, _CALL_SPREAD, _CALL_MS = 2.0, 1.5, 0.05
_MODEL_ERROR = 0.05  # of a block, beside what its measurements say
_HUBER = 1.5
_STEPS, _LONGEST, _DONE = 60, 1.0, 1e-6
_CAPPED = 0.7  # of an error left out; what is farther off is disturbed


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A block that was met.

    terms_ms : what the profile says, term by term, the call left out. noise : of ms, relative.
    """

    terms_ms: Mapping[str, float]
    ms: float
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """times : per term, those that were not met included. call_ms : once a block. spread : that was chosen.

    left_out : per sample, what was predicted by a fit without it; empty where there are fewer than `FEWEST`.
    """

    times: Mapping[str, float]
    call_ms: float
    spread: float
    left_out: tuple[float, ...] = ()

    def ms(self, terms_ms: Mapping[str, float]) -> float:
        """What a block takes."""
        return self.call_ms + math.fsum(self.times[term] * ms for term, ms in terms_ms.items())


def fitted(samples: Sequence[Sample], terms: Sequence[str], call_ms: float = 0.0) -> Fit:
    """The fit to some samples; that of none leaves everything as it is.

    terms : all that there are. call_ms : what the profile says of a call; 0, where it says nothing.
    """
    if not samples:
        return Fit(times=dict.fromkeys(terms, 1.0), call_ms=call_ms, spread=0.0)
    if len(samples) < FEWEST:
        return _fit(samples, terms, call_ms, USUAL_SPREAD)
    tried = {spread: _left_out(samples, terms, call_ms, spread) for spread in SPREADS}
    spread = min(SPREADS, key=lambda spread: _missed(samples, tried[spread]))
    found = _fit(samples, terms, call_ms, spread)
    return Fit(times=found.times, call_ms=found.call_ms, spread=spread, left_out=tried[spread])


def _left_out(samples: Sequence[Sample], terms: Sequence[str], call_ms: float, spread: float) -> tuple[float, ...]:
    parts = (([*samples[:i], *samples[i + 1 :]], sample) for i, sample in enumerate(samples))
    return tuple(_fit(rest, terms, call_ms, spread).ms(one.terms_ms) for rest, one in parts)


def _missed(samples: Sequence[Sample], said_ms: Sequence[float]) -> float:
    return sum(min(abs(math.log(ms / one.ms)), _CAPPED) for one, ms in zip(samples, said_ms, strict=True))


def _fit(samples: Sequence[Sample], terms: Sequence[str], call_ms: float, spread: float) -> Fit:
    """The most likely logarithms by Gauss and Newton's method, weights drawn again at every step."""
    known = [term for term in terms if any(one.terms_ms.get(term) for one in samples)]
    own = np.array([[one.terms_ms.get(term, 0.0) for term in known] for one in samples])
    met = np.log([one.ms for one in samples])
    variance = _MODEL_ERROR**2 + np.array([one.noise for one in samples]) ** 2
    usual = np.array([0.0, *np.zeros(len(known)), math.log(call_ms or _CALL_MS)])
    trust = np.array([_SCALE_SPREAD, *np.full(len(known), spread), _CALL_SPREAD]) ** -2.0
    found = usual.copy()
    found[0] = float(np.median(met - np.log(own.sum(axis=1) + math.exp(usual[-1]))))
    for _ in range(_STEPS):
        shares_ms = own * np.exp(found[0] + found[1:-1])
        said = shares_ms.sum(axis=1) + math.exp(found[-1])
        slope = np.column_stack([shares_ms.sum(axis=1), shares_ms, np.full(len(met), math.exp(found[-1]))])
        slope /= said[:, None]
        off = met - np.log(said)
        weight = 1.0 / variance
        weight *= np.minimum(1.0, _HUBER / np.maximum(np.abs(off) / np.sqrt(variance), 1e-12))
        normal = slope.T @ (weight[:, None] * slope) + np.diag(trust)
        step = np.linalg.solve(normal, slope.T @ (weight * off) - trust * (found - usual))
        found += step * min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < _DONE:
            break
    times = dict.fromkeys(terms, math.exp(found[0]))  # what was not met follows the machine
    times |= zip(known, np.exp(found[0] + found[1:-1]).tolist(), strict=True)
    return Fit(times=times, call_ms=math.exp(found[-1]), spread=spread)
