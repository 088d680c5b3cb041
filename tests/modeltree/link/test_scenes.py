"""Synthetic scenes are reproducible, differ from one another, and have the statistics they promise."""

import numpy as np
import pytest

from modeltree.errors import ConfigError, DataError
from modeltree.link.scenes import SCENES, generate, load_trace
from modeltree.link.traces import write_trace

NAMES = {
    "4g_weak_indoor", "4g_indoor_static", "4g_indoor_slow", "4g_outdoor_quick", "wifi_weak_indoor",
    "wifi_weak_outdoor", "wifi_outdoor_slow", "wifi_edge",
}  # fmt: skip


def test_the_seven_scenes_of_the_paper_and_ours_are_there():
    assert set(SCENES) == NAMES
    assert all(scene.description and scene.name == name for name, scene in SCENES.items())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_same_seed_gives_the_same_trace_and_another_seed_another(name):
    first, again, other = (generate(name, seed=s, duration_s=20) for s in (3, 3, 4))
    assert np.array_equal(first.bandwidth_mbps, again.bandwidth_mbps)
    assert not np.array_equal(first.bandwidth_mbps, other.bandwidth_mbps)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_long_trace_has_the_scenes_mean_and_outages(name):
    scene, trace = SCENES[name], generate(name, seed=0, duration_s=10_000)
    assert trace.mean_mbps == pytest.approx(scene.mean_mbps, rel=0.15)
    out = np.mean(trace.bandwidth_mbps == 0)
    assert out == pytest.approx(scene.outage_share, abs=0.004 + 0.25 * scene.outage_share)
    assert trace.rtt_ms == scene.rtt_ms


def test_scenes_differ_in_more_than_scale():
    static, quick = (generate(name, seed=1).bandwidth_mbps for name in ("4g_indoor_static", "4g_outdoor_quick"))
    assert static.std() / static.mean() < 0.5 < quick.std() / quick.mean()


def test_a_trace_is_as_long_and_as_fine_as_asked():
    trace = generate("wifi_outdoor_slow", seed=0, duration_s=6, interval_s=0.5)
    assert trace.time_s.tolist() == [i * 0.5 for i in range(12)]
    assert trace.end_s == 6


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"duration_s": 0}, {"interval_s": 0}, {"duration_s": 0.01}, {"duration_s": float("inf")},
     {"interval_s": 1e-9}, {"duration_s": float("nan")}],
)  # fmt: skip
def test_impossible_lengths_and_seeds_are_refused(wrong):
    with pytest.raises(ConfigError):
        generate("4g_weak_indoor", **({"seed": 0} | wrong))


def test_an_unknown_scene_lists_the_known():
    with pytest.raises(ConfigError, match="4g_weak_indoor"):
        generate("6g", seed=0)
    with pytest.raises(ConfigError, match="4g_weak_indoor"):
        load_trace("6g", seed=0)


def test_a_trace_is_loaded_by_scene_or_by_file(tmp_path):
    path = tmp_path / "x.csv"
    write_trace(generate("wifi_weak_indoor", seed=5, duration_s=10), path)
    assert load_trace(path, seed=0).rtt_ms == 30
    assert load_trace(path, seed=0, rtt_ms=2).rtt_ms == 2
    assert load_trace("4g_outdoor_quick", seed=5).rtt_ms == 70
    assert load_trace("4g_outdoor_quick", seed=5, rtt_ms=2).rtt_ms == 2
    with pytest.raises(DataError, match="missing"):
        load_trace(tmp_path / "missing.csv", seed=0)
