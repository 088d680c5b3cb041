"""One direction of a shaped link, which all its connections share: a queue, the trace's rate, then the delay.

No bucket of saved-up rate: a packet that enters an idle link takes its bytes' time, as on the trace. Times are
computed, not counted off, so that a late wake-up delays one packet and shifts none.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from modeltree.units import s_from_ms
from runtime.link.shape import Faults, Shape

LONGEST_SLEEP_S = 60.0


class Receiver(Protocol):
    """What a packet is for: one end of a connection."""

    def passed(self, size_bytes: int) -> None:
        """The packet has left the queue, so that more may be read."""

    def deliver(self, data: bytes) -> None:
        """The packet is here; b"" is the end of the stream."""


class Packet(NamedTuple):
    """Some bytes under way. earliest_s : when the first of them could enter the link."""

    earliest_s: float
    receiver: Receiver
    data: bytes


class Pipe:
    """Carries packets in order. Lives on one event loop; `now_s` is the link's clock, which may be set back to 0."""

    def __init__(self, shape: Shape, loop: asyncio.AbstractEventLoop, now_s: Callable[[], float]) -> None:
        self._shape, self._loop, self._now_s = shape, loop, now_s
        self._faults = Faults()
        self._queue: deque[Packet] = deque()
        self._line: deque[tuple[float, Packet]] = deque()  # (when it arrives, what)
        self._free_s = 0.0
        self._through_s: float | None = None  # when the head of the queue is through
        self._timer: asyncio.TimerHandle | None = None
        self.carried_bytes = 0

    def push(self, packet: Packet) -> None:
        """Put a packet behind the others."""
        self._queue.append(packet)
        if len(self._queue) == 1:
            self.turn()

    def change(self, faults: Faults) -> None:
        """From now on the link is like this; the packet half-way through begins anew."""
        if faults.rate_mbps != self._faults.rate_mbps:
            self._free_s, self._through_s = self._now_s(), None
        self._faults = faults
        self.turn()

    def clear(self) -> set[Receiver]:
        """Lose all that is under way; returns who would have had it."""
        packets = [*self._queue, *(packet for _, packet in self._line)]
        for packet in self._queue:
            packet.receiver.passed(len(packet.data))
        self._queue.clear()
        self._line.clear()
        self._through_s = None
        return {packet.receiver for packet in packets}

    def stop(self) -> None:
        """Carry nothing more."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()

    def rewind(self) -> None:
        """The clock was set back to 0: what is under way begins anew."""
        self._free_s, self._through_s = 0.0, None
        self._queue = deque(packet._replace(earliest_s=0.0) for packet in self._queue)
        self._line = deque((0.0, packet) for _, packet in self._line)
        self.turn()

    def turn(self) -> None:
        """Do all that is due, and come back when more is."""
        now_s = self._now_s()
        while self._queue and self._head_through_s() <= now_s:
            self._pass()
        while self._line and self._line[0][0] <= now_s:
            _, packet = self._line.popleft()
            self.carried_bytes += len(packet.data)
            packet.receiver.deliver(packet.data)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min(self._head_through_s() if self._queue else math.inf, self._line[0][0] if self._line else math.inf)
        if due < math.inf:
            self._timer = self._loop.call_later(min(LONGEST_SLEEP_S, max(0.0, due - self._now_s())), self.turn)

    def _head_through_s(self) -> float:
        if self._through_s is None:
            packet = self._queue[0]
            self._through_s = self._shape.through_s(
                len(packet.data), max(packet.earliest_s, self._free_s), self._faults
            )
        return self._through_s

    def _pass(self) -> None:
        """The head of the queue is through the narrow part: it has only the delay before it."""
        self._free_s, self._through_s = self._head_through_s(), None
        packet = self._queue.popleft()
        arrives_s = self._free_s + self._shape.one_way_s(self._free_s) + s_from_ms(self._faults.extra_ms)
        if self._line:
            arrives_s = max(arrives_s, self._line[-1][0])
        self._line.append((arrives_s, packet))
        packet.receiver.passed(len(packet.data))
