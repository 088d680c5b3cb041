"""Small decision problems: made-up numbers that are physically consistent."""

import itertools

import numpy as np

from modeltree.decisions import Decisions, DecisionTable, Objective

LAYER_MS = np.array([12.0, 20.0, 20.0, 15.0, 13.0])
ELEMENTS = np.array([150_528, 290_400, 69_984, 186_624, 64_896])
EXITS = {1: (3, 78.7), 2: (4, 81.7), 3: (5, 83.6)}
"""Layers of each exit, and its accuracy."""
LOST = {4: 3.0, 8: 0.5, 16: 0.0}
"""Points of accuracy that a code of so many bits costs."""
CLOUD_IS_FASTER, CODED, MACS_PER_MS = 10, 0.4, 2e6


def small_table():
    """3 exits x 6 cuts x 3 bits; a cut at or behind an exit's last layer leaves all on the device."""
    columns = {
        name: []
        for name in (
            "exit", "cut", "bits", "device_ms", "cloud_ms", "sent_bytes", "accuracy", "device_macs",
        )
    }  # fmt: skip
    for (exit, (layers, accuracy)), cut, bits in itertools.product(EXITS.items(), range(6), LOST):
        local = cut >= layers
        device_ms = LAYER_MS[: min(cut, layers)].sum()
        row = (
            exit, cut, bits, device_ms, 0.0 if local else LAYER_MS[cut:layers].sum() / CLOUD_IS_FASTER,
            0.0 if local else ELEMENTS[cut] * bits / 8 * CODED, accuracy - (0.0 if local else LOST[bits]),
            device_ms * MACS_PER_MS,
        )  # fmt: skip
        for column, value in zip(columns.values(), row):
            column.append(value)
    return DecisionTable(**columns)


def small_decisions(*, budget_mj=np.inf, rtt_ms=3.0):
    """The small table behind a link."""
    return Decisions(table=small_table(), rtt_ms=rtt_ms, objective=Objective(budget_mj=budget_mj))
