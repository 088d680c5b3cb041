"""Connections to the gRPC front that make no call lose their places to others."""

import contextlib
import os
import socket

import pytest

from runtime.server.fronts.connections import PATIENCE_S
from runtime.server.fronts.grpc_connections import GrpcConnections, _peer

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc/self/fd")


@contextlib.contextmanager
def listening():
    """A port; what connects from an address, both ends; and connections that have four places there."""
    now = [0.0]
    with contextlib.ExitStack() as held, socket.create_server(("127.0.0.1", 0)) as server:

        def connected(address):
            far = held.enter_context(
                socket.create_connection(server.getsockname(), timeout=5, source_address=(address, 0))
            )
            held.enter_context(server.accept()[0])
            return far

        yield connected, GrpcConnections(server.getsockname()[1], 4, clock=lambda: now[0]), now


def gone(sock):
    """Whether the other end has ended a connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def name(sock):
    address, port = sock.getsockname()
    return f"ipv4:{address}:{port}"


def test_the_oldest_of_the_address_that_has_most_go_until_half_of_the_places_are_free():
    with listening() as (connected, connections, _):
        many = [connected("127.0.0.2") for _ in range(5)]
        one = connected("127.0.0.3")
        connections.look()
        assert [gone(each) for each in many] == [True] * 4 + [False]
        assert not gone(one)


def test_who_has_called_keeps_the_place():
    with listening() as (connected, connections, now):
        callers = [connected("127.0.0.2") for _ in range(4)]
        for each in callers:
            connections.called(name(each))
        stranger = connected("127.0.0.2")
        now[0] = PATIENCE_S
        connections.look()
        assert [gone(each) for each in (*callers, stranger)] == [False] * 4 + [True]


def test_who_has_no_more_than_a_share_is_given_time():
    with listening() as (connected, connections, now):
        each = [connected(f"127.0.0.{number}") for number in range(2, 5)]
        for one in each[:2]:
            connections.called(name(one))
        connections.look()
        assert not any(gone(one) for one in each)
        now[0] += PATIENCE_S
        connections.look()
        assert [gone(one) for one in each] == [False, False, True]


@pytest.mark.parametrize(
    ("told", "peer"),
    [
        ("ipv4:10.0.0.7:5012", ("10.0.0.7", 5012)), ("ipv6:%5B::1%5D:5012", ("::1", 5012)),
        ("ipv6:[::ffff:10.0.0.7]:5012", ("10.0.0.7", 5012)), ("unix:", ("", 0)),
    ],
)  # fmt: skip
def test_a_peer_is_the_same_whoever_names_it(told, peer):
    assert _peer(told) == peer
