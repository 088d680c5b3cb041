"""Two network namespaces with a wire between them: as fast as told, after a trace, and nothing left behind."""

import contextlib
import subprocess
import sys
import time

import numpy as np
import pytest
from needed_namespaces import need_namespaces

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from runtime.link import NamespaceLink, Shape
from runtime.link.namespace import left_behind

SERVE = "import socket; s = socket.create_server(('10.213.0.2', 9000)); print('ready', flush=True); p, _ = s.accept()\n\
n = 0\nwhile d := p.recv(65536): n += len(d)\np.sendall(str(n).encode())"
HOLD = "import sys; from runtime.link import NamespaceLink\n\
with NamespaceLink() as link: print(link.device, link.server, flush=True); sys.stdin.read()"
SEND = "import socket, sys, time; s = socket.create_connection(('10.213.0.2', 9000)); b = time.monotonic()\n\
s.sendall(bytes(int(sys.argv[1]))); s.shutdown(1); n = int(s.recv(99)); print(n, time.monotonic() - b)"


def sent_through(link, size_bytes):
    """(bytes that arrived, seconds) from the one namespace to the other."""
    with subprocess.Popen(
        link.command(link.server, [sys.executable, "-c", SERVE]), stdout=subprocess.PIPE, text=True
    ) as server:
        server.stdout.readline()
        send = link.command(link.device, [sys.executable, "-c", SEND, str(size_bytes)])
        count, seconds = subprocess.run(send, capture_output=True, text=True, check=True).stdout.split()
    return int(count), float(seconds)


def namespaces():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def rights():
    need_namespaces()


@pytest.mark.netns
@pytest.mark.usefixtures("rights")
def test_a_namespace_link_is_as_fast_as_told_and_leaves_nothing_behind():
    with NamespaceLink(4.0) as link:
        name = link.device
        count, slow_s = sent_through(link, 250_000)
        assert count == 250_000
        assert slow_s > 0.4  # 0.5 s less the burst
        link.set_rate(40.0)
        assert sent_through(link, 250_000)[1] < slow_s
        assert name in namespaces()
    assert name not in namespaces()


@pytest.mark.netns
@pytest.mark.usefixtures("rights")
def test_a_namespace_link_follows_a_trace_and_goes_away_on_errors():
    steps = Trace(
        name="t", time_s=np.array([0.0, 0.5]), bandwidth_mbps=np.array([1.0, 50.0]), end_s=1.0, rtt_ms=0.0,
        origin="test",
    )  # fmt: skip
    shape = Shape(trace=steps)
    with contextlib.suppress(RuntimeError), NamespaceLink(1.0) as link:
        link.follow(shape, time.monotonic, 5.0)
        assert sent_through(link, 500_000)[0] == 500_000  # 4 s at 1 Mbit/s
        raise RuntimeError
    assert link.device not in namespaces()


def test_without_iproute_one_is_told_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="apt-get install iproute2"), NamespaceLink():
        pass


@pytest.mark.netns
@pytest.mark.usefixtures("rights")
def test_what_a_killed_process_left_is_cleared_by_the_next_link_and_what_a_living_one_has_is_not():
    held = [sys.executable, "-c", HOLD]
    with (
        subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living,
    ):
        gone, kept = killed.stdout.readline().split(), living.stdout.readline().split()
        killed.kill()
        killed.wait(30)
        assert set(gone) <= set(left_behind())
        assert not set(kept) & set(left_behind())
        with NamespaceLink():
            there = namespaces()
        assert not any(name in there for name in gone)
        assert all(name in there for name in kept)
        living.stdin.close()
