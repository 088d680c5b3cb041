"""The two ways to lie between a device and a server: a relay, or network namespaces with a relay for the delay.

relay       device ── relay (the trace's rate and round trip) ── server
namespaces  device ── relay (the round trip) ──┤ veth, shaped by tc as the trace says ├── server
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np

from modeltree.errors import ConfigError, NasError
from modeltree.link.traces import Trace
from nas.field.processes.child import Child
from nas.field.processes.relaying import RelayTask
from runtime.link import NamespaceLink, Shape

START_S = 60.0
"""Longest time that a process may take to be ready."""

_FAST_MBPS = 10_000.0


class FieldLink(Protocol):
    """What a turn needs of a link. host : that the server listens on."""

    host: str
    device: tuple[str, ...]
    server: tuple[str, ...]

    def lay(self, port: int) -> str:
        """Lead to the server, which listens on that port by now; returns the URL for the device."""

    def begin(self, at_s: float, until_s: float) -> None:
        """Let the trace begin at a moment of CLOCK_MONOTONIC, and play it for so long; waits until it has begun."""

    def must_run(self) -> None:
        """Raise a `NasError` if it is broken: the device would go on alone, and nobody would notice."""


class RelayLink:
    """A relay that plays the trace. device, server : what goes in front of their command lines."""

    host = "127.0.0.1"
    device: tuple[str, ...] = ()
    server: tuple[str, ...] = ()

    def __init__(
        self, trace: Trace, offset_s: float, stack: contextlib.ExitStack, within: tuple[str, ...] = ()
    ) -> None:
        self._trace, self._offset_s, self._stack, self._within = trace, offset_s, stack, within
        self._child: Child | None = None

    def lay(self, port: int, host: str = "127.0.0.1") -> str:
        """Start the relay."""
        trace = self._trace
        task = RelayTask(
            host=host, port=port, time_s=tuple(trace.time_s.tolist()),
            bandwidth_mbps=tuple(trace.bandwidth_mbps.tolist()), end_s=trace.end_s, rtt_ms=trace.rtt_ms,
            rtts_ms=() if trace.rtts_ms is None else tuple(trace.rtts_ms.tolist()), offset_s=self._offset_s,
        )  # fmt: skip
        self._child = self._stack.enter_context(
            Child("relay", "nas.field.processes.relaying:main", within=self._within)
        )
        self._child.say(msgspec.to_builtins(task))
        return f"grpc://127.0.0.1:{self._child.heard(START_S)}"

    def begin(self, at_s: float, until_s: float) -> None:
        """Tell the relay, and wait."""
        if self._child is not None:
            self._child.say(at_s)
        time.sleep(max(0.0, at_s - time.monotonic()))

    def must_run(self) -> None:
        """Look at the relay."""
        if self._child is not None:
            self._child.must_run()


class NamespacesLink:
    """Two namespaces; the delay is a relay's, on the device's side, whose rate is no limit."""

    def __init__(self, trace: Trace, offset_s: float, stack: contextlib.ExitStack) -> None:
        self._shape = Shape(trace=trace, offset_s=offset_s)
        self._namespaces = stack.enter_context(NamespaceLink(self._shape.mbps(0.0)))
        self.host = self._namespaces.server_ip
        self.device = tuple(self._namespaces.command(self._namespaces.device, ()))
        self.server = tuple(self._namespaces.command(self._namespaces.server, ()))
        fast = replace(trace, name="delay", bandwidth_mbps=np.full(trace.time_s.shape, _FAST_MBPS))
        self._delay = RelayLink(fast, offset_s, stack, self.device)

    def lay(self, port: int) -> str:
        """Start the relay for the delay."""
        return self._delay.lay(port, self.host)

    def begin(self, at_s: float, until_s: float) -> None:
        """Wait, then let `tc` follow the trace."""
        self._delay.begin(at_s, until_s)
        self._namespaces.follow(self._shape, time.monotonic, until_s)

    def must_run(self) -> None:
        """Look at the relay; what stops `tc` is told when the link is taken down."""
        self._delay.must_run()


def chosen_link(link: str) -> str:
    """`relay` or `namespaces`: what `auto` comes to here.

    Raises
    ------
    ConfigError : namespaces were asked for and cannot be had; says what they need.
    """
    if link == "relay" or (link == "auto" and os.geteuid() != 0):
        return "relay"
    try:
        with NamespaceLink():
            return "namespaces"
    except ConfigError:
        if link == "namespaces":
            raise
        return "relay"


@contextlib.contextmanager
def opened_link(link: str, trace: Trace, offset_s: float) -> Iterator[FieldLink]:
    """A link of a kind that `chosen_link` named, taken down at the end with all its processes."""
    with contextlib.ExitStack() as stack:
        if link == "relay":
            yield RelayLink(trace, offset_s, stack)
        else:
            yield NamespacesLink(trace, offset_s, stack)


def port_of(line: str) -> int:
    """The port in the line that `nas serve` prints once it listens."""
    found = re.search(r"grpc://\S*?:(\d+)\s*$", line)
    if found is None:
        raise NasError(f"nas serve said {line[:200]!r}: it must say where it listens; nas of another version?")
    return int(found[1])
