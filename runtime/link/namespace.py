"""Two network namespaces and a wire between them whose rate `tc` shapes live. Needs root, Linux and iproute2.

Real packets and the kernel's own TCP. The delay is not in it: netem is missing from many kernels, ours among them; put
a `Relay` with a steady fast trace in front for that.
"""

import contextlib
import itertools
import math
import os
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from modeltree.errors import ConfigError
from runtime.link.shape import Shape

LEAST_BITS = 8
"""tc knows no rate of 0; at 8 bit/s a packet takes 25 minutes."""

BURST_BYTES = 1_600
"""What an idle link lets through at once; tbf needs a whole packet, and more would carry small messages for nothing."""

QUEUE_BYTES = 131_072
_TOOL_S = 60.0
"""`ip` and `tc` answer in milliseconds; after so long the machine is stuck."""

_NUMBERS = itertools.count()
_NAME = re.compile(r"nas(?P<pid>\d+)(t(?P<started>\d+))?x\d+[ds]")
"""Process, when that started in ticks since boot, number of the link in it, device or server."""


class NamespaceLink:
    """A device and a server in namespaces of their own; a context manager that leaves nothing behind.

    Where its process is killed in a way that it cannot notice, the next link clears up: names tell whose they are.

    device, server : names of the namespaces. device_ip, server_ip : addresses in them.

    Parameters
    ----------
    rate_mbps : both ways, until `set_rate` or `follow` change it.

    Raises
    ------
    ConfigError : no root, or no `ip` and `tc`; says how to get them.
    """

    device_ip, server_ip = "10.213.0.1", "10.213.0.2"

    def __init__(self, rate_mbps: float = 10.0) -> None:
        tag = f"nas{os.getpid()}t{_started(os.getpid())}x{next(_NUMBERS)}"
        self.device, self.server = f"{tag}d", f"{tag}s"
        self._wire = {self.device: "device0", self.server: "server0"}
        self._rate_mbps = rate_mbps
        self._stop = threading.Event()
        self._follower: threading.Thread | None = None
        self._failure: ConfigError | None = None

    def __enter__(self) -> "NamespaceLink":
        clear_left_behind()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Take everything down; the wire goes with its namespaces. Processes in them are the caller's to end."""
        self._stop.set()
        if self._follower is not None:
            self._follower.join(_TOOL_S)
            self._follower = None
        for name in (self.device, self.server):
            with contextlib.suppress(ConfigError):  # never made, or gone already
                _run("ip", "netns", "del", name)

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in one of the two namespaces; root's, as all that follows from it."""
        return ["ip", "netns", "exec", name, *argv]

    def set_rate(self, rate_mbps: float) -> None:
        """Change the rate, both ways; 0 stops the link. What waits in its queue stays there."""
        self._shape("change", rate_mbps)

    def follow(self, shape: Shape, clock: Callable[[], float], until_s: float) -> None:
        """Set the rate as the trace says, in a thread, from now on the `clock` for `until_s` seconds or until `close`.

        A failure ends it and is raised when the link's `with` statement ends.
        """
        if self._follower is not None:
            raise ConfigError("the link follows a trace already: close it and make another")
        began_s = clock()

        def run() -> None:
            for at_s, mbps in shape.steps(until_s):
                if self._stop.wait(max(0.0, began_s + at_s - clock())):
                    return
                try:
                    self.set_rate(mbps)
                except ConfigError as error:
                    self._failure = error
                    return

        self._follower = threading.Thread(target=run, name="namespace-link", daemon=True)
        self._follower.start()

    def _make(self) -> None:
        for name in (self.device, self.server):
            _run("ip", "netns", "add", name)
        near, far = self._wire[self.device], self._wire[self.server]
        _run("ip", "-n", self.device, "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.server)
        for name, address in ((self.device, self.device_ip), (self.server, self.server_ip)):
            _run("ip", "-n", name, "address", "add", f"{address}/30", "dev", self._wire[name])
            _run("ip", "-n", name, "link", "set", self._wire[name], "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self._shape("add", self._rate_mbps)

    def _shape(self, verb: str, rate_mbps: float) -> None:
        if not 0 <= rate_mbps < math.inf:
            raise ConfigError(f"rate_mbps is {rate_mbps}: it must be finite and at least 0")
        rate = f"{max(LEAST_BITS, round(rate_mbps * 1e6))}bit"
        for name, wire in self._wire.items():
            limits = ("burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES))
            _run("tc", "-n", name, "qdisc", verb, "dev", wire, "root", "tbf", "rate", rate, *limits)


def left_behind() -> tuple[str, ...]:
    """Names of namespaces whose process is gone, sorted; none where there is no `ip`."""
    try:
        listed = _run("ip", "netns", "list")
    except ConfigError:
        return ()
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    ours = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
    return tuple(sorted(name for name, match in ours if not _lives(int(match["pid"]), match["started"])))


def clear_left_behind() -> tuple[str, ...]:
    """Delete them, as far as we may; the names of those that are gone now."""
    gone = []
    for name in left_behind():
        with contextlib.suppress(ConfigError):  # another run was faster
            _run("ip", "netns", "del", name)
            gone.append(name)
    return tuple(gone)


def _lives(pid: int, started: str | None) -> bool:
    now = _started(pid)
    return bool(now) and (started is None or now == started)


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; nothing where there is none. Numbers of processes come again."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else rest[18]  # Z has ended, and waits to be collected
    except (OSError, IndexError):
        return ""


def _run(*argv: str) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_TOOL_S).stdout
    except FileNotFoundError as error:
        raise ConfigError(f"{argv[0]} is not installed: apt-get install iproute2, or use runtime.link.Relay") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"`{' '.join(argv)}` took over {_TOOL_S:.0f} s: the machine is stuck; try again") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(
            f"`{' '.join(argv)}` failed: {error.stderr.strip()}: namespaces need root and the tbf scheduler; use "
            "runtime.link.Relay without them"
        ) from error
