"""Leaving by confidence: entropies by hand and by law, thresholds that keep what they promise."""

import numpy as np
import pytest
from scipy.stats import entropy as by_scipy

from modeltree.errors import ConfigError, DataError
from nas.exits.thresholds import largest_threshold
from runtime.selection.early_exit import entropies_nats, entropy_nats


def test_entropy_is_that_of_the_softmax():
    logits = np.random.default_rng(0).normal(0, 3, (50, 10)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(entropies_nats(logits), by_scipy(powers, axis=1), rtol=1e-6, atol=1e-9)


def test_entropy_by_hand():
    logits = np.array([[5.0, 5.0, 5.0, 5.0], [1000.0, 1000.0, -1000.0, -1000.0], [0.0, 1e4, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(entropies_nats(logits), [np.log(4), np.log(2), 0.0])


def test_an_answer_alone_has_the_entropy_that_it_has_among_others():
    logits = np.random.default_rng(1).normal(0, 8, (200, 10)).astype(np.float32)
    assert [entropy_nats(row) for row in logits] == entropies_nats(logits).tolist()


def doubled(values):
    """Every value twice, so that the half that calibrates and the half that measures are the same."""
    return np.repeat(np.asarray(values), 2)


ENTROPY = doubled([0.4, 0.1, 0.5, 0.2, 0.3])
HERE = doubled([False, True, False, True, False])  # in order of entropy: right, right, wrong, wrong, wrong
THERE = doubled([True, True, False, False, True])  # likewise: right, wrong, right, right, wrong
# so that leaving up to each costs 0, -20, 0, 20, 20 points over all five


@pytest.mark.parametrize(
    ("max_loss", "entropy", "rate", "loss"), [(0.0, 0.3, 0.6, 0.0), (19.9, 0.3, 0.6, 0.0), (20.0, 0.5, 1.0, 20.0)]
)
def test_the_largest_threshold_within_the_loss_is_taken(max_loss, entropy, rate, loss):
    found = largest_threshold(ENTROPY, HERE, THERE, max_loss=max_loss)
    assert found == pytest.approx((entropy, rate, loss))


def test_loss_is_told_per_sample_that_leaves():
    found = largest_threshold(doubled([0.1, 0.2]), doubled([False, True]), doubled([True, True]), max_loss=100.0)
    assert found == pytest.approx((0.2, 1.0, 50.0))
    found = largest_threshold(doubled([0.1, 0.2]), doubled([True, False]), doubled([False, True]), max_loss=0.0)
    assert found.loss == pytest.approx(0.0)  # -100 for one and +100 for the other


def test_equal_entropies_leave_together():
    found = largest_threshold(
        doubled([0.1, 0.1, 0.2]), doubled([True, False, False]), doubled([True] * 3), max_loss=10.0
    )
    assert found.rate == 0.0
    assert found.loss == 0.0


def test_rate_and_loss_are_measured_on_images_that_did_not_calibrate():
    rng = np.random.default_rng(0)
    entropy, there = rng.random(4000), rng.random(4000) < 0.9
    here = rng.random(4000) < 0.95 - 0.5 * entropy
    found = largest_threshold(entropy, here, there, max_loss=1.0)
    second = slice(1, None, 2)
    leaves = entropy[second] <= found.entropy
    assert found.rate == leaves.mean()
    assert found.loss == pytest.approx(100 * (there[second][leaves].mean() - here[second][leaves].mean()))
    assert 0.1 < found.rate < 0.9
    assert found.rate * found.loss == pytest.approx(1.0, abs=1.0)
    first = slice(0, None, 2)
    more = largest_threshold(entropy, here, there, max_loss=5.0)
    assert more.entropy > found.entropy
    cost = 100 * ((there[first].astype(int) - here[first]) * (entropy[first] <= found.entropy)).mean()
    assert cost <= 1.0


def test_what_cannot_be_calibrated_is_refused():
    one = np.zeros(1)
    with pytest.raises(DataError, match="two or more"):
        largest_threshold(one, one > 0, one > 0, max_loss=1.0)
    with pytest.raises(DataError, match="same everywhere"):
        largest_threshold(np.zeros(4), np.zeros(4, bool), np.zeros(3, bool), max_loss=1.0)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match="max_loss"):
            largest_threshold(ENTROPY, HERE, THERE, max_loss=wrong)
