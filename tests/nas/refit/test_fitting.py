"""Few blocks move the scale, many move every term that they tell apart, and a disturbed one moves little."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from nas.refit.fitting import FEWEST, Sample, fitted

TERMS = ("dense", "pointwise", "weights")
TRUE = {"dense": 3.0, "pointwise": 0.5, "weights": 1.5}
CALL_MS = 0.2


def blocks(count, rng, noise=0.0):
    """Blocks of dense and pointwise layers in all proportions, as a machine with `TRUE` runs them."""
    found = []
    for _ in range(count):
        terms = dict(zip(TERMS, rng.uniform(0.1, 4.0, 3) * rng.integers(0, 2, 3) + [0.05, 0, 0], strict=True))
        ms = CALL_MS + sum(TRUE[term] * own for term, own in terms.items())
        found.append(Sample(terms_ms=terms, ms=ms * math.exp(noise * rng.normal()), noise=noise))
    return found


def errors(fit, samples):
    return np.array([abs(fit.ms(one.terms_ms) / one.ms - 1) for one in samples])


def test_many_blocks_tell_every_term_and_the_call():
    rng = np.random.default_rng(1)
    fit = fitted(blocks(40, rng), TERMS)
    assert fit.times == pytest.approx(TRUE, rel=0.05)
    assert fit.call_ms == pytest.approx(CALL_MS, rel=0.1)
    assert np.median(errors(fit, blocks(30, rng))) < 0.02


def test_one_disturbed_block_moves_little():
    samples = blocks(20, np.random.default_rng(2))
    samples[3] = Sample(terms_ms=samples[3].terms_ms, ms=20 * samples[3].ms)
    fit = fitted(samples, TERMS)
    assert fit.times == pytest.approx(TRUE, rel=0.15)


def test_one_block_moves_what_it_does_not_have_as_well():
    fit = fitted([Sample(terms_ms={"dense": 10.0}, ms=30.0)], TERMS)
    assert fit.ms({"dense": 10.0}) == pytest.approx(30, rel=0.02)
    assert fit.times["pointwise"] == pytest.approx(3, rel=0.05)
    assert fit.left_out == ()


def test_a_profile_that_is_right_but_for_its_scale_keeps_its_proportions():
    rng = np.random.default_rng(3)
    samples = [Sample(terms_ms=one.terms_ms, ms=7 * sum(one.terms_ms.values())) for one in blocks(12, rng)]
    fit = fitted(samples, TERMS)
    assert list(fit.times.values()) == pytest.approx([7, 7, 7], rel=0.03)


def test_nothing_met_leaves_everything_as_it_is():
    fit = fitted([], TERMS, call_ms=0.3)
    assert fit.ms({"dense": 2.0, "weights": 1.0}) == pytest.approx(3.3)


def test_what_is_left_out_is_predicted_without_it():
    samples = blocks(FEWEST + 2, np.random.default_rng(4))
    off = Sample(terms_ms=samples[0].terms_ms, ms=5 * samples[0].ms)
    honest, disturbed = fitted(samples, TERMS).left_out[0], fitted([off, *samples[1:]], TERMS).left_out[0]
    assert len(fitted(samples, TERMS).left_out) == len(samples)
    assert disturbed == pytest.approx(honest, rel=0.5)  # another spread may be chosen, but the block is not in it
    assert abs(disturbed / off.ms - 1) > 0.5


def test_it_is_the_most_likely_one_of_all():
    """Against scipy's minimiser on the negative log of the posterior, written out."""
    samples = blocks(6, np.random.default_rng(5), noise=0.1)
    fit = fitted(samples, TERMS)

    def surprise(x):
        scale, apart, call = x[0], dict(zip(TERMS, x[1:-1], strict=True)), x[-1]
        total = (scale / 2.0) ** 2 / 2 + ((call - math.log(0.05)) / 1.5) ** 2 / 2
        total += sum((own / fit.spread) ** 2 / 2 for own in apart.values())
        for one in samples:
            said = math.exp(call) + sum(math.exp(scale + apart[t]) * ms for t, ms in one.terms_ms.items())
            off = abs(math.log(one.ms / said)) / math.hypot(0.05, one.noise)
            total += off**2 / 2 if off <= 1.5 else 1.5 * off - 1.5**2 / 2
        return total

    best = minimize(
        surprise, np.zeros(5), method="Nelder-Mead", options={"maxiter": 20000, "xatol": 1e-7, "fatol": 1e-10}
    )
    wanted = [math.exp(best.x[0] + own) for own in best.x[1:-1]]
    assert list(fit.times.values()) == pytest.approx(wanted, rel=2e-3)
