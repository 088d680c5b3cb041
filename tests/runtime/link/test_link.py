"""The relay carries every byte in order at about the trace's rate, breaks as told, and leaves nothing behind."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from runtime.link import Faults, Relay, Shape
from runtime.link.pipe import Packet, Pipe

PAYLOAD = np.random.default_rng(0).bytes(60_000)


def trace_of(bandwidth_mbps, *, interval_s=1.0, rtt_ms=0.0):
    n = len(bandwidth_mbps)
    return Trace(
        name="t", time_s=np.arange(n) * interval_s, bandwidth_mbps=np.array(bandwidth_mbps), end_s=n * interval_s,
        rtt_ms=rtt_ms, origin="test",
    )  # fmt: skip


def shape_of(bandwidth_mbps, **rest):
    return Shape(trace=trace_of(bandwidth_mbps, **rest))


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self.got, self.resets = bytearray(), 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listening.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with peer:
            try:
                while data := peer.recv(65536):
                    self.got += data
                    peer.sendall(data)
            except OSError:
                self.resets += 1

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


def dial(relay):
    device = socket.create_connection(relay.address, timeout=20)
    device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return device


def receive(device, count):
    got = bytearray()
    while len(got) < count and (data := device.recv(count - len(got))):
        got += data
    return bytes(got)


def first_byte(relay):
    with dial(relay) as device:
        return device.recv(1)


def send_until_blocked(device):
    device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    device.settimeout(0.5)
    taken = 0
    with contextlib.suppress(TimeoutError):
        while taken < 1 << 26:
            taken += device.send(bytes(65_536))
    return taken


def until(condition):
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_reset(device):
    try:
        receive(device, 1 << 30)
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("rtt_ms", [0.0, 20.0])
def test_every_byte_comes_through_in_order_both_ways(echo, rtt_ms):
    with Relay(echo.address, up=shape_of([50.0], rtt_ms=rtt_ms)) as relay, dial(relay) as device:
        device.sendall(PAYLOAD)
        assert receive(device, len(PAYLOAD)) == PAYLOAD
        assert relay.carried_bytes == (len(PAYLOAD), len(PAYLOAD))


def test_an_end_of_stream_crosses_and_the_answer_still_comes(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay, dial(relay) as device:
        device.sendall(PAYLOAD)
        device.shutdown(socket.SHUT_WR)
        assert receive(device, 1 << 30) == PAYLOAD  # up to the server's own end


def test_bytes_take_at_least_the_time_of_the_trace_and_the_round_trip(echo):
    with Relay(echo.address, up=shape_of([4.0], rtt_ms=100.0), down=shape_of([100.0], rtt_ms=100.0)) as relay:
        began = time.monotonic()
        with dial(relay) as device:
            device.sendall(PAYLOAD)
            receive(device, len(PAYLOAD))
        took_s = time.monotonic() - began
    assert 0.12 + 0.1 + 0.1 <= took_s < 2.0  # 60 kB at 4 Mbit/s, the handshake, the round trip


def test_the_rate_is_the_traces_within_a_factor_of_two(echo):
    with Relay(echo.address, up=shape_of([8.0]), down=shape_of([1000.0])) as relay, dial(relay) as device:
        began = time.monotonic()
        device.sendall(PAYLOAD * 8)
        receive(device, len(PAYLOAD) * 8)
        mbps = len(PAYLOAD) * 8 * 8e-6 / (time.monotonic() - began)
    assert 4 < mbps <= 8.1


def test_connections_share_the_link(echo):
    with Relay(echo.address, up=shape_of([8.0]), down=shape_of([1000.0])) as relay:
        with dial(relay) as one, dial(relay) as other:
            began = time.monotonic()
            one.sendall(PAYLOAD * 2)
            other.sendall(PAYLOAD * 2)
            receive(one, len(PAYLOAD) * 2)
            receive(other, len(PAYLOAD) * 2)
            assert time.monotonic() - began > 0.23  # 240 kB at 8 Mbit/s
        assert relay.connections_seen == 2


def test_a_sender_feels_a_slow_link():
    with socket.create_server(("127.0.0.1", 0)) as server, Relay(server.getsockname(), up=shape_of([0.1])) as relay:
        with dial(relay) as device:
            taken = send_until_blocked(device)
        assert taken < 2_000_000  # 64 kB here, the rest in the kernel's buffers


def test_a_receiver_that_does_not_read_stops_the_sender():
    with socket.create_server(("127.0.0.1", 0)) as server, Relay(server.getsockname(), up=shape_of([5000.0])) as relay:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        with dial(relay) as device:
            assert send_until_blocked(device) < 1 << 26


def test_rate_zero_holds_bytes_back_and_lets_them_go_on(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay, dial(relay) as device:
        relay.fault(Faults(rate_mbps=0))
        device.sendall(PAYLOAD)
        device.settimeout(0.2)
        with pytest.raises(TimeoutError):
            device.recv(1)
        assert not echo.got
        relay.heal()
        device.settimeout(20)
        assert receive(device, len(PAYLOAD)) == PAYLOAD


def test_a_black_hole_swallows_and_resets_what_lost_bytes_when_it_ends(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay, dial(relay) as old, dial(relay) as idle:
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        idle.sendall(b"b")
        assert receive(idle, 1) == b"b"
        relay.fault(Faults(black_hole=True))
        with dial(relay) as young:  # accepted all the same
            old.sendall(PAYLOAD)
            young.sendall(PAYLOAD)
            old.settimeout(0.2)
            with pytest.raises(TimeoutError):
                old.recv(1)
            assert echo.got == b"ab"
            assert until(lambda: sum(c.device._queued_bytes for c in relay._connections) == 0)
            relay.heal()
            old.settimeout(20)
            assert is_reset(old)
            assert is_reset(young)
        idle.sendall(b"c")
        assert receive(idle, 1) == b"c"


def test_cut_resets_both_sides_and_new_connections_are_served(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay:
        with dial(relay) as device:
            device.sendall(b"a")
            receive(device, 1)
            relay.cut()
            assert is_reset(device)
        assert until(lambda: echo.resets == 1)
        with dial(relay) as device:
            device.sendall(b"b")
            assert receive(device, 1) == b"b"


def test_corruption_flips_one_bit_a_packet_and_is_seeded(echo):
    def through(seed):
        with Relay(echo.address, up=shape_of([50.0]), seed=seed) as relay, dial(relay) as device:
            relay.fault(Faults(corrupt_share=1.0))
            device.sendall(bytes(1000))
            return receive(device, 1000)

    first = through(1)
    assert sum(byte.bit_count() for byte in first) in (1, 2)  # once each way; both may meet in a byte
    assert first == through(1) != through(2)


def test_truncation_ends_the_stream_after_so_many_bytes(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay, dial(relay) as device:
        device.sendall(b"whole")
        assert receive(device, 5) == b"whole"
        relay.fault(Faults(truncate_bytes=3))
        device.sendall(b"broken")
        assert receive(device, 100) == b"bro"
        relay.heal()
        with dial(relay) as another:
            another.sendall(b"whole")
            assert receive(another, 5) == b"whole"


def test_extra_delay_comes_on_top(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay, dial(relay) as device:
        relay.fault(Faults(extra_ms=100))
        began = time.monotonic()
        device.sendall(b"a")
        receive(device, 1)
        assert time.monotonic() - began >= 0.2


def test_a_dead_target_looks_like_a_connection_that_breaks():
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    with Relay(nobody, up=shape_of([50.0])) as relay, pytest.raises(ConnectionResetError):
        first_byte(relay)


def test_a_device_that_breaks_resets_the_server(echo):
    with Relay(echo.address, up=shape_of([50.0])) as relay:
        device = dial(relay)
        device.sendall(b"a")
        receive(device, 1)
        device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        device.close()
        assert until(lambda: echo.resets == 1)
        assert until(lambda: not relay._connections)


def test_closing_leaves_no_thread_and_no_port(echo):
    relay = Relay(echo.address, up=shape_of([50.0])).start()
    address = relay.address
    with dial(relay):
        relay.close()
        relay.close()
    assert not any(thread.name == "relay" for thread in threading.enumerate())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=1)
    with pytest.raises(ConfigError, match="not running"):
        relay.heal()


def test_a_taken_port_is_a_config_error(echo):
    with pytest.raises(ConfigError, match="cannot listen"):
        Relay(echo.address, up=shape_of([50.0]), port=echo.address[1]).start()


class Sink:
    """Notes when a pipe delivers, on a clock that the test moves."""

    def __init__(self, now_s):
        self.now_s, self.arrivals = now_s, []

    def passed(self, size_bytes): ...

    def deliver(self, data):
        self.arrivals.append((self.now_s(), len(data)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3000)), min_size=1, max_size=20),
    st.lists(st.sampled_from([0.0, 0.5, 4.0, 20.0]), min_size=1, max_size=5).filter(any),
    st.integers(0, 7),
)
def test_a_pipe_delivers_when_the_trace_has_carried_what_is_before(sent, rates, offset_s):
    trace, clock, loop = trace_of(rates, rtt_ms=30.0), [0.0], asyncio.new_event_loop()
    pipe = Pipe(Shape(trace=trace, offset_s=offset_s), loop, lambda: clock[0])
    sink, expected, free_s = Sink(lambda: clock[0]), [], 0.0
    for at_s, size in sorted(sent):
        pipe.push(Packet(at_s, sink, bytes(size)))
        start = max(at_s, free_s)
        free_s = start + trace.transfer_ms(size, offset_s + start) / 1e3
        expected.append(free_s + 0.015)
    for moment in expected:
        for clock[0] in (moment - 1e-6, moment + 1e-6):
            pipe.turn()
    pipe.stop()
    loop.close()
    assert [size for _, size in sink.arrivals] == [size for _, size in sorted(sent)]
    assert [arrived_s for arrived_s, _ in sink.arrivals] == pytest.approx(expected, abs=3e-6)


def test_a_pipe_delays_by_half_of_the_round_trip_at_the_moment():
    shape = Shape(trace=replace(trace_of([8.0, 8.0]), rtts_ms=np.array([20.0, 200.0])), offset_s=0.5)
    assert [shape.one_way_s(now_s) for now_s in (0.0, 0.6, 1.7)] == [0.01, 0.1, 0.01]


def test_a_trace_that_does_not_loop_holds_its_last_value():
    looping, once = shape_of([8.0, 1.0]), Shape(trace=trace_of([8.0, 1.0]), loop=False)
    assert [looping.mbps(t) for t in (0.5, 1.5, 2.5)] == [8, 1, 8]
    assert [once.mbps(t) for t in (0.5, 1.5, 2.5)] == [8, 1, 1]
    assert once.through_s(250_000, 2.0, Faults()) == pytest.approx(4.0)


def test_steps_tell_every_change_from_the_offset_on():
    shape = Shape(trace=trace_of([8.0, 1.0, 4.0]), offset_s=1.5)
    assert shape.steps(4.0) == [(0.0, 1.0), (0.5, 4.0), (1.5, 8.0), (2.5, 1.0), (3.5, 4.0)]


@pytest.mark.parametrize(
    "bad", [{"rate_mbps": -1.0}, {"corrupt_share": 1.5}, {"extra_ms": -1.0}, {"truncate_bytes": -1}]
)
def test_faults_that_cannot_be_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Faults(**bad)
