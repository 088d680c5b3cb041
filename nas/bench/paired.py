"""Engines measured in turns: every round runs a burst of each, in a fresh order, and ratios are taken within a round.

What disturbs a machine lasts longer than a burst. So the ratio of two engines' times in one round says more than that
of their medians, and the median of those ratios is what is reported.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import NasError
from nas.bench.cases import Case, Compiler, Made
from nas.bench.engines import OURS, PEERS, Engine, Runner
from nas.bench.processes import Child
from nas.bench.roofline import Ceilings, Machine
from nas.jobs.machine import load_average, processor, today, versions
from nas.jobs.progress import StageProgress, silent_stages

SLOW_MS = 20.0
SLOW_ROUNDS = 5
"""Engines slower than that take part in so many rounds only."""
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "onnxruntime", "openvino", "torch", "numpy")


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """One engine on one case with one number of threads.

    round_ms : median milliseconds of a call, per round; None in rounds that it sat out.
    error : largest difference to torch, as a share of the largest output.
    failure : why there are no times; empty when there are.
    weight_bytes, macs, roofline_ms : of our libraries; 0 for peers.
    """

    case: str
    engine: str
    threads: int
    round_ms: tuple[float | None, ...] = ()
    error: float = 0.0
    failure: str = ""
    weight_bytes: int = 0
    macs: int = 0
    roofline_ms: float = 0.0

    @property
    def times_ms(self) -> list[float]:
        """Of the rounds that it took part in."""
        return [ms for ms in self.round_ms if ms is not None]

    @property
    def median_ms(self) -> float:
        return float(np.median(self.times_ms)) if self.times_ms else math.nan

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """Lower and upper: the spread."""
        if not self.times_ms:
            return (math.nan, math.nan)
        low, high = np.percentile(self.times_ms, [25, 75])
        return float(low), float(high)

    def ratio_to(self, other: "Rounds") -> float:
        """Median over the common rounds of this one's time over the other's; nan without any."""
        both = zip(self.round_ms, other.round_ms)
        ratios = [mine / theirs for mine, theirs in both if mine is not None and theirs is not None]
        return float(np.median(ratios)) if ratios else math.nan


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """`roofline.Ceilings` as they are written: `stream_gbps` is (bytes of the buffer, 10**9 bytes a second) pairs."""

    threads: int
    gflops: float
    stream_gbps: tuple[tuple[int, float], ...]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run of `nas bench`, and where it was made."""

    machine: str
    date: str
    versions: dict[str, str]
    load_before: float
    what: str
    rounds: tuple[Rounds, ...]
    ceilings: tuple[Ceiling, ...]

    def of(self, case: str, engine: str, threads: int) -> Rounds | None:
        """What was measured, if it was."""
        wanted = (case, engine, threads)
        return next((r for r in self.rounds if (r.case, r.engine, r.threads) == wanted), None)

    def geometric_mean(self, engine: str, peer: str, threads: int) -> tuple[float, float]:
        """Over all cases, of the ratio of `engine` to `peer`; and the worst. nan where none has both."""
        ratios = []
        for case in dict.fromkeys(r.case for r in self.rounds):
            ours, theirs = self.of(case, engine, threads), self.of(case, peer, threads)
            if ours and theirs and not math.isnan(ratio := ours.ratio_to(theirs)):
                ratios.append(ratio)
        return (math.exp(float(np.mean(np.log(ratios)))), max(ratios)) if ratios else (math.nan, math.nan)


def measured(
    cases: Sequence[Case], *, threads: Sequence[int], weights: Sequence[str], peers: Sequence[str], rounds: int,
    burst_s: float, rng: np.random.Generator, what: str = "", tiles: Path | None = None,
    tune: bool = True, progress: StageProgress = silent_stages,
) -> Results:  # fmt: skip
    """Compile every case, measure the machine, then take turns.

    Parameters
    ----------
    weights : formats of our libraries, one engine each. peers : names from `PEERS`, which must be installed.
    rounds : bursts of every engine on every case. burst_s : seconds that a burst is timed for.
    what : a line about the cases. tiles : file with tuned tiles. tune : whether tiles are timed; else reckoned.
    """
    load_before = load_average()
    found: list[Rounds] = []
    ceilings: list[Ceiling] = []
    for count in threads:
        made = _compiled(cases, count, weights, tiles, tune, progress)
        sizes = sorted({one.weight_bytes for one in made.values() if isinstance(one, Made) and one.weight_bytes})
        with _child(Machine, OURS["f32"], count) as machine:
            limits: Ceilings = machine.call("ceilings", sizes)
        pairs = tuple(limits.stream_gbps.items())
        ceilings.append(Ceiling(threads=count, gflops=limits.gflops, stream_gbps=pairs))
        engines = [*(OURS[form] for form in weights), *(PEERS[name] for name in peers)]
        with contextlib.ExitStack() as stack:
            runners = {
                engine.name: stack.enter_context(_child(Runner, engine, engine.name, count)) for engine in engines
            }
            for done, case in enumerate(cases):
                of_case = f"{case.name}, {done + 1} of {len(cases)}, {count} threads"
                found += _in_turns(case, count, runners, made, limits, rounds, burst_s, rng, of_case, progress)
    return Results(
        machine=processor(), date=today(), versions=versions(_PACKAGES), load_before=load_before, what=what,
        rounds=tuple(found), ceilings=tuple(ceilings),
    )  # fmt: skip


def _child(make: Callable[..., object], engine: Engine, *arguments: object) -> Child:
    """A process with the engine's environment; the last argument is the number of threads."""
    (*_, threads) = arguments
    assert isinstance(threads, int)
    return Child(make, *arguments, environment=engine.environment(threads))


def _compiled(
    cases: Sequence[Case], threads: int, weights: Sequence[str], tiles: Path | None, tune: bool,
    progress: StageProgress,
) -> dict[tuple[str, str], Made | str]:  # fmt: skip
    """(case, engine) -> what compiling gave, or why it failed."""
    made: dict[tuple[str, str], Made | str] = {}
    environment = OURS["f32"].environment(threads)
    with Child(Compiler, threads, tiles, tune, environment=environment) as compiler:
        for case in cases:
            for form in weights:
                progress(f"compile for {threads}", len(made), len(cases) * len(weights), f"{case.name} {form}")
                try:
                    made[case.name, OURS[form].name] = compiler.call("make", case, form)
                except NasError as error:
                    made[case.name, OURS[form].name] = str(error)
    progress(f"compile for {threads}", len(made), len(made), "")
    return made


def _in_turns(
    case: Case, threads: int, runners: Mapping[str, Child], made: Mapping[tuple[str, str], Made | str],
    limits: Ceilings, rounds: int, burst_s: float, rng: np.random.Generator, title: str, progress: StageProgress,
) -> list[Rounds]:  # fmt: skip
    """All engines on one case; every turn is told under `title`."""
    errors, failures = {}, {}
    for name, runner in runners.items():
        compiled = made.get((case.name, name))
        try:
            if isinstance(compiled, str):
                raise NasError(compiled)
            errors[name] = _difference(runner.call("load", case), case.expected)
        except NasError as failure:
            failures[name] = str(failure)
    times: dict[str, list[float | None]] = {name: [] for name in errors}
    for number in range(rounds):
        for name in map(str, rng.permutation(list(errors))):
            progress(title, number, rounds, f"round {number + 1}: {name}")
            slow = number >= SLOW_ROUNDS and (times[name][0] or 0.0) > SLOW_MS
            times[name].append(None if slow else 1e3 * runners[name].call("burst", burst_s))
    progress(title, rounds, rounds, "")
    found = []
    for name in runners:
        entry = Rounds(
            case=case.name, engine=name, threads=threads, round_ms=tuple(times.get(name, ())),
            error=errors.get(name, 0.0), failure=failures.get(name, ""),
        )  # fmt: skip
        compiled = made.get((case.name, name))
        if isinstance(compiled, Made):
            entry = msgspec.structs.replace(
                entry, weight_bytes=compiled.weight_bytes, macs=compiled.macs,
                roofline_ms=limits.roofline_ms(compiled.macs, compiled.weight_bytes),
            )  # fmt: skip
        found.append(entry)
    return found


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        raise NasError(f"the answer has shape {found.shape}: torch's has {expected.shape}")
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
