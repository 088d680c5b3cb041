"""Asking a server, by the way that its URL names."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modeltree.errors import ConfigError
from runtime.wire.transports.interface import (
    BusyError,
    Description,
    Exchange,
    Malformed,
    Refused,
    Reply,
    TimedOut,
    Transport,
    TransportError,
    Unreachable,
)

__all__ = [
    "PORTS",
    "BusyError",
    "Description",
    "Exchange",
    "Malformed",
    "Refused",
    "Reply",
    "TimedOut",
    "Transport",
    "TransportError",
    "Unreachable",
    "open_transport",
]

PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 8000}
"""Where a URL names no port; the `s` is for TLS."""


def open_transport(
    url: str, *, token: str | None = None, ca: Path | str | None = None, certificate: Path | str | None = None,
    key: Path | str | None = None, frames: bool = True,
) -> Transport:  # fmt: skip
    """Get ready to ask a server; nothing is sent yet.

    Parameters
    ----------
    url : `grpc://host:port`, `grpcs://`, `http://` or `https://`.
    token : sent with every request. It is as secret as the link: use it with TLS.
    ca : PEM file of those who may sign the server's certificate; None takes the system's.
    certificate, key : PEM files that tell who we are, for servers that ask (mutual TLS).
    frames : False for a server of the protocol that is not ours.

    Raises
    ------
    ConfigError : the URL or a file is off, or a package is missing.
    """
    scheme, host, port = _parts(url)
    encrypted = scheme in ("grpcs", "https")
    if not encrypted and (ca or certificate or key):
        raise ConfigError(f"{url} is not encrypted: certificates are for grpcs:// and https://")
    if (certificate is None) != (key is None):
        raise ConfigError("certificate and key must be given both or not at all: pass the missing one")
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("the token must be printable ASCII without blanks")
    files: dict[str, Any] = {name: None if file is None else Path(file) for name, file in
             (("ca", ca), ("certificate", certificate), ("key", key))}  # fmt: skip
    for name, file in files.items():
        if file is not None and not file.is_file():
            raise ConfigError(f"{name} {file} is not a file: pass a PEM file")
    if scheme.startswith("grpc"):
        from runtime.wire.transports.grpc import GrpcTransport

        return GrpcTransport(host, port, tls=encrypted, token=token, frames=frames, **files)
    from runtime.wire.transports.rest import RestTransport

    return RestTransport(host, port, tls=encrypted, token=token, frames=frames, **files)


def _parts(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"server {url!r} is no URL ({error}): pass something like grpc://host:8001") from error
    if parts.scheme not in PORTS:
        raise ConfigError(f"server {url!r} has scheme {parts.scheme!r}: it must be one of {', '.join(PORTS)}")
    if not parts.hostname or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"server {url!r} must be scheme, host and port alone: pass something like grpc://host:8001")
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port
