"""Synthetic links: the seven scenes of [Wang 2020, sec. VII], and one of ours, as seeded Markov-modulated traces.

Parameters are ours, rounded to be typical of the uplinks in public recordings (levels, spread, quartiles, outages);
no recording is copied. They stand in where no trace of one's own is at hand: a result on them says "synthetic".
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError, unknown
from modeltree.link.traces import SCENE_RTT_MS, Trace, quantile, read_trace

MAX_INTERVALS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A link that jumps between levels, wavers within each, and sometimes carries nothing.

    state_mbps : mean bandwidth of each level, Mbit/s.
    dwell_s : mean stay in each level (exponential); the next level is any other, with equal chance.
    cv : coefficient of variation within a level (log-normal, mean preserved).
    correlation_s : time over which that wavering forgets itself (autoregressive of order 1).
    outage_share, outage_s : share of time at 0 Mbit/s and mean length of an outage (exponential).
    rtt_ms : round-trip time, at or under which it is half of the time.
    rtt_p90 : the round trip that it is at or under for nine tenths of the time, over `rtt_ms` (log-normal).
    """

    name: str
    description: str
    state_mbps: tuple[float, ...]
    dwell_s: tuple[float, ...]
    cv: float
    correlation_s: float
    outage_share: float
    outage_s: float
    rtt_ms: float
    rtt_p90: float

    @property
    def mean_mbps(self) -> float:
        """Long-run mean: levels weighted by their stay, less the outages."""
        stays = zip(self.state_mbps, self.dwell_s, strict=True)
        return (1 - self.outage_share) * sum(level * dwell for level, dwell in stays) / sum(self.dwell_s)


def _scene(name: str, description: str, levels: dict[float, float], **rest: float) -> Scene:
    """A scene from {level in Mbit/s: mean stay in s}; its round trip is the one recorded traces of that scene get."""
    levels_mbps, stays_s = tuple(levels), tuple(levels.values())
    rtt_ms = SCENE_RTT_MS[name]
    return Scene(name=name, description=description, state_mbps=levels_mbps, dwell_s=stays_s, rtt_ms=rtt_ms, **rest)


SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        _scene("4g_weak_indoor", "4G deep inside a building: a few Mbit/s at best, often well under one.",
               {0.6: 6, 2.5: 8, 7: 4}, cv=0.3, correlation_s=0.5, outage_share=0.01, outage_s=0.5, rtt_p90=2.4),
        _scene("4g_indoor_static", "4G at a desk: steady, about 12 Mbit/s up.",
               {8: 10, 12: 25, 16: 12}, cv=0.15, correlation_s=0.5, outage_share=0.002, outage_s=0.2, rtt_p90=2.5),
        _scene("4g_indoor_slow", "4G while walking indoors: good on the whole, with dips behind walls.",
               {5: 4, 14: 12, 22: 8}, cv=0.2, correlation_s=1.0, outage_share=0.005, outage_s=0.5, rtt_p90=2.4),
        _scene("4g_outdoor_quick", "4G in a moving car or bus: low, bursty, with handover gaps.",
               {0.5: 3, 2.5: 5, 7: 2.5}, cv=0.45, correlation_s=0.3, outage_share=0.08, outage_s=0.7, rtt_p90=1.3),
        _scene("wifi_weak_indoor", "WiFi far from the access point or among many others: wide swings and stalls.",
               {1: 6, 8: 12, 18: 6}, cv=0.35, correlation_s=0.5, outage_share=0.08, outage_s=1.0, rtt_p90=1.5),
        _scene("wifi_weak_outdoor", "WiFi from outside the building: fast in view of the window, else almost nothing.",
               {0.8: 10, 10: 8, 45: 8}, cv=0.3, correlation_s=1.0, outage_share=0.2, outage_s=2.0, rtt_p90=1.5),
        _scene("wifi_outdoor_slow", "WiFi while walking across a campus: fast, falling off between access points.",
               {10: 6, 25: 10, 45: 10}, cv=0.2, correlation_s=1.0, outage_share=0.02, outage_s=1.0, rtt_p90=1.3),
        _scene("wifi_edge", "WiFi at the edge of its reach, the server beside it: fast in sight, else a trickle.",
               {0.1: 10, 4: 4, 40: 12}, cv=0.3, correlation_s=1.0, outage_share=0.05, outage_s=0.5, rtt_p90=1.5),
    )
}  # fmt: skip


_DECILE = 1.2816
"""Deviations from the middle of a normal distribution to its upper decile."""


def generate(name: str, *, seed: int, duration_s: float = 300.0, interval_s: float = 0.1) -> Trace:
    """A trace of scene `name`; the same seed gives the same trace, and two scenes never share random numbers."""
    if name not in SCENES:
        raise unknown("scene", name, SCENES)
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must be 0 or more")
    if not (0 < interval_s <= duration_s < math.inf and duration_s / interval_s <= MAX_INTERVALS):
        raise ConfigError(
            f"duration_s is {duration_s} and interval_s {interval_s}: they must be positive, the interval no longer "
            f"than the duration, and at most {MAX_INTERVALS} intervals in all"
        )
    scene = SCENES[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    count = round(duration_s / interval_s)
    time_s = np.arange(count) * interval_s
    end_s = count * interval_s
    level = np.array(scene.state_mbps)[_levels(scene, rng, time_s)]
    bandwidth = level * _wavering(scene, rng, count, interval_s) * _carrying(scene, rng, time_s)
    origin = f"synthetic scene {name}, seed {seed}"
    return Trace(
        name=name, time_s=time_s, bandwidth_mbps=bandwidth, end_s=end_s, rtt_ms=scene.rtt_ms, origin=origin,
        rtts_ms=_round_trips(scene, seed, count, interval_s),
    )  # fmt: skip


def load_trace(name_or_path: str | Path, *, seed: int, rtt_ms: float | None = None) -> Trace:
    """A scene by name (`generate`, with `seed`) or a file (`read_trace`); `rtt_ms` overrides what either says."""
    name = str(name_or_path)
    if name in SCENES:
        trace = generate(name, seed=seed)
        return trace if rtt_ms is None else trace.with_rtt(rtt_ms)
    looks_like_file = Path(name).suffix or Path(name).name != name or Path(name).exists()
    if not looks_like_file:
        raise unknown("scene (and no file of that name)", name, SCENES)
    return read_trace(name, rtt_ms=rtt_ms)


def _levels(scene: Scene, rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """(intervals,): the level at each time; the first is drawn by its share of time."""
    stays = np.array(scene.dwell_s)
    state = int(rng.choice(len(stays), p=stays / stays.sum()))
    states, starts = [state], [0.0]
    while (now := starts[-1] + rng.exponential(stays[state])) <= time_s[-1]:
        state = (state + int(rng.integers(1, len(stays)))) % len(stays)
        states.append(state)
        starts.append(now)
    return np.array(states)[np.searchsorted(starts, time_s, side="right") - 1]


def _wavering(scene: Scene, rng: np.random.Generator, count: int, interval_s: float) -> np.ndarray:
    """(count,): log-normal factors of mean 1 and the scene's coefficient of variation, correlated in time."""
    variance = math.log1p(scene.cv**2)
    return np.asarray(np.exp(math.sqrt(variance) * _noise(scene, rng, count, interval_s) - variance / 2))


def _round_trips(scene: Scene, seed: int, count: int, interval_s: float) -> np.ndarray:
    """(count,) in ms: log-normal about the scene's, correlated in time as the bandwidth is, but not with it."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{scene.name} round trip".encode())])
    deviation = math.log(scene.rtt_p90) / _DECILE
    factors = np.exp(deviation * _noise(scene, rng, count, interval_s))
    return np.asarray(scene.rtt_ms * factors / quantile(factors, np.ones(count), 0.5))


def _noise(scene: Scene, rng: np.random.Generator, count: int, interval_s: float) -> np.ndarray:
    """(count,): standard normal, correlated over the scene's time."""
    memory = math.exp(-interval_s / scene.correlation_s)
    noise = rng.standard_normal(count)
    noise[1:] *= math.sqrt(1 - memory**2)
    for i in range(1, count):
        noise[i] += memory * noise[i - 1]
    return noise


def _carrying(scene: Scene, rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """(intervals,): 0 during outages, else 1; starts at 1, so that no trace is all outage."""
    means = (scene.outage_s * (1 / scene.outage_share - 1), scene.outage_s)
    starts = [0.0]
    while starts[-1] <= time_s[-1]:
        starts.append(starts[-1] + rng.exponential(means[(len(starts) - 1) % 2]))
    return np.searchsorted(starts, time_s, side="right") % 2
