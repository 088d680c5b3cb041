"""The cache of tiles, and the choice of one."""

import msgspec
import numpy as np
import pytest
from operator_cases import conv
from stage_programs import fused_from, planned_from

from compile.targets import TARGETS, host
from compile.tuning import TuningCache, timed, tuned

HERE = host()
AWAY = msgspec.structs.replace(TARGETS["pi4"], name="away")


@pytest.fixture(scope="module")
def kernel():
    _, kernels, _ = planned_from(fused_from(conv((8, 6, 6), 8, 3, padding=1).make(), (8, 6, 6)))
    return next(kernel for kernel in kernels if kernel.name == "conv3x3")


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the clock: the second tile is the fastest. Lists the kernels that were timed."""
    times = []

    def second(kernel, target):
        times.append(kernel.name)
        return {tile: abs(i - 1.0) for i, tile in enumerate(kernel.tiles)}

    monkeypatch.setattr("compile.tuning.timed", second)
    return times


def test_the_fastest_tile_is_taken_and_not_timed_again(kernel, asked, tmp_path):
    cache = TuningCache(tmp_path / "tiles.json")
    assert tuned(kernel, HERE, cache) == kernel.tiles[1]
    cache.save()
    assert tuned(kernel, HERE, TuningCache(tmp_path / "tiles.json")) == kernel.tiles[1]
    assert asked == ["conv3x3"]


def test_a_target_that_is_not_here_gets_the_first_tile_untimed(kernel, asked):
    cache = TuningCache(None)
    assert tuned(kernel, AWAY, cache) == kernel.tiles[0]
    assert asked == []
    assert cache.tiles == {}


@pytest.mark.parametrize("change", [{"threads": 1}, {"cpu": "x86-64-v2", "vector_bits": 128}])
def test_tiles_of_one_target_are_not_those_of_another(kernel, asked, change):
    cache = TuningCache(None)
    tuned(kernel, HERE, cache)
    tuned(
        kernel,
        msgspec.structs.replace(HERE, **({"threads": 63} if change == {"threads": HERE.threads} else change)),
        cache,
    )
    assert len(asked) == len(cache.tiles) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b"[" * 10_000, b'{"a": {"b": "c"}}'])
def test_a_damaged_cache_counts_as_empty_and_is_mended(kernel, asked, tmp_path, damage):
    path = tmp_path / "tiles.json"
    path.write_bytes(damage)
    cache = TuningCache(path)
    assert tuned(kernel, HERE, cache) == kernel.tiles[1]
    cache.save()
    assert TuningCache(path).tiles == cache.tiles != {}


def test_a_tile_that_the_schedule_no_longer_has_is_timed_anew(kernel, asked, tmp_path):
    cache = TuningCache(None)
    tuned(kernel, HERE, cache)
    (key,) = cache.tiles
    cache.tiles[key] = {"vectors": 99}
    assert tuned(kernel, HERE, cache) == kernel.tiles[1]
    assert asked == ["conv3x3"] * 2


def test_nothing_new_is_not_written(tmp_path):
    TuningCache(tmp_path / "tiles.json").save()
    assert not (tmp_path / "tiles.json").exists()


def test_every_tile_is_timed(monkeypatch):
    monkeypatch.setattr("compile.tuning.SECONDS_A_ROUND", 0.0)
    _, kernels, _ = planned_from(fused_from(conv((8, 4, 4), 8, 1).make(), (8, 4, 4)))
    kernel = next(kernel for kernel in kernels if kernel.name == "conv1x1")
    seconds = timed(kernel, msgspec.structs.replace(HERE, vector_bits=128, cpu="x86-64-v2", registers=16, features=()))
    assert tuple(seconds) == kernel.tiles
    assert len(kernel.tiles) > 1
    assert all(0 < value < np.inf for value in seconds.values())
