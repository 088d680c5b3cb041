"""Bandwidth traces: how fast a link was (or might be) over time, and how long bytes take on it.

A trace is piecewise constant and plays in a loop. Time is in seconds, bandwidth in Mbit/s (10**6 bit/s). The round trip
is one number, or changes over time as the bandwidth does.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from modeltree.errors import DataError
from modeltree.files import write_text
from modeltree.units import bytes_per_ms, mbps, ms_from_s

DEFAULT_RTT_MS = 40.0
"""Round trip assumed for a trace that names none and whose scene we do not know; a guess, measure your own link."""

SCENE_RTT_MS = {
    "4g_weak_indoor": 80.0,
    "4g_indoor_static": 50.0,
    "4g_indoor_slow": 55.0,
    "4g_outdoor_quick": 70.0,
    "5g_outdoor_slow": 25.0,
    "wifi_weak_indoor": 30.0,
    "wifi_weak_outdoor": 35.0,
    "wifi_outdoor_slow": 25.0,
    "wifi_edge": 4.0,
}
"""Typical round trips to a near server, by scene. Chosen, not measured: most recorded traces have bandwidth only."""

PACKET_BYTES = 1500
BIN_MS = 100
MAX_PACKET_MS = 10**9
"""Latest delivery we read from a packet file (about 11 days), so that a broken line cannot ask for all memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A piecewise-constant, looping bandwidth and round trip.

    name, origin : one line each; origin says where the numbers come from.
    time_s, bandwidth_mbps : (intervals,), float64, read-only; value i holds over [time_s[i], time_s[i + 1]).
    end_s : end of the last interval, where the trace starts again.
    rtt_ms : round-trip time of the link; of one that changes, what it is at or under for half of the time.
    rtts_ms : (intervals,), float64, read-only, the round trip of each interval; None where it is always `rtt_ms`.

    Raises
    ------
    DataError : no interval, NaN or infinity, a negative bandwidth or round trip, time that does not rise from 0, or
        only zeros.
    """

    name: str
    time_s: np.ndarray
    bandwidth_mbps: np.ndarray
    end_s: float
    rtt_ms: float
    origin: str
    rtts_ms: np.ndarray | None = None

    def __post_init__(self) -> None:
        for field in ("time_s", "bandwidth_mbps", "rtts_ms"):
            if getattr(self, field) is None:
                continue
            values = np.array(getattr(self, field), dtype=np.float64)
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        for field in ("name", "origin"):
            text = getattr(self, field)
            if text != text.strip() or len(text.splitlines()) > 1:
                raise DataError(f"{field} of a trace is {text!r}: it must be one line without space around it")
        _check(self)

    def at(self, time_s: float) -> float:
        """Bandwidth in Mbit/s at a time, which may lie beyond the end (the trace plays in a loop)."""
        return float(self.bandwidth_mbps[self._interval(time_s % self.end_s)])

    def rtt_at(self, time_s: float) -> float:
        """Round trip in ms at a time, which may lie beyond the end."""
        return self.rtt_ms if self.rtts_ms is None else float(self.rtts_ms[self._interval(time_s % self.end_s)])

    def with_rtt(self, rtt_ms: float) -> "Trace":
        """The same bandwidth with one round trip."""
        return replace(self, rtt_ms=rtt_ms, rtts_ms=None)

    def transfer_ms(self, size_bytes: float, start_s: float) -> float:
        """Time to carry `size_bytes` beginning at `start_s`: the bandwidth integrated exactly, looping if need be.

        The round trip is not in it. 0 bytes take 0 ms; an outage is waited out. O(log intervals).
        """
        if not (math.isfinite(size_bytes) and size_bytes >= 0 and math.isfinite(start_s)):
            raise DataError(f"transfer of {size_bytes} bytes at {start_s} s: both must be finite, the size at least 0")
        if size_bytes == 0:
            return 0.0
        start = start_s % self.end_s
        first = self._interval(start)
        total = float(self._carried_bytes[-1])
        target = float(self._carried_bytes[first] + self._rates[first] * (start - self.time_s[first])) + size_bytes
        loops, rest = divmod(target, total)
        if rest == 0:  # the last byte arrives within the loop before, not at the start of the next
            loops, rest = loops - 1, total
        # The first interval by whose end `rest` bytes are through: it carried some, so its rate is not 0.
        last = int(np.searchsorted(self._carried_bytes, rest, side="left")) - 1
        finish = float(self.time_s[last] + (rest - self._carried_bytes[last]) / self._rates[last])
        return max(0.0, ms_from_s(loops * self.end_s + finish - start))

    def transfers_ms(self, size_bytes: np.ndarray, start_s: np.ndarray) -> np.ndarray:
        """`transfer_ms` of many: sizes (bytes, at least 0) and starts (s), of shapes that broadcast to the result's."""
        size, start = np.broadcast_arrays(np.asarray(size_bytes, np.float64), np.asarray(start_s, np.float64))
        start = start % self.end_s
        total = float(self._carried_bytes[-1])
        first = np.searchsorted(self.time_s, start, side="right") - 1
        target = self._carried_bytes[first] + self._rates[first] * (start - self.time_s[first]) + size
        loops, rest = np.divmod(target, total)
        whole = rest == 0  # as above
        loops, rest = loops - whole, np.where(whole, total, rest)
        last = np.searchsorted(self._carried_bytes, rest, side="left") - 1
        # nothing sent may fall where nothing was carried: any rate will do, the answer is 0
        rate = np.where(self._rates[last] > 0, self._rates[last], 1.0)
        finish = self.time_s[last] + (rest - self._carried_bytes[last]) / rate
        took = np.maximum(0.0, ms_from_s(1.0) * (loops * self.end_s + finish - start))
        return np.where(size > 0, took, 0.0)

    def quantile(self, q: float) -> float:
        """Bandwidth in Mbit/s that the link stays at or under for a share `q` of the time, 0 <= q <= 1.

        Where the share is met exactly at the edge of two values, their mean (the median of 1 and 3 is 2).
        """
        if not 0 <= q <= 1:
            raise DataError(f"quantile is {q}: it must lie in 0..1")
        return quantile(self.bandwidth_mbps, self.durations_s, q)

    @property
    def mean_mbps(self) -> float:
        """Bandwidth averaged over time."""
        return mbps(float(self._carried_bytes[-1]), ms_from_s(self.end_s))

    @cached_property
    def durations_s(self) -> np.ndarray:
        """(intervals,): how long each value holds."""
        return np.diff(self.time_s, append=self.end_s)

    @cached_property
    def _rates(self) -> np.ndarray:
        """(intervals,): bytes per second."""
        return np.asarray(ms_from_s(1.0) * bytes_per_ms(1.0) * self.bandwidth_mbps)

    @cached_property
    def _carried_bytes(self) -> np.ndarray:
        """(intervals + 1,): bytes carried from 0 to the start of each interval, and to the end."""
        return np.concatenate([[0.0], np.cumsum(self._rates * self.durations_s)])

    def _interval(self, time_s: float) -> int:
        return int(np.searchsorted(self.time_s, time_s, side="right")) - 1


def quantile(values: np.ndarray, durations_s: np.ndarray, q: float) -> float:
    """What values that hold for so long, both (intervals,), are at or under for a share `q` of the time."""
    order = np.argsort(values, kind="stable")
    values, share = values[order], np.cumsum(durations_s[order]) / durations_s.sum()
    low = min(int(np.searchsorted(share, q - 1e-12, side="left")), len(values) - 1)
    high = min(int(np.searchsorted(share, q + 1e-12, side="right")), len(values) - 1)
    return float((values[low] + values[high]) / 2) if q > 0 else float(values[0])


def read_trace(path: str | Path, *, rtt_ms: float | None = None) -> Trace:
    """Read a trace from a CSV file, or from a mahimahi packet-delivery file.

    A CSV has the header `time_s,bandwidth_mbps` or `time_s,bandwidth_mbps,rtt_ms`. A round trip that is left empty is
    the one before (at the beginning, the first one there is).

    A CSV may begin with comments that `write_trace` writes: `# rtt_ms=40.0`, `# end_s=300.0`, `# name=..`,
    `# origin=..`. Without `end_s` the last value holds as long as the one before it (a single one: 1 s).
    A mahimahi file has an integer millisecond per line, each the delivery of a 1500-byte packet by its end, and starts
    again at its last one; packets are counted in bins of 100 ms, the last one as long as is left.
    `rtt_ms`: if None, the third column, else the comment, else that of the scene which the file's name starts with (up
    to `__`), else `DEFAULT_RTT_MS`.

    Raises
    ------
    DataError : the file cannot be read, or holds no usable trace; names the file and the line or row.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read trace {path}: {error.strerror or error}: check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"trace {path} is not text: pass a CSV or a mahimahi packet file") from error
    comments = {}
    body = 0
    while body < len(lines) and (not lines[body].strip() or lines[body].lstrip().startswith("#")):
        key, _, value = lines[body].strip().lstrip("#").partition("=")
        comments[key.strip()] = value.strip()
        body += 1
    rows = [(number, line.strip()) for number, line in enumerate(lines[body:], body + 1) if line.strip()]
    try:
        times, values, rtts, end_s = _parse(rows)
        given = comments.get("rtt_ms") if rtt_ms is None else rtt_ms
        scene_rtt = SCENE_RTT_MS.get(path.stem.split("__")[0], DEFAULT_RTT_MS)
        trace = Trace(
            name=comments.get("name", path.stem.strip()),
            time_s=np.array(times),
            bandwidth_mbps=np.array(values),
            end_s=_number(comments["end_s"], "comment end_s") if "end_s" in comments else end_s,
            rtt_ms=scene_rtt if given is None else _number(given, "rtt_ms"),
            origin=comments.get("origin", path.name.strip()),
        )
        return trace if rtts is None or rtt_ms is not None else with_rtts(trace, held(rtts))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace as CSV, whole or not at all; `read_trace` gives the same numbers back, bit for bit."""
    rtts = None if trace.rtts_ms is None else trace.rtts_ms.tolist()
    columns = [trace.time_s.tolist(), trace.bandwidth_mbps.tolist(), *([] if rtts is None else [rtts])]
    head = {"name": trace.name, "origin": trace.origin, "rtt_ms": repr(trace.rtt_ms), "end_s": repr(trace.end_s)}
    lines = [f"# {key}={value}" for key, value in head.items()] + [",".join(_COLUMNS[: len(columns)])]
    lines += [",".join(map(repr, row)) for row in zip(*columns, strict=True)]
    write_text(Path(path), "\n".join(lines) + "\n")


def with_rtts(trace: Trace, rtts_ms: np.ndarray) -> Trace:
    """The same bandwidth with a round trip, (intervals,) in ms, that changes as well."""
    if rtts_ms.shape != trace.time_s.shape:
        raise DataError(f"a trace of {trace.time_s.size} intervals has {rtts_ms.size} round trips: give as many")
    middle = quantile(rtts_ms, trace.durations_s, 0.5) if np.isfinite(rtts_ms).all() else math.nan
    return replace(trace, rtt_ms=middle, rtts_ms=rtts_ms)


def held(rtts_ms: Sequence[float]) -> np.ndarray:
    """(intervals,) in ms of as many, one at least not NaN: where nothing was given (NaN) the one before holds, at the
    beginning the first."""
    values = np.array(rtts_ms, dtype=np.float64)
    given = np.flatnonzero(~np.isnan(values))
    places = np.searchsorted(given, np.arange(values.size), side="right") - 1
    return np.asarray(values[given[np.maximum(places, 0)]])


def _check(trace: Trace) -> None:
    """Refuse what cannot be played; rows are counted from 1, without the header."""
    time_s, rates, n = trace.time_s, trace.bandwidth_mbps, trace.time_s.size
    if time_s.ndim != 1 or time_s.shape != rates.shape or n == 0:
        raise DataError(f"a trace has {n} times and {rates.size} bandwidths: give as many of each, at least one")
    _refuse(~(np.isfinite(time_s) & np.isfinite(rates)), "is not finite: replace or drop it")
    _refuse(rates < 0, "has a negative bandwidth: it must be 0 or more")
    _refuse(np.diff(time_s, prepend=-1.0) <= 0, "does not come after the row before: times must rise strictly")
    if time_s[0] != 0:
        raise DataError(f"a trace starts at {time_s[0]} s: the first time must be 0, subtract it from all")
    if not (math.isfinite(trace.end_s) and trace.end_s > time_s[-1]):
        raise DataError(f"a trace ends at {trace.end_s} s: it must end after its last time, {time_s[-1]} s")
    if trace.rtts_ms is not None:
        if trace.rtts_ms.shape != time_s.shape:
            raise DataError(f"a trace of {n} intervals has {trace.rtts_ms.size} round trips: give as many, or none")
        _refuse(~(np.isfinite(trace.rtts_ms) & (trace.rtts_ms >= 0)), "has a round trip that is not 0 or more, finite")
    if not (math.isfinite(trace.rtt_ms) and trace.rtt_ms >= 0):
        raise DataError(f"rtt_ms is {trace.rtt_ms}: it must be finite and at least 0")
    with np.errstate(over="ignore"):
        finite = math.isfinite(trace.mean_mbps)
    if not finite:
        raise DataError(f"the mean bandwidth is not finite: {float(rates.max()):g} Mbit/s is no link's, mend the trace")
    if not rates.any():
        raise DataError("bandwidth is 0 in every row: no transfer would ever end; use a longer trace")


def _refuse(bad: np.ndarray, why: str) -> None:
    if bad.any():
        raise DataError(f"row {int(np.argmax(bad)) + 1} {why}")


_COLUMNS = ("time_s", "bandwidth_mbps", "rtt_ms")


def _parse(rows: list[tuple[int, str]]) -> tuple[Iterable[float], Iterable[float], list[float] | None, float]:
    """Times in s, bandwidths in Mbit/s, round trips in ms (NaN where empty; None without any) and the end in s.

    CSV or packets, by the look of the first line.
    """
    if not rows:
        raise DataError("the file holds no rows: a trace needs at least one")
    if rows[0][1].isdecimal():
        return _parse_packets(rows)
    width = len(rows[0][1].split(","))
    if width < 2 or tuple(cell.strip() for cell in rows[0][1].split(",")) != _COLUMNS[:width]:
        shown = json.dumps(rows[0][1][:60])
        raise DataError(
            f"line {rows[0][0]} is {shown}: it must be time_s,bandwidth_mbps, with or without ,rtt_ms (or a packet's "
            "millisecond)"
        )
    times, values, rtts = [], [], []
    for number, line in rows[1:]:
        cells = line.split(",")
        if len(cells) != width:
            named = ",".join(_COLUMNS[:width])
            raise DataError(f"line {number} has {len(cells)} columns: it must have {width}, {named}")
        times.append(_number(cells[0], f"line {number}, time_s"))
        values.append(_number(cells[1], f"line {number}, bandwidth_mbps"))
        empty = width == 2 or not cells[2].strip()
        rtts.append(math.nan if empty else _round_trip(cells[2], f"line {number}, rtt_ms"))
    known = None if np.isnan(rtts).all() else rtts
    if len(times) < 2:
        return times, values, known, sum(times) + 1.0
    return times, values, known, times[-1] + (times[-1] - times[-2])


def _round_trip(text: str, what: str) -> float:
    """A round trip in ms; one that is not a number would be taken for one that was left empty."""
    value = _number(text, what)
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{what} is {text!r}: it must be finite and at least 0, or empty where none was measured")
    return value


def _parse_packets(rows: list[tuple[int, str]]) -> tuple[Iterable[float], Iterable[float], None, float]:
    previous, stamps = 0, []
    for number, line in rows:
        stamp = int(line) if line.isdecimal() and len(line) <= 12 else -1
        if not previous <= stamp <= MAX_PACKET_MS:
            raise DataError(
                f"line {number} is {line[:60]!r}: a packet file has whole milliseconds that never fall, "
                f"{previous}..{MAX_PACKET_MS} here"
            )
        stamps.append(stamp)
        previous = stamp
    period = stamps[-1]
    if period == 0:
        raise DataError(
            "all packets are at 0 ms, so that the file has no length: its last millisecond must be 1 at least"
        )
    millisecond = (np.array(stamps) - 1) % period  # a packet at 0 is one at the end of the loop before
    edges_ms = np.append(np.arange(0, period, BIN_MS), period)
    packets = np.bincount(millisecond // BIN_MS, minlength=len(edges_ms) - 1)
    rates = mbps(PACKET_BYTES, 1.0) * packets / np.diff(edges_ms)
    return edges_ms[:-1] / ms_from_s(1.0), rates, None, period / ms_from_s(1.0)


def _number(text: str | float, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{what} is {text!r}: it must be a number") from error
