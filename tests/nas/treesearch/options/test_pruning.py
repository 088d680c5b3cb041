"""Which options of a unit a search is offered, by hand."""

import numpy as np
import pytest

from nas.compression.library import Choice
from nas.treesearch.options.pruning import worth_having

A, B = Choice("svd", 0.5), Choice("fire", 1.0)


@pytest.mark.parametrize(
    ("damage", "pair_ms", "kept", "why"),
    [
        ([0, 3, 4], [[9.0, 5.0, 4.0]], [0, 1, 2], {}),
        ([0, 3, 4], [[9.0, 9.0, 4.0]], [0, 2], {A: "saves no time on this device"}),
        ([0, 3, 4], [[9.0, 4.0, 5.0]], [0, 1], {B: "svd@0.5 is as fast and as accurate"}),
        ([0, 3, 3], [[9.0, 5.0, 5.0]], [0, 1], {B: "svd@0.5 is as fast and as accurate"}),  # of equals the first
        ([0, 3, 4], [[9.0, 4.0, 5.0], [9.0, 6.0, 5.0]], [0, 1, 2], {}),  # behind another front it is the faster one
        ([0, -1, 4], [[9.0, 9.0, 4.0]], [0, 1, 2], {}),  # no faster, but more accurate
    ],
)
def test_an_option_goes_that_another_beats_in_time_and_in_accuracy(damage, pair_ms, kept, why):
    assert worth_having([None, A, B], np.array(damage), np.array(pair_ms), exempt=[]) == (kept, why)


def test_an_exempt_option_stays_and_beats_nobody():
    damage, pair_ms = np.array([0, 3, 4]), np.array([[9.0, 4.0, 5.0]])
    assert worth_having([None, A, B], damage, pair_ms, exempt=[1]) == ([0, 1, 2], {})
    assert worth_having([None, B, A], damage, np.array([[9.0, 9.5, 9.5]]), exempt=[1, 2]) == ([0, 1, 2], {})
