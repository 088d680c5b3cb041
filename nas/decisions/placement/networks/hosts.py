"""Hosts and the links between them: what `servers.json` says.

    {"device": {"profile": "pi4", "slowdown": 1.0, "memory_mb": 512},
     "servers": [{"name": "a", "address": "grpcs://10.0.0.2:8001", "profile": "cloud_cpu", "slowdown": 1.0,
                  "memory_mb": 4000, "mbps": 40, "rtt_ms": 5}, ...],
     "between": {"mbps": 1000, "rtt_ms": 0.5},
     "links": [{"hosts": ["a", "b"], "mbps": 100, "rtt_ms": 2}]}

`mbps` and `rtt_ms` of a server are its link to the device; `between` is the link between any two servers, `links` are
exceptions. A memory that is not given is no limit; it counts the weights of the blocks that a host runs.
"""

from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.profiles import DeviceProfile, load_profile
from modeltree.units import bytes_from_mb, bytes_per_ms

DEVICE = "device"
"""What the device is called in a placement."""


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link in both directions; half its round trip and the bytes are what a transfer takes."""

    mbps: float
    rtt_ms: float = 0.0

    def __post_init__(self) -> None:
        if not (self.mbps > 0 and self.rtt_ms >= 0):
            raise ConfigError(f"a link has {self.mbps} Mbit/s and {self.rtt_ms} ms: must be above 0, and at least 0")


class OtherLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link between two hosts that differs from the rest."""

    hosts: tuple[str, str]
    mbps: float
    rtt_ms: float = 0.0


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine. profile : of `modeltree.profiles`, by name or file; slowdown multiplies its times."""

    profile: str
    slowdown: float = 1.0
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        if not self.slowdown > 0:
            raise ConfigError(f"slowdown is {self.slowdown}: it must be above 0")

    @property
    def room_bytes(self) -> float:
        """Weights that fit."""
        return float("inf") if self.memory_mb is None else bytes_from_mb(self.memory_mb)


class ServerHost(Host, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server and its link to the device."""

    name: str
    mbps: float
    rtt_ms: float = 0.0
    address: str = ""


class Hosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device, number 0, and the servers from 1 on."""

    device: Host
    servers: tuple[ServerHost, ...]
    between: Link
    links: tuple[OtherLink, ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise ConfigError(
                f"hosts are called {', '.join(names)}: every server needs a name of its own, not 'device'"
            )
        for link in self.links:
            if len({*link.hosts} & set(names)) != 2:
                raise ConfigError(f"a link joins {' and '.join(link.hosts)}: it must join two of {', '.join(names)}")
            Link(mbps=link.mbps, rtt_ms=link.rtt_ms)
        for server in self.servers:
            Link(mbps=server.mbps, rtt_ms=server.rtt_ms)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all hosts, the device first."""
        return (DEVICE, *(server.name for server in self.servers))

    @property
    def all(self) -> tuple[Host, ...]:
        """The device, then the servers."""
        return (self.device, *self.servers)

    def link(self, a: int, b: int) -> Link:
        """The link between two hosts."""
        pair = {self.names[a], self.names[b]}
        for one in self.links:
            if set(one.hosts) == pair:
                return Link(mbps=one.mbps, rtt_ms=one.rtt_ms)
        if 0 in (a, b):
            server = self.servers[max(a, b) - 1]
            return Link(mbps=server.mbps, rtt_ms=server.rtt_ms)
        return self.between

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """(hosts, hosts) each: milliseconds a byte, and milliseconds a transfer, between any two hosts."""
        count = len(self.names)
        per_byte, fixed = np.zeros((count, count)), np.zeros((count, count))
        for a in range(count):
            for b in range(count):
                if a != b:
                    link = self.link(a, b)
                    per_byte[a, b], fixed[a, b] = 1 / bytes_per_ms(link.mbps), link.rtt_ms / 2
        return per_byte, fixed

    def profiles(self) -> list[DeviceProfile]:
        """Of every host."""
        return [load_profile(host.profile) for host in self.all]


def read_hosts(path: Path) -> Hosts:
    """Read `servers.json`.

    Raises
    ------
    DataError : the file cannot be read. FormatError : it is not of this form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Hosts)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: pass a servers.json") from error
    except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} does not describe servers: {error}: mend it") from error
