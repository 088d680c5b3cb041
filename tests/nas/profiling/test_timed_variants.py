"""What compressions save, timed; a timer that answers by hand stands for the machine."""

import io
from dataclasses import replace

import numpy as np
import torch
from networks import made_library, made_predictor, scenario, tiny

from nas.compression.library import Choice
from nas.profiling.variants import read_pairs, timed_variants, write_pairs
from nas.treesearch.options.savings import savings
from nas.treesearch.space import build_space

LAST = 5


class CountingTimer:
    """Takes a microsecond for every weight of a program, and `slow` times as long for depthwise layers."""

    def __init__(self, slow: float = 1.0) -> None:
        self.slow, self.seconds = slow, []

    def add(self, program: bytes) -> int:
        loaded = torch.export.load(io.BytesIO(program))
        sizes = [w.numel() for w in loaded.state_dict.values()]
        deep = any(w.ndim == 4 and w.shape[1] == 1 for w in loaded.state_dict.values())
        self.seconds.append(1e-6 * sum(sizes) * (self.slow if deep else 1.0))
        return len(self.seconds) - 1

    def burst(self, number: int, seconds: float) -> float:
        return self.seconds[number]


def pairs_by(timer):
    library = made_library(("mobilenet", "svd", "prune"))
    return library, timed_variants(tiny(), library, timer, rng=np.random.default_rng(0), rounds=1, burst_s=0.0)


def test_every_variant_is_held_against_what_it_takes_the_place_of():
    library, pairs = pairs_by(CountingTimer())
    assert pairs.keys() == library.records.keys()
    for unit, layer in enumerate(tiny().units):
        weights = sum(w.numel() for w in layer.module().parameters())
        assert {round(1e3 * base_ms) for (owner, _), (base_ms, _) in pairs.items() if owner == unit} <= {weights}
    assert all(0 < own_ms < base_ms for (_, choice), (base_ms, own_ms) in pairs.items() if choice.technique == "svd")


def test_what_saves_no_time_as_timed_is_not_offered_and_says_so():
    library, pairs = pairs_by(CountingTimer(slow=1000.0))
    library = replace(library, timed=pairs)
    space = build_space(tiny(), library, made_predictor(library), scenario(device="pi4"), (0, LAST))
    choice = Choice("mobilenet", 1.0)
    units = [unit for unit, other in library.records if other == choice]
    assert units
    for unit in units:
        assert choice not in space.choices[unit]
        assert "as compiled here" in space.dropped[unit, choice]
    rows = savings(tiny(), library, scenario(device="pi4").device, space.dropped)
    assert {row.measured_ms for row in rows} == set(pairs.values())
    assert sum("as compiled here" in row.why_not for row in rows) == len(units)


def test_a_variant_that_prunes_stays_although_it_saves_nothing_by_itself():
    library = made_library(("prune",))
    key = next(iter(library.records))
    assert not replace(library, timed={key: (1.0, 2.0)}).useless(key)


def test_timings_are_kept_for_the_machine_they_are_of(tmp_path):
    pairs = {(3, Choice("inner", 0.5)): (2.0, 1.25)}
    write_pairs(tmp_path / "timed.json", "this one", pairs)
    assert read_pairs(tmp_path / "timed.json", "this one") == pairs
    assert read_pairs(tmp_path / "timed.json", "another") == {}
    (tmp_path / "timed.json").write_text("not json")
    assert read_pairs(tmp_path / "timed.json", "this one") == {}
