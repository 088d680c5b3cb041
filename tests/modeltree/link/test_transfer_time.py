"""Transfers cost the round trip plus the bytes, and measured transfers give the model back."""

import math

import pytest

from modeltree.errors import ConfigError
from modeltree.link.transfer_time import TransferModel


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
