"""What a campaign of `faults.py` measured, and its tables."""

import collections
import gc
import itertools
import math
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fault_kinds import KINDS
from fault_world import SCHEMES

MODES = ("prefer-cloud", "prefer-device")
SETTINGS = list(itertools.product(SCHEMES, MODES, (True, False)))
"""Scheme, mode, hedge."""
WARM_SESSIONS = len(SETTINGS)
SETTLE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One inference.

    fault : the one that it met, or that had just ended (`after`). over_ms : by how much the deadline was missed though
    the device alone could have kept it; 0 where it was kept or could not be. disturbed : see above. wrong : why the
    answer is none, or not the right one.
    """

    scheme: str
    mode: str
    hedge: bool
    fault: str
    after: bool
    by: str
    total_ms: float
    deadline_ms: float | None
    met: bool
    over_ms: float
    disturbed: bool
    wrong: str


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What the process held between two sessions."""

    resident_mb: float
    threads: int
    files: int

    @classmethod
    def now(cls) -> "Footprint":
        gc.collect()
        time.sleep(SETTLE_S)
        text = Path("/proc/self/status").read_text()
        resident = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
        return cls(
            resident_mb=resident / 1024,
            threads=len(os.listdir("/proc/self/task")),
            files=len(os.listdir("/proc/self/fd")),
        )


@dataclass(kw_only=True)
class Record:
    """All of a campaign. recovery_s : by fault, from its end to the first answer of the cloud; NaN: none so soon."""

    inferences: list[Inference] = field(default_factory=list)
    recovery_s: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    footprints: list[Footprint] = field(default_factory=list)


def told(record: Record) -> str:
    """The tables."""
    inferences = record.inferences
    lines = [
        "| fault | inferences | by the cloud | no answer | wrong | deadlines kept | missed, the device alone would "
        "have kept it: disturbed (median, worst ms) | ours | ms: median, p99, worst | back after s: median, worst |",
        "|---" * 10 + "|",
    ]
    for fault in [*KINDS, "all"]:
        here = [one for one in inferences if fault in (one.fault, "all")]
        if here:
            back = [one for name, each in record.recovery_s.items() if fault in (name, "all") for one in each]
            lines.append(_row(fault, here, back))
    lines += [
        "",
        "| over | mode | hedge | inferences | by the cloud | deadlines kept | missed: disturbed (ms) | ours |",
        "|---" * 8 + "|",
    ]
    for setting in SETTINGS:
        if here := [one for one in inferences if (one.scheme, one.mode, one.hedge) == setting]:
            scheme, mode, hedge = setting
            named = f"| {scheme} | {mode} | {'yes' if hedge else 'no'} | {len(here)}"
            lines.append(f"{named} | {_cloud(here)} | {_deadlines(here)} |")
    warm = min(WARM_SESSIONS, len(record.footprints))
    first, last = record.footprints[warm - 1], record.footprints[-1]
    lines.append(
        f"\nAfter session {warm} and after session {len(record.footprints)}: "
        f"{first.resident_mb:.1f} and {last.resident_mb:.1f} MB resident, {first.threads} and {last.threads} threads, "
        f"{first.files} and {last.files} open files."
    )
    return "\n".join(lines)


def _row(fault: str, here: list[Inference], back: list[float]) -> str:
    nobody = sum(one.by == "nobody" for one in here)
    wrong = sum(bool(one.wrong) for one in here) - nobody
    total = np.array([one.total_ms for one in here])
    times = ", ".join(f"{value:.0f}" for value in (*np.quantile(total, (0.5, 0.99)), total.max()))
    came = [one for one in back if not math.isnan(one)]
    never = f", {len(back) - len(came)} of {len(back)} not before the next fault"
    recovery = f"{statistics.median(came):.2f}, {max(came):.2f}" if came else ""
    return (
        f"| {fault} | {len(here)} | {_cloud(here)} | {nobody} | {wrong} | {_deadlines(here)} | {times} "
        f"| {recovery}{never if len(came) < len(back) else ''} |"
    )


def _cloud(here: list[Inference]) -> str:
    return f"{100 * sum(one.by == 'cloud' for one in here) / len(here):.0f} %"


def _deadlines(here: list[Inference]) -> str:
    """Kept of all, and the misses that the device alone would have spared us."""
    asked = [one for one in here if one.deadline_ms is not None]
    missed = [[one.over_ms for one in asked if one.over_ms and one.disturbed is kind] for kind in (True, False)]
    told = (f"{len(each)} ({statistics.median(each):.1f}, {max(each):.1f})" if each else "0" for each in missed)
    return f"{sum(one.met for one in asked)} of {len(asked)} | {' | '.join(told)}"
