"""Which bandwidth estimator to use: every rule over every trace, three sizes and four rhythms of hand-over.

    python benchmarks/estimators.py --traces DIR [--synthetic]

A hand-over costs the trace's round trip, jitter (exponential, mean 2 ms, seeded) and the bytes' time on the
changing link. Before each one every rule says what it will get; then it sees the reading. A hand-over that takes over
10 s is given up; every 5 s a message of 100 bytes (liveness) measures the round trip. The first ten of each run are
not counted. `--synthetic` takes `modeltree.link.scenes` instead of recordings; both were looked at when the
default rule was chosen.
"""

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.scenes import SCENES, generate
from modeltree.link.traces import Trace, read_trace
from modeltree.units import bytes_per_ms, mbps, ms_from_s, s_from_ms
from runtime.bandwidth import RULES, Estimator, Reading
from runtime.bandwidth.switch import Hysteresis, Match, matched

SIZES_BYTES = (3_000, 16_000, 65_000)
RHYTHMS_S = {"0.1 s": (0.1,), "1 s": (1.0,), "5 s": (5.0,), "bursts": (0.1,) * 9 + (5.0,)}
JITTER_MS = 2.0
PING_BYTES, PING_S = 100, 5.0
MOST_MS = 10_000.0
PATIENCE_MS = 1000.0
"""A hand-over is taken to be abandoned for the local branch by then: more regret than this is not counted."""
WARM_UP = 10
HYSTERESES = {"none": Hysteresis(margin=0.0, patience=1), "default": Hysteresis()} | {
    f"margin {margin}, patience {patience}": Hysteresis(margin=margin, patience=patience)
    for margin in (0.1, 0.3, 0.6)
    for patience in (2, 3, 5)
}


@dataclass
class Scores:
    """What one rule did on one trace, size and rhythm; lists are one entry per hand-over."""

    errors: list[float] = field(default_factory=list)
    matches: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    regrets_ms: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    near: list[bool] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    chosen: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    real: list[int] = field(default_factory=list)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--synthetic", action="store_true")
    options = parser.parse_args()
    if options.synthetic:
        traces = [generate(name, seed=7) for name in SCENES]
    else:
        traces = [read_trace(path) for path in sorted(options.traces.glob("*.csv"))]
    runs: dict[tuple[str, str, int, str], Scores] = {}
    for trace in traces:
        for size in SIZES_BYTES:
            for rhythm in RHYTHMS_S:
                for name, scores in replay(trace, size, rhythm).items():
                    runs[name, rhythm, size, trace.name] = scores
    print_rules(runs)
    print_rhythms(runs)
    print_hysteresis(runs)
    print_speed()


def replay(trace: Trace, size_bytes: int, rhythm: str) -> dict[str, Scores]:
    """Every rule over one trace, at most 1500 hand-overs and at least 100."""
    types = {k: BandwidthTypes.from_trace(trace, k) for k in (2, 3)}
    estimators = {name: Estimator(name, rtt_ms=trace.rtt_ms) for name in RULES}
    found = {name: Scores() for name in RULES}
    states: dict[tuple[str, str], Match | None] = {}
    local_ms = trace.rtt_ms + size_bytes / bytes_per_ms(types[2].edges_mbps[0])
    for count, (start_s, carry_ms, heard) in enumerate(handovers(trace, size_bytes, rhythm)):
        real_mbps = mbps(size_bytes, carry_ms)
        for name, estimator in estimators.items():
            estimate = estimator.estimate(start_s)
            for one in heard:
                estimator.add(one)
            if estimate is None or count < WARM_UP:
                continue
            scores = found[name]
            error = math.log(estimate.mbps / real_mbps)
            scores.errors.append(abs(error))
            for k, kinds in types.items():
                scores.matches[k].append(kinds.match(estimate.mbps) == kinds.match(real_mbps))
            offload_ms = trace.rtt_ms + min(carry_ms, PATIENCE_MS)
            foreseen_ms = trace.rtt_ms + size_bytes / bytes_per_ms(estimate.mbps)
            chosen_ms = offload_ms if foreseen_ms < local_ms else local_ms
            scores.regrets_ms.append(chosen_ms - min(offload_ms, local_ms))
            scores.covered.append(estimate.low_mbps <= real_mbps <= estimate.high_mbps)
            scores.near.append(abs(error) <= math.log(1.5))
            scores.confidences.append(estimate.confidence)
            scores.real.append(types[2].match(real_mbps))
            if name == "adaptive":
                for kind, hysteresis in HYSTERESES.items():
                    states[name, kind] = matched(types[2], estimate, states.get((name, kind)), hysteresis)
                    scores.chosen[kind].append(states[name, kind].type)
    return found


def handovers(trace: Trace, size_bytes: int, rhythm: str) -> Iterator[tuple[float, float, list[Reading]]]:
    """(start in s, ms that the bytes really take, what the device then hears)."""
    rng = np.random.default_rng(size_bytes)
    pauses, now_s = RHYTHMS_S[rhythm], 0.0
    count = int(min(1500, max(100, trace.end_s / statistics.fmean(pauses))))
    pinged_s = -math.inf
    for i in range(count):
        carry_ms = trace.transfer_ms(size_bytes, now_s)
        shown_ms = min(carry_ms, MOST_MS)
        seconds = s_from_ms(trace.rtt_ms + shown_ms + rng.exponential(JITTER_MS))
        reading = Reading(time_s=now_s + seconds, size_bytes=size_bytes, seconds=seconds, finished=carry_ms <= MOST_MS)
        heard = [reading]
        if now_s - pinged_s >= PING_S:
            pinged_s = now_s
            heard[:0] = [_ping(trace, now_s, rng) for _ in range(3 if i == 0 else 1)]
        yield now_s, carry_ms, heard
        now_s += max(seconds, pauses[i % len(pauses)])


def _ping(trace: Trace, now_s: float, rng: np.random.Generator) -> Reading:
    carry_ms = min(trace.transfer_ms(PING_BYTES, now_s), MOST_MS)
    return Reading(
        time_s=now_s,
        size_bytes=PING_BYTES,
        seconds=s_from_ms(trace.rtt_ms + carry_ms + rng.exponential(JITTER_MS)),
    )


def print_rules(runs: dict[tuple[str, str, int, str], Scores]) -> None:
    """One row a rule: means over runs, so that a long trace counts as much as a short one."""
    print("| rule | error, median | p90 | type, K = 2 | K = 3 | regret, ms | in deciles | confidence said, met |")
    print("|---" * 8 + "|")
    for name in RULES:
        mine = [scores for key, scores in runs.items() if key[0] == name]
        median, p90 = (statistics.fmean(float(np.quantile(s.errors, q)) for s in mine) for q in (0.5, 0.9))
        match2, match3 = (100 * statistics.fmean(statistics.fmean(s.matches[k]) for s in mine) for k in (2, 3))
        regret = statistics.fmean(statistics.fmean(s.regrets_ms) for s in mine)
        covered = 100 * statistics.fmean(statistics.fmean(s.covered) for s in mine)
        said = 100 * statistics.fmean(statistics.fmean(s.confidences) for s in mine)
        met = 100 * statistics.fmean(statistics.fmean(s.near) for s in mine)
        print(
            f"| {name} | {median:.3f} | {p90:.3f} | {match2:.1f} % | {match3:.1f} % | {regret:.1f} | {covered:.0f} % "
            f"| {said:.0f} %, {met:.0f} % |"
        )
    print(f"\n{len(runs) // len(RULES)} runs a rule. Error: |ln(estimate / bandwidth that the next transfer got)|.\n")


def print_rhythms(runs: dict[tuple[str, str, int, str], Scores]) -> None:
    """Where which rule wins: type matched at K = 2 and regret, by rhythm and by size."""
    columns = [(1, rhythm) for rhythm in RHYTHMS_S] + [(2, size) for size in SIZES_BYTES]
    print("| rule | " + " | ".join(f"{value}{' B' if at == 2 else ''}" for at, value in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in RULES:
        cells = []
        for at, value in columns:
            mine = [scores for key, scores in runs.items() if key[0] == name and key[at] == value]
            match = 100 * statistics.fmean(statistics.fmean(s.matches[2]) for s in mine)
            cells.append(f"{match:.1f} %, {statistics.fmean(statistics.fmean(s.regrets_ms) for s in mine):.1f} ms")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def print_hysteresis(runs: dict[tuple[str, str, int, str], Scores]) -> None:
    """What hysteresis costs in matched types and saves in switches, on the default rule."""
    mine = [scores for key, scores in runs.items() if key[0] == "adaptive"]
    print("| hysteresis | type, K = 2 | switches per 100 decisions |")
    print("|---|---|---|")
    print(f"| (the link itself) | 100.0 % | {statistics.fmean(100 * changes(s.real) for s in mine):.1f} |")
    for kind in HYSTERESES:
        match = statistics.fmean(100 * float(np.mean(np.equal(s.chosen[kind], s.real))) for s in mine)
        print(f"| {kind} | {match:.1f} % | {statistics.fmean(100 * changes(s.chosen[kind]) for s in mine):.1f} |")
    print()


def changes(types: list[int]) -> float:
    """Share of decisions that differ from the one before."""
    return float(np.mean(np.diff(types) != 0))


def print_speed() -> None:
    """Microseconds for a reading and for a decision (estimate and match)."""
    types = BandwidthTypes.from_trace(generate("4g_indoor_static", seed=1), 3)
    estimator, state, rounds = Estimator(), None, 20_000
    readings = [Reading(time_s=0.1 * i, size_bytes=16_000, seconds=0.05 + 0.01 * (i % 7)) for i in range(rounds)]
    began = time.perf_counter()
    for reading in readings:
        estimator.add(reading)
    middle = time.perf_counter()
    for i in range(rounds):
        state = matched(types, estimator.estimate(0.1 * rounds + i), state, Hysteresis())
    ended = time.perf_counter()
    each = [1000 * ms_from_s(seconds) / rounds for seconds in (middle - began, ended - middle)]
    print(f"A reading takes {each[0]:.1f} us, a decision (estimate and match) {each[1]:.1f} us.")


if __name__ == "__main__":
    main()
