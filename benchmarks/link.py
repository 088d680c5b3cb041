"""How true the relay is to its trace: rate one way, and round trip of a small message; real sockets on this machine.

python benchmarks/link.py
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

from modeltree.link.traces import Trace
from modeltree.units import mbps, ms_from_s
from runtime.link import NamespaceLink, Relay, Shape

RATES_MBPS = (1, 5, 10, 20, 50)
SECONDS = 3.0
SERVE = """
import socket
listening = socket.socket(); listening.bind(("10.213.0.2", 9000)); listening.listen()
print("ready", flush=True)
peer, _ = listening.accept()
while data := peer.recv(65536):
    pass
peer.sendall(b"k")
"""
SEND = """
import socket, sys, time
peer = socket.create_connection(("10.213.0.2", 9000)); began = time.perf_counter()
peer.sendall(bytes(int(sys.argv[1]))); peer.shutdown(1); peer.recv(1)
print(time.perf_counter() - began)
"""


def main() -> None:
    """Print both tables."""
    print("| asked, Mbit/s | achieved | off | round trip asked, ms | median | p95 |")
    print("|---" * 6 + "|")
    for asked in RATES_MBPS:
        size = int(asked * 125_000 * SECONDS)
        took_s, rounds_ms = relayed(steady(asked, 40.0), size)
        got = mbps(
            size, ms_from_s(took_s - 0.04 - 0.04)
        )  # the handshake's round trip, and the bytes' own with the answer
        print(
            f"| {asked} | {got:.2f} | {100 * (got / asked - 1):+.1f} % | 40 | {statistics.median(rounds_ms):.2f} "
            f"| {np.quantile(rounds_ms, 0.95):.2f} |",
            flush=True,
        )
    changing = Trace(
        name="saw", time_s=np.arange(6) * 0.5, bandwidth_mbps=np.array([2.0, 20, 0, 5, 50, 1]), end_s=3.0, rtt_ms=0.0,
        origin="",
    )  # fmt: skip
    took_s, _ = relayed(changing, 10_000_000)
    print(
        f"\nChanging rate: 10 MB took {took_s:.3f} s, the trace says {changing.transfer_ms(10_000_000, 0) / 1e3:.3f}.\n"
    )
    namespaced()


def steady(rate_mbps: float, rtt_ms: float) -> Trace:
    """A link that never changes."""
    return Trace(
        name="steady", time_s=np.zeros(1), bandwidth_mbps=np.array([rate_mbps]), end_s=1.0, rtt_ms=rtt_ms, origin=""
    )


def relayed(trace: Trace, size_bytes: int) -> tuple[float, list[float]]:
    """(s to send so much and have one byte back, ms of small round trips on an idle link)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, size_bytes))
        thread.start()
        with Relay(server.getsockname()[:2], up=Shape(trace=trace)) as relay:
            relay.rewind()
            began = time.perf_counter()
            with socket.create_connection(relay.address) as device:
                device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                device.sendall(bytes(size_bytes))
                device.recv(1)
                took_s, rounds_ms = time.perf_counter() - began, []
                for _ in range(30 if trace.rtt_ms else 0):
                    began = time.perf_counter()
                    device.sendall(b"p")
                    device.recv(1)
                    rounds_ms.append(ms_from_s(time.perf_counter() - began))
        thread.join()
    return took_s, rounds_ms


def _answer(server: socket.socket, size_bytes: int) -> None:
    peer, _ = server.accept()
    with peer:
        while size_bytes > 0:
            size_bytes -= len(peer.recv(1 << 16))
        peer.sendall(b"k")
        with contextlib.suppress(ConnectionResetError):  # the relay resets what is open when it closes
            while data := peer.recv(1):
                peer.sendall(data)


def namespaced() -> None:
    """Rates that the kernel's tbf lets through; headers are about 5 % of them."""
    print("| tbf, Mbit/s | achieved by TCP |\n|---|---|")
    for asked in RATES_MBPS:
        size = int(asked * 125_000 * SECONDS)
        with NamespaceLink(asked) as link:
            serve = [sys.executable, "-c", SERVE]
            with subprocess.Popen(link.command(link.server, serve), stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                server.stdout.readline()
                send = link.command(link.device, [sys.executable, "-c", SEND, str(size)])
                took_s = float(subprocess.run(send, capture_output=True, text=True, check=True).stdout)
        print(f"| {asked} | {mbps(size, ms_from_s(took_s)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
