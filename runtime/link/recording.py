"""A trace of a real link: small messages measure the round trip, larger ones the bandwidth of each interval.

Every interval begins with a small message. If it is late by half an interval, nothing got through meanwhile: an outage,
exactly as long. Then come bytes that should take `SHARE` of the interval at the last bandwidth, and the bandwidth now
is theirs over the time that they alone took. A value holds until the next, so that a probe which a link grown slow
draws out counts for as long as it took. What is shorter than a probe is averaged.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.link.traces import Trace, held, with_rtts
from modeltree.units import bytes_per_ms, mbps, ms_from_s, s_from_ms
from runtime.bandwidth import Reading, RoundTrip
from runtime.wire.transports.interface import BusyError, Exchange, TimedOut, Transport, Unreachable

SHARE = 0.4
"""Of an interval, what a probe's bytes should take."""

LEAST_SHARE = 0.1
"""Of an interval. Bytes that took less were too few, since the round trip's jitter drowns them: more are sent."""

LATE_SHARE = 0.5
"""Of an interval. A small message that is so late met an outage."""

PING_BYTES = 64
LEAST_BYTES, MOST_BYTES = 3_000, 8_000_000
"""Of a probe: less would measure nothing but the round trip, more is refused by servers."""

BYTES_PER_MB = 1e6
_TRIES = 3
_WARM_UP_TRIES = 8
_GROWTH = 8
"""A probe has at most so many times the bytes of the one before: a bandwidth from few bytes may be far too high."""


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """How to record.

    seconds : for how long. every_ms : from one value to the next. most_mb : 10**6 bytes that may be sent in all; probes
    get smaller so that they last. timeout_s : what takes longer is given up, and the link was out.
    """

    seconds: float = 60.0
    every_ms: float = 500.0
    most_mb: float = 100.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("seconds", "every_ms", "most_mb", "timeout_s"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")
        if ms_from_s(self.seconds) < self.every_ms:
            raise ConfigError(
                f"seconds is {self.seconds:g} and every_ms {self.every_ms:g}: record one interval at least"
            )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the link did from `start_s` on, until the next one's start, or `end_s` if it is the last.

    rtt_ms : of the small message; None if it met an outage. sent_bytes : in all up to now.
    """

    start_s: float
    end_s: float
    mbps: float
    rtt_ms: float | None
    sent_bytes: int


def record(
    transport: Transport, config: RecordConfig, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Measured]:
    """Measure a link interval by interval, until the time is over or the bytes are spent.

    The first messages, from which the size of a probe is learnt, come before time 0.

    Parameters
    ----------
    clock : seconds. sleep : waits for so many.

    Raises
    ------
    TransportError : the server does not answer at the start, or says no later. A link that breaks is no error.
    """
    return _Recorder(transport, config, clock, sleep).run()


def trace_of(measured: Sequence[Measured], *, name: str, origin: str) -> Trace:
    """What was measured as a trace; the round trip of each interval is that of its small message.

    One whose message met an outage has the round trip before it.

    Raises
    ------
    DataError : nothing was measured, or the link was out all the time.
    """
    if not measured:
        raise DataError("nothing was recorded: give it more seconds and more bytes")
    round_trips = [one.rtt_ms for one in measured if one.rtt_ms is not None]
    if not round_trips or not any(one.mbps for one in measured):
        raise DataError(f"the link carried nothing in all {len(measured)} intervals: record where it does")
    trace = Trace(
        name=name, origin=origin, time_s=np.array([one.start_s for one in measured]),
        bandwidth_mbps=np.array([one.mbps for one in measured]), end_s=measured[-1].end_s, rtt_ms=round_trips[0],
    )  # fmt: skip
    return with_rtts(trace, held([math.nan if one.rtt_ms is None else one.rtt_ms for one in measured]))


class _Recorder:
    """A recording under way: the round trip and the bandwidth of late, and what was spent."""

    def __init__(
        self, transport: Transport, config: RecordConfig, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._transport, self._config, self._clock, self._sleep = transport, config, clock, sleep
        self._every_s = s_from_ms(config.every_ms)
        self._most_bytes = int(config.most_mb * BYTES_PER_MB)
        self._round_trip = RoundTrip(initial_ms=0.0)
        self._ping_bytes = PING_BYTES
        self._mbps = 0.0
        self._sent_bytes = 0
        self._began_s = 0.0

    def run(self) -> Iterator[Measured]:
        self._warm_up()
        self._began_s, start_s = self._clock(), 0.0
        while start_s < self._config.seconds and self._sent_bytes + LEAST_BYTES <= self._most_bytes:
            with contextlib.suppress(BusyError):  # that is the server, not the link: the value before holds on
                yield from self._interval(start_s)
            self._sleep(max(0.0, start_s + self._every_s - self._now_s()))
            start_s = self._now_s()

    def _warm_up(self) -> None:
        """Connect, and grow the probe until its bytes take long enough to be timed."""
        self._transport.ready(self._config.timeout_s)
        size = LEAST_BYTES
        for _ in range(_WARM_UP_TRIES):
            self._heard_ping(self._transport.probe(PING_BYTES, self._config.timeout_s))
            exchange = self._transport.probe(size, self._config.timeout_s)
            self._sent_bytes += exchange.sent_bytes
            carry_s = self._carry_s(exchange)
            self._mbps = self._mbps_of(exchange, carry_s)
            if carry_s >= LEAST_SHARE * self._every_s or self._sent_bytes > self._most_bytes * LEAST_SHARE:
                return
            size = min(MOST_BYTES, size * _GROWTH // 2)

    def _interval(self, start_s: float) -> Iterator[Measured]:
        ping, over_s = self._sent(PING_BYTES), start_s + self._every_s
        if ping is None:
            yield self._measured(start_s, over_s, 0.0, None)
            return
        rtt_s, usual_s = _link_s(ping), self._round_trip.seconds
        self._heard_ping(ping)  # a late one, too: it might be the usual round trip from now on
        if rtt_s - usual_s > LATE_SHARE * self._every_s:
            carries_s = self._now_s()
            yield self._measured(start_s, carries_s, 0.0, None)
            yield self._measured(carries_s, over_s, self._bandwidth_mbps(), None)
            return
        yield self._measured(start_s, over_s, self._bandwidth_mbps(), ms_from_s(rtt_s))

    def _bandwidth_mbps(self) -> float:
        """Of bytes that take long enough to be timed; 0 if they do not get through."""
        until_s = self._now_s() + SHARE * self._every_s
        size = self._size_bytes(MOST_BYTES)
        for _ in range(_TRIES):
            exchange = self._sent(size)
            if exchange is None:
                self._mbps /= _GROWTH
                return 0.0
            carry_s = self._carry_s(exchange)
            self._mbps = self._mbps_of(exchange, carry_s)
            if carry_s >= LEAST_SHARE * self._every_s or self._now_s() >= until_s:
                break
            if (more := self._size_bytes(size * _GROWTH)) <= size:
                break
            size = more
        return self._mbps

    def _size_bytes(self, most_bytes: int) -> int:
        """Of the next probe: its share of the interval, but no more than makes the bytes last."""
        left = max(1.0, (self._config.seconds - self._now_s()) / self._every_s)
        affordable = int((self._most_bytes - self._sent_bytes) / left)
        fitting = int(SHARE * ms_from_s(self._every_s) * bytes_per_ms(self._mbps))
        return max(LEAST_BYTES, min(most_bytes, MOST_BYTES, fitting, affordable))

    def _sent(self, size_bytes: int) -> Exchange | None:
        """A probe; None if the link did not bring it there and the answer back."""
        try:
            exchange = self._transport.probe(size_bytes, self._config.timeout_s)
        except (TimedOut, Unreachable):
            self._sent_bytes += size_bytes
            return None
        self._sent_bytes += exchange.sent_bytes
        return exchange

    def _heard_ping(self, ping: Exchange) -> None:
        self._ping_bytes = ping.sent_bytes
        self._round_trip.add(Reading(time_s=self._clock(), size_bytes=ping.sent_bytes, seconds=_link_s(ping)))

    def _carry_s(self, exchange: Exchange) -> float:
        """What the bytes alone took, those of a small message left out: its own are in the round trip."""
        seconds = _link_s(exchange)
        return max(seconds - self._round_trip.taken_from(seconds), self._round_trip.jitter_s)

    def _mbps_of(self, exchange: Exchange, carry_s: float) -> float:
        return mbps(max(1, exchange.sent_bytes - self._ping_bytes), ms_from_s(carry_s))

    def _measured(self, start_s: float, over_s: float, rate_mbps: float, rtt_ms: float | None) -> Measured:
        """over_s : when it ends, unless it lasted longer."""
        end_s = max(self._now_s(), over_s)
        return Measured(start_s=start_s, end_s=end_s, mbps=rate_mbps, rtt_ms=rtt_ms, sent_bytes=self._sent_bytes)

    def _now_s(self) -> float:
        return self._clock() - self._began_s


def _link_s(exchange: Exchange) -> float:
    """Seconds that the link took, the server's own left out."""
    return max(0.0, exchange.seconds - exchange.server_s)
