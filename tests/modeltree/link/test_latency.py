"""Transfers cost the round trip plus the bytes, and measured transfers give the model back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import ConfigError, DataError
from modeltree.link.latency import TransferModel, fit_transfer


def test_a_transfer_is_round_trip_plus_copying_plus_bytes_over_bandwidth():
    model = TransferModel(rtt_ms=50, per_byte_ns=20)
    # 100 kB: 2 ms to copy; 800 kbit at 8 Mbit/s: 100 ms
    assert model.ms(100_000, 8.0) == pytest.approx(50 + 2 + 100)


def test_nothing_to_send_still_costs_the_round_trip():
    assert TransferModel(rtt_ms=50).ms(0, 8.0) == 50


@pytest.mark.parametrize(("size", "bandwidth"), [(1, 0), (1, -1), (1, math.nan), (-1, 1), (math.nan, 1), (math.inf, 1)])
def test_an_impossible_transfer_is_refused(size, bandwidth):
    with pytest.raises(ConfigError, match="above 0"):
        TransferModel(rtt_ms=1).ms(size, bandwidth)


@pytest.mark.parametrize("wrong", [{"rtt_ms": -1}, {"rtt_ms": math.nan}, {"rtt_ms": 1, "per_byte_ns": math.inf}])
def test_an_impossible_model_is_refused(wrong):
    with pytest.raises(ConfigError, match="at least 0"):
        TransferModel(**wrong)


@given(st.floats(0, 500), st.floats(0, 1000))
def test_exact_measurements_give_the_model_back(rtt, per_byte):
    model = TransferModel(rtt_ms=rtt, per_byte_ns=per_byte)
    sizes, bandwidths = [0, 1_000, 50_000, 200_000], [1.0, 5.0, 20.0, 3.0]
    fitted = fit_transfer(sizes, bandwidths, [model.ms(s, b) for s, b in zip(sizes, bandwidths)])
    assert fitted.rtt_ms == pytest.approx(rtt, abs=1e-6)
    assert fitted.per_byte_ns == pytest.approx(per_byte, abs=1e-4)


def test_coefficients_are_never_negative():
    # faster than the bandwidth allows: the best slope would be below 0, so the intercept alone is fitted
    fitted = fit_transfer([1_000, 100_000], [8.0, 8.0], [31.0, 90.0])
    assert fitted.per_byte_ns == 0
    assert fitted.rtt_ms == pytest.approx(((31 - 1) + (90 - 100)) / 2)
    assert fit_transfer([1, 2], [1.0, 1.0], [0.0, 0.0]) == TransferModel(rtt_ms=0)


@pytest.mark.parametrize(
    ("sizes", "bandwidths", "times"),
    [
        ([], [], []),
        ([1], [1], [1]),
        ([5, 5, 5], [1, 2, 3], [1, 2, 3]),
        ([1, 2], [1, 1], [1]),
        ([1, 2], [1, 0], [1, 2]),
        ([1, math.nan], [1, 1], [1, 2]),
        ([1, 2], [1, 1], [1, math.inf]),
        ([1, -2], [1, 1], [1, 2]),
    ],
)
def test_measurements_that_cannot_be_fitted_are_refused(sizes, bandwidths, times):
    with pytest.raises(DataError):
        fit_transfer(sizes, bandwidths, times)
