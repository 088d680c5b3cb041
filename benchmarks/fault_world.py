"""What `faults.py` breaks: a real `nas serve`, and the link to it, each in a process of its own."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeltree.link.traces import Trace
from runtime.link import Faults, Relay, Shape

SCHEMES = ("grpc", "http", "grpcs", "https")
MBPS, RTT_MS = 40.0, 8.0
READY_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


class ServerProcess:
    """`nas serve` on the same ports, however often it is killed and started.

    certificates : name -> {"certificate": file, "key": file}; `good` is used unless another is asked for.
    """

    def __init__(self, bundle: Path, certificates: dict[str, dict[str, Path]]) -> None:
        self.bundle, self.certificates = bundle, certificates
        self.ports = dict(zip(SCHEMES, free_ports(len(SCHEMES)), strict=True))
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._said = ""
        self.start()
        self.wait()

    def start(self, *, certificate: str = "good", words: Sequence[str] = ()) -> None:
        """Start it; it is not waited for."""
        files = self.certificates[certificate]
        listen = [f"--listen={scheme}://127.0.0.1:{port}" for scheme, port in self.ports.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from nas.cli import main; main()", "serve", str(self.bundle), *listen,
             f"--tls-cert={files['certificate']}", f"--tls-key={files['key']}", "--workers=1", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._ready = threading.Event()
        threading.Thread(target=self._listen, args=(self._process, self._ready), daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it serves."""
        return self._ready.is_set()

    def wait(self) -> None:
        """Until it serves.

        Raises
        ------
        RuntimeError : it does not, and has been ended.
        """
        end = time.monotonic() + READY_S
        while not self._ready.wait(0.1):
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"nas serve does not serve; the last that it said is {self._said!r}")

    def signal(self, which: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(which)

    def kill(self) -> None:
        """End it at once, and see it gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listen(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as out:
            for line in out:
                self._said = line.strip()
                if line.startswith(f"{self.bundle}: "):
                    ready.set()


class Links:
    """A relay in front of each port of a server, all in one process that is not ours."""

    def __init__(self, ports: dict[str, int], seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_relay, args=(ports, seed, there), daemon=True)
        self._process.start()
        there.close()  # so that we read its end, should it die
        self.ports: dict[str, int] = self._here.recv()

    def fault(self, scheme: str, faults: Faults) -> None:
        """From now on the link is broken like this, until the next call."""
        self._told(scheme, faults)

    def heal(self, scheme: str) -> None:
        """Nothing is wrong with it any more."""
        self._told(scheme, Faults())

    def cut(self, scheme: str) -> None:
        """Reset every connection."""
        self._told(scheme, None)

    def close(self) -> None:
        """End the process."""
        self._here.send(None)
        self._process.join(10)
        self._process.close()
        self._here.close()

    def _told(self, scheme: str, what: Faults | None) -> None:
        self._here.send((scheme, what))
        self._here.recv()


def _relay(ports: dict[str, int], seed: int, pipe: Any) -> None:
    trace = Trace(
        name="steady", time_s=np.array([0.0]), bandwidth_mbps=np.array([MBPS]), end_s=1.0, rtt_ms=RTT_MS, origin=""
    )
    with contextlib.ExitStack() as stack:
        relays = {
            scheme: stack.enter_context(Relay(("127.0.0.1", port), up=Shape(trace=trace), seed=seed))
            for scheme, port in ports.items()
        }
        pipe.send({scheme: relay.address[1] for scheme, relay in relays.items()})
        while (told := pipe.recv()) is not None:
            scheme, what = told
            if what is None:
                relays[scheme].cut()
            else:
                relays[scheme].fault(what)
            pipe.send("done")


class World:
    """Server and links together."""

    def __init__(self, bundle: Path, authority: Any, seed: int) -> None:
        """authority : makes the certificates (tests/runtime/certificates.py)."""
        self.ca: Path = authority.pem
        self.server = ServerProcess(
            bundle,
            {
                "good": authority.signed("good"),
                "expired": authority.signed("expired", days=-1),
                "elsewhere": authority.signed("elsewhere", address="DNS:elsewhere"),
            },
        )
        self.links = Links(self.server.ports, seed)

    def url(self, scheme: str) -> str:
        """Where a session finds the server, behind the link."""
        return f"{scheme}://127.0.0.1:{self.links.ports[scheme]}"

    def close(self) -> None:
        """End both."""
        self.links.close()
        self.server.signal(signal.SIGCONT)
        self.server.kill()


class Pulses:
    """Stops a server again and again for a moment, so that it is slow."""

    def __init__(self, server: ServerProcess, stopped_s: float, running_s: float) -> None:
        self._server, self._stopped_s, self._running_s = server, stopped_s, running_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Let it run again."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._server.signal(signal.SIGSTOP)
            time.sleep(self._stopped_s)
            self._server.signal(signal.SIGCONT)
            self._end.wait(self._running_s)
