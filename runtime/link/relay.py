"""A TCP relay that is as slow as a trace says, and as broken as one likes. Needs no rights.

All connections share the link, as they do a radio's. It works on TCP's bytes, not on packets of the network, so there
is no loss and no slow start; a new connection costs a round trip, as its handshake would.
"""

import asyncio
import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, cast

import numpy as np

from modeltree.errors import ConfigError
from runtime.link.pipe import Packet, Pipe
from runtime.link.shape import Faults, Shape

T = TypeVar("T")
_LOOP_S = 30.0
"""The loop answers in milliseconds; after so long it is stuck."""

SEGMENT_BYTES = 1448
"""Bytes that move as one, as much as a packet holds."""

MOST_QUEUED_BYTES = 65_536
"""Bytes of one connection and direction that wait here; above it nothing is read, so that the sender feels the link."""


class Relay:
    """Listens on this machine, forwards to `target`, and lets bytes through as `up` and `down` say.

    Runs an event loop in a thread of its own between `start` and `close`, or as a context manager. Every method may be
    called from any thread and is in force when it returns. The trace's clock starts with `start`.

    Parameters
    ----------
    target : (host, port) of the server.
    up : the link from the device to the server. down : the way back; None: like `up`.
    port : to listen on, on 127.0.0.1; 0: any free one, `address` says which.
    seed : for the bits that `Faults.corrupt_share` flips.
    """

    def __init__(
        self, target: tuple[str, int], *, up: Shape, down: Shape | None = None, port: int = 0, seed: int = 0
    ) -> None:
        self._target, self._port = target, port
        self._rng = np.random.default_rng(seed)
        # select() sleeps to the microsecond, epoll (asyncio's choice) to the millisecond; it holds up to 1000 sockets.
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._began_s = self._loop.time()
        self._up = Pipe(up, self._loop, self.now_s)
        self._down = Pipe(down or up, self._loop, self.now_s)
        self._ways = (up, down or up)
        self._faults = Faults()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self.connections_seen = 0

    def start(self) -> "Relay":
        """Listen.

        Raises
        ------
        ConfigError : the port is taken.
        """
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MOST_QUEUED_BYTES)
            listening.bind(("127.0.0.1", self._port))
        except OSError as error:
            listening.close()
            self._loop.close()
            raise ConfigError(f"cannot listen on port {self._port}: {error.strerror}: pass 0 for a free one") from error
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        listen = self._loop.create_server(lambda: Connection(self).device, sock=listening)
        self._server = asyncio.run_coroutine_threadsafe(listen, self._loop).result(_LOOP_S)
        self.rewind()
        return self

    def close(self) -> None:
        """Cut everything and stop listening. Once is enough, twice does no harm."""
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(_LOOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LOOP_S)
        self._thread = None
        self._loop.close()

    def __enter__(self) -> "Relay":
        return self if self._thread is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on."""
        if self._server is None:
            raise ConfigError("the relay does not listen yet: start it, or use it in a with statement")
        return cast(tuple[str, int], self._server.sockets[0].getsockname()[:2])

    @property
    def carried_bytes(self) -> tuple[int, int]:
        """Bytes delivered to the server and to the device so far."""
        return self._up.carried_bytes, self._down.carried_bytes

    def now_s(self) -> float:
        """Seconds since the start, or since `rewind`: the time on the trace, less the shape's offset."""
        return self._loop.time() - self._began_s

    def rewind(self) -> None:
        """Start the trace again, now."""
        self._call(self._rewind)

    def fault(self, faults: Faults) -> None:
        """From now on the link is broken like this (and in no other way), until the next call."""
        self._call(lambda: self._change(faults))

    def heal(self) -> None:
        """Nothing is wrong with the link any more."""
        self.fault(Faults())

    def cut(self) -> None:
        """Reset every open connection, both ways; new ones are served."""
        self._call(self._cut)

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function on the loop and wait for it."""
        if self._thread is None:
            raise ConfigError("the relay is not running: start it, or use it in a with statement")

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_LOOP_S)

    def _rtt_s(self) -> float:
        """The round trip now."""
        now_s = self.now_s()
        return sum(way.one_way_s(now_s) for way in self._ways)

    def _rewind(self) -> None:
        back_s = self.now_s()
        self._began_s = self._loop.time()
        for connection in self._connections:
            connection.ready_s = max(0.0, connection.ready_s - back_s)
        for pipe in (self._up, self._down):
            pipe.rewind()

    def _change(self, faults: Faults) -> None:
        was, self._faults = self._faults, faults
        if faults.black_hole:
            for end in self._up.clear() | self._down.clear():
                cast(End, end).connection.holed = True
        elif was.black_hole:
            for connection in [one for one in self._connections if one.holed]:
                connection.reset()
        for connection in list(self._connections):
            connection.allow(faults.truncate_bytes)
        for pipe in (self._up, self._down):
            pipe.change(faults)

    async def _shut(self) -> None:
        self._closing = True
        if self._server is not None:  # accept no more, but let what is being accepted finish: a closed server leaks it
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        await asyncio.sleep(0)  # transports close their sockets a turn after they are aborted
        for pipe in (self._up, self._down):
            pipe.stop()

    def _cut(self) -> None:
        for connection in list(self._connections):
            connection.reset()


class Connection:
    """A device's connection and the one to the server that belongs to it."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.device, self.server = End(self, relay._down), End(self, relay._up)
        self.holed = relay._faults.black_hole
        self.ready_s = 0.0
        self._dialling: asyncio.Task[None] | None = None
        self.allow(relay._faults.truncate_bytes)

    def opened(self) -> None:
        """The device is here: go to the server, unless nothing gets there."""
        self.relay._connections.add(self)
        self.relay.connections_seen += 1
        self.ready_s = self.relay.now_s() + self.relay._rtt_s()
        if self.relay._closing:  # accepted in the same moment
            self.reset()
        elif not self.relay._faults.black_hole:
            self._dialling = self.relay._loop.create_task(self._dial())

    def allow(self, size_bytes: int | None) -> None:
        """Carry so many more bytes each way."""
        self.device.left_bytes = self.server.left_bytes = size_bytes

    def other(self, end: "End") -> "End":
        """The opposite end."""
        return self.server if end is self.device else self.device

    def ended(self) -> None:
        """Close both once both streams have ended."""
        if self.device.finished and self.server.finished:
            for end in (self.device, self.server):
                end.close()

    def reset(self) -> None:
        """End both at once, so that both peers see a reset."""
        self.relay._connections.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        for end in (self.device, self.server):
            end.reset()

    async def _dial(self) -> None:
        try:
            await self.relay._loop.create_connection(lambda: self.server, *self.relay._target)
        except OSError:  # the device sees what it would see without us: a connection that breaks
            self.reset()


class End(asyncio.Protocol):
    """One end of a connection: what it sends goes into the link, what the link delivers to it goes out.

    left_bytes : how many more it may be given; None: no limit. finished : it was given the end of the stream.
    """

    def __init__(self, connection: Connection, toward: Pipe) -> None:
        self.connection, self._toward = connection, toward  # the pipe whose packets arrive here
        self.left_bytes: int | None = None
        self.finished = False
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []  # delivered before the server answered the call
        self._queued_bytes = 0
        self._full = self._peer_full = self._reset = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._reset:
            self.reset()
            return
        raw = cast(socket.socket, transport.get_extra_info("socket"))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(MOST_QUEUED_BYTES)
        if self is self.connection.device:
            self.connection.opened()
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._write(data)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection.relay._faults.black_hole:
            connection.holed = True
        elif not connection.holed:
            receiver, earliest_s = connection.other(self), max(connection.relay.now_s(), connection.ready_s)
            self._queued_bytes += len(data)
            for at in range(0, len(data), SEGMENT_BYTES):
                receiver._toward.push(Packet(earliest_s, receiver, data[at : at + SEGMENT_BYTES]))
            self._read_or_wait()

    def eof_received(self) -> bool:
        connection = self.connection
        if not (connection.relay._faults.black_hole or connection.holed):
            receiver = connection.other(self)
            receiver._toward.push(Packet(connection.relay.now_s(), receiver, b""))
        elif connection.other(self)._transport is None:  # lost in the hole, and nobody is left to notice when it ends
            connection.reset()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not (self.finished and self.connection.other(self).finished):
            self.connection.reset()
        self.connection.relay._connections.discard(self.connection)

    def pause_writing(self) -> None:
        self.connection.other(self)._peer_full = True
        self.connection.other(self)._read_or_wait()

    def resume_writing(self) -> None:
        self.connection.other(self)._peer_full = False
        self.connection.other(self)._read_or_wait()

    def passed(self, size_bytes: int) -> None:
        """A packet for us is through: who sent it may send more."""
        sender = self.connection.other(self)
        sender._queued_bytes -= size_bytes
        sender._read_or_wait()

    def deliver(self, data: bytes) -> None:
        """Give the peer what the link has carried, spoilt as the faults say."""
        if self._reset or self.finished:
            return
        faults, rng = self.connection.relay._faults, self.connection.relay._rng
        if data and faults.corrupt_share and rng.random() < faults.corrupt_share:
            spoilt = bytearray(data)
            spoilt[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            data = bytes(spoilt)
        if data and self.left_bytes is not None:
            data = data[: self.left_bytes]
            self.left_bytes -= len(data)
            if data:
                self._give(data)
            if self.left_bytes == 0:
                self._give(b"")
            return
        self._give(data)

    def close(self) -> None:
        """Let what was written go out, then close."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close at once, with a reset instead of an end."""
        self._reset = True
        if self._transport is not None:  # one that closes may still wait for a peer that does not read
            raw = cast(socket.socket, self._transport.get_extra_info("socket"))
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _give(self, data: bytes) -> None:
        if self._transport is None:
            self._waiting.append(data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
            return
        self.finished = True
        with contextlib.suppress(OSError):  # the peer has reset the connection, and we are yet to hear of it
            self._transport.write_eof()
        self.connection.ended()

    def _read_or_wait(self) -> None:
        """Read on, or leave what the peer sends in its own buffers."""
        full = self._peer_full or self._queued_bytes > (MOST_QUEUED_BYTES // 2 if self._full else MOST_QUEUED_BYTES)
        if full != self._full and self._transport is not None and not self._transport.is_closing():
            self._full = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
