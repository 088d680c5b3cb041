"""What a device or a server needs, looked at one by one: `nas doctor`. Nothing is changed, no library is loaded.

Every look is a `Finding`: what was looked at, whether it is well, what is there, and what to do where it is not.
"""

import importlib.metadata
import os
import platform
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modeltree.errors import NasError
from modeltree.manifest import Manifest, TargetEntry
from modeltree.units import ms_from_s
from runtime.execution.bundle import Bundle
from runtime.execution.processor import lacking, processor_features
from runtime.link.namespace import left_behind
from runtime.wire.transports import PORTS, Transport, open_transport

OK, WARN, FAIL = "ok", "warn", "fail"
_PACKAGES = {
    "numpy": ("2.0", "everything"),
    "msgspec": ("0.19", "everything"),
    "apache-tvm-ffi": (None, "libraries of all targets but 32-bit ARM and phones"),
    "grpcio": (None, "servers at grpc:// and grpcs://"),
    "protobuf": (None, "servers at grpc:// and grpcs://"),
    "pillow": (None, "pictures instead of arrays"),
}
_VECTORS = frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimddp", "asimdhp"})
_NEEDED = ("numpy", "msgspec")
_RUNTIME_BYTES = 90 << 20
"""What a session takes besides its libraries (benchmarks/device_memory.py)."""
_PINGS, _PING_TIMEOUT_S = 7, 2.0
_SOON_DAYS = 14
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Finding:
    """state : `ok`, `warn` (works, but look at it) or `fail`. do : what to do; empty where all is well."""

    what: str
    state: str
    says: str
    do: str = ""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What a diagnosis looks at besides this machine.

    bundle : a bundle's folder. server : a URL. token, ca, certificate, key : as for a session.
    """

    bundle: Path | None = None
    server: str | None = None
    token: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def diagnose(visit: Visit, *, now_s: Callable[[], float] = time.time) -> list[Finding]:
    """All findings, in the order in which they matter."""
    manifest: Manifest | None = None
    findings = [*_python(), *_machine(), *_left_behind()]
    if visit.bundle is not None:
        manifest, about_bundle = _bundle(visit.bundle, now_s())
        findings += about_bundle
    if visit.server is not None:
        findings += _server(visit, manifest, now_s())
    return findings


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding(what="Python", state=OK, says=version)
    for name, (least, purpose) in _PACKAGES.items():
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            state = FAIL if name in _NEEDED else WARN
            yield Finding(what=name, state=state, says="not installed", do=f"pip install {name}: {purpose} needs it")
            continue
        old = least is not None and _numbers(there) < _numbers(least)
        yield Finding(
            what=name, state=FAIL if old else OK, says=there, do=f"pip install '{name}>={least}'" if old else ""
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _machine() -> Iterator[Finding]:
    features = processor_features()
    known = ", ".join(sorted(features & _VECTORS))
    yield Finding(what="processor", state=OK, says=f"{platform.machine()}: {known or 'no vector features known'}")
    yield Finding(what="threads", state=OK, says=str(_threads()))
    free = _free_bytes()
    yield Finding(what="free memory", state=OK, says="not known" if free is None else _mb(free))


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> int | None:
    """Memory that programs may still take, as the kernel reckons; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] << 10 if kilobytes else None


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def _left_behind() -> Iterator[Finding]:
    names = left_behind()
    if names:
        yield Finding(
            what="network namespaces", state=WARN, says=f"{len(names)} of a killed run: {', '.join(names[:4])}",
            do="the next nas field clears them; or ip netns delete NAME",
        )  # fmt: skip


def _bundle(folder: Path, now_s: float) -> tuple[Manifest | None, list[Finding]]:
    try:
        bundle = Bundle.open(folder)
    except NasError as error:
        return None, [Finding(what="bundle", state=FAIL, says=str(error), do="copy or compile the bundle again")]
    manifest = bundle.manifest
    problems = bundle.problems()
    findings = [
        Finding(what="bundle", state=FAIL, says=problems[0], do="copy or compile the bundle again")
        if problems
        else Finding(what="bundle", state=OK, says=f"{len(manifest.blocks)} blocks of {manifest.tree.base}, all sound")
    ]
    runs = [name for name, entry in manifest.targets.items() if not lacking(entry)]
    for name, entry in manifest.targets.items():
        findings.append(_target(name, entry, bundle, any_runs=bool(runs)))
    return manifest, [*findings, *_clock(manifest, now_s)]


def _target(name: str, entry: TargetEntry, bundle: Bundle, *, any_runs: bool) -> Finding:
    """Whether this machine runs a target's libraries, with the threads and the memory they want."""
    what = f"target {name}"
    if missing := lacking(entry):
        return Finding(
            what=what, state=OK if any_runs else FAIL, says=f"not for this machine: needs {', '.join(missing)}",
            do="" if any_runs else "compile for this machine: nas compile --target",
        )  # fmt: skip
    size, free = sum(one.bytes for one in bundle.manifest.files_of(name)) + _RUNTIME_BYTES, _free_bytes()
    if free is not None and size > free:
        return Finding(what=what, state=FAIL, says=f"needs about {_mb(size)}, {_mb(free)} are free",
                       do="end other programs, or compile with --weights int8")  # fmt: skip
    wanted = entry.record.get("threads", 1)
    if isinstance(wanted, int) and wanted > _threads():
        return Finding(what=what, state=WARN, says=f"runs here; laid out for {wanted} threads, {_threads()} are there",
                       do="compile for as many threads as there are")  # fmt: skip
    return Finding(what=what, state=OK, says=f"runs here, needs about {_mb(size)}")


def _clock(manifest: Manifest, now_s: float) -> Iterator[Finding]:
    date = manifest.provenance.date
    today = time.strftime("%Y-%m-%d", time.gmtime(now_s))
    if date and today < date[:10]:
        yield Finding(what="clock", state=FAIL, says=f"{today}, before the bundle was made ({date[:10]})",
                      do="set the clock: certificates are judged by it")  # fmt: skip
    else:
        yield Finding(what="clock", state=OK, says=today)


def _server(visit: Visit, manifest: Manifest | None, now_s: float) -> Iterator[Finding]:
    assert visit.server is not None
    try:
        transport = open_transport(
            visit.server, token=visit.token, ca=visit.ca, certificate=visit.certificate, key=visit.key
        )
    except NasError as error:
        yield Finding(what="server", state=FAIL, says=str(error), do="mend the URL or the files named with it")
        return
    yield from _certificate(visit, now_s)
    with transport:
        yield from _reached(transport, visit.server, manifest)


def _reached(transport: Transport, url: str, manifest: Manifest | None) -> Iterator[Finding]:
    """Whether it answers, how far away it is, and whether it serves what the bundle hands over."""
    try:
        if not transport.ready(_PING_TIMEOUT_S):
            yield Finding(what="server", state=FAIL, says=f"{url} answers, but is not ready", do="look at its log")
            return
        seconds = []
        for _ in range(_PINGS):
            began = time.perf_counter()
            transport.ready(_PING_TIMEOUT_S)
            seconds.append(time.perf_counter() - began)
    except NasError as error:
        yield Finding(what="server", state=FAIL, says=str(error), do="start nas serve there, or mend URL or firewall")
        return
    middle, most = ms_from_s(statistics.median(seconds)), ms_from_s(max(seconds))
    yield Finding(what="server", state=OK, says=f"{url} is ready; round trip {middle:.1f} ms, {most:.1f} at most")
    rests = sorted({node.handover.block for node in manifest.tree.nodes if node.handover}) if manifest else []
    try:
        for rest in rests:
            transport.describe(rest, _PING_TIMEOUT_S)
    except NasError as error:
        yield Finding(what="versions", state=FAIL, says=f"the server lacks a rest of this bundle: {error}",
                      do="serve the bundle that the device has (nas serve BUNDLE)")  # fmt: skip
        return
    if rests:
        yield Finding(what="versions", state=OK, says=f"the server has all {len(rests)} rests of the bundle")


def _certificate(visit: Visit, now_s: float) -> Iterator[Finding]:
    """Until when the server's certificate is good."""
    assert visit.server is not None
    parts = urlsplit(visit.server)
    if parts.scheme not in ("grpcs", "https") or parts.hostname is None:
        return
    context = ssl.create_default_context(cafile=None if visit.ca is None else str(visit.ca))
    context.set_alpn_protocols(["h2" if parts.scheme == "grpcs" else "http/1.1"])
    if visit.certificate is not None and visit.key is not None:
        context.load_cert_chain(visit.certificate, visit.key)
    try:
        place = (parts.hostname, parts.port or PORTS[parts.scheme])
        with (
            socket.create_connection(place, timeout=_PING_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as encrypted,
        ):
            shown = encrypted.getpeercert() or {}
    except ssl.SSLError as error:
        yield Finding(what="certificate", state=FAIL, says=f"not taken: {error.reason or error}",
                      do="pass who signed it with --ca, or make a new one")  # fmt: skip
        return
    except OSError:
        return  # the next look says that it cannot be reached
    days = (ssl.cert_time_to_seconds(str(shown["notAfter"])) - now_s) / _SECONDS_A_DAY
    yield Finding(
        what="certificate", state=WARN if days < _SOON_DAYS else OK, says=f"good for {days:.0f} more days",
        do="make a new one soon" if days < _SOON_DAYS else "",
    )  # fmt: skip
