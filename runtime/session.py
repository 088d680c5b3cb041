"""A device session: walks the tree of a bundle, hands over where that pays, and never loses an answer.

Every hand-over has a continuation here: the rest that the cloud would run is in the bundle for the device too. The
feature map is kept until the cloud's answer is there and sound; if it is not in time, or the call fails in any way, the
device goes on from where it stands.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from modeltree.errors import ConfigError, NasError, unknown
from modeltree.tree import Handover, Node
from runtime.breaker import Breaker
from runtime.bundle import Bundle
from runtime.device import Device
from runtime.transports.interface import Exchange, Reply, Transport

MODES = ("only-device", "prefer-device", "prefer-cloud", "only-cloud")
"""Who answers, in the words of hybrid inference. `prefer-cloud` walks the tree as it was searched."""

TIMEOUT_S = 2.0
"""Longest wait for the cloud where no deadline is given."""
_MARGIN_S = 0.002
_CALLS_IN_FLIGHT = 4
_WHOLE_BITS = 32


class Link(Protocol):
    """What a session asks of the link's watcher (`runtime.switch`)."""

    def bandwidth_type(self) -> tuple[int, float]:
        """The bandwidth type now, and the estimate in Mbit/s behind it."""

    def observe(self, exchange: Exchange, *, finished: bool = True) -> None:
        """A hand-over, or (not `finished`) one that was given up."""


@dataclass(kw_only=True)
class Parts:
    """Milliseconds of one inference by what they went into; `wait` is what no other part explains."""

    device: float = 0.0
    encode: float = 0.0
    transfer: float = 0.0
    cloud: float = 0.0
    wait: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """An answer and how it came about.

    output : (classes,) logits. nodes : ids of the tree's nodes, in order. answered_by : `device` or `cloud`.
    why : one sentence. types, mbps : bandwidth type and estimate at every fork. met : whether the deadline was kept.
    """

    output: np.ndarray
    nodes: tuple[int, ...]
    answered_by: str
    why: str
    types: tuple[int, ...]
    mbps: tuple[float, ...]
    parts: Parts = field(default_factory=Parts)
    met: bool = True


class Session:
    """Use `Session.open`; a context manager. One inference at a time."""

    def __init__(
        self, device: Device, link: Link, transport: Transport | None, *, mode: str = "prefer-cloud",
        timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.perf_counter,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if mode == "only-cloud" and transport is None:
            raise ConfigError("mode only-cloud needs a server: pass server='grpc://host:port'")
        self.device, self.link, self.transport = device, link, transport
        self.mode, self.timeout_s, self.clock = mode, timeout_s, clock
        self.breaker = Breaker(clock, rng or random.Random())
        self._calls = ThreadPoolExecutor(_CALLS_IN_FLIGHT, thread_name_prefix="nas-handover")
        self._in_flight: set[Future[Reply]] = set()
        self._whole = next((p.rest for p in device.manifest.paths if p.handover_place == 0 and p.rest), None)
        if mode == "only-cloud" and self._whole is None:
            raise ConfigError(
                "mode only-cloud needs the whole network as a model of the cloud, and no path of this tree hands the "
                "image over: use prefer-cloud"
            )

    @classmethod
    def open(
        cls, bundle: Path | str, *, server: str | None = None, target: str | None = None, variant: str = "f32",
        mode: str = "prefer-cloud", timeout_s: float = TIMEOUT_S, threads: int | None = None,
        token: str | None = None, ca: Path | None = None,
    ) -> "Session":  # fmt: skip
        """Open a bundle on this device, and a connection where a server is named.

        Parameters
        ----------
        bundle : folder. target, variant : which of its libraries; the only target for devices unless named.
        server : `grpc://`, `grpcs://`, `http://` or `https://host:port`; None stays on the device.
        mode : one of `MODES`. timeout_s : longest wait for the cloud.
        threads : of a block. token, ca : what the server asks for, and who signed its certificate.

        Raises
        ------
        ConfigError, FormatError : the bundle or an argument is off.
        """
        from runtime.transports import open_transport
        from runtime.watch import LinkWatch

        opened = Bundle.open(bundle)
        device = Device(opened, target=target, variant=variant, threads=threads)
        device.warm_up()
        transport = None if server is None else open_transport(server, token=token, ca=ca)
        link = LinkWatch(device.manifest.tree.types, rtt_ms=device.manifest.tree.rtt_ms)
        return cls(device, link, transport, mode=mode, timeout_s=timeout_s)

    def infer(self, image: np.ndarray, *, deadline_ms: float | None = None) -> Result:
        """Classify one image.

        Parameters
        ----------
        image : uint8 (height, width, 3) or (3, height, width), or float32 (3, height, width) normalised already.
        deadline_ms : from now; the cloud is given no longer than leaves time for the local continuation.

        Raises
        ------
        DataError : the image does not fit. NasError : a block failed, or, with `only-cloud`, the cloud did.
        """
        started = self.clock()
        deadline = None if deadline_ms is None else started + deadline_ms / 1e3
        x, pixels = self.device.normalised(image)
        walk = _Walk(parts=Parts())
        output = self._from_cloud(x, pixels, walk, deadline) if self.mode == "only-cloud" else None
        if output is None:
            output = self._along_tree(x, pixels, walk, deadline)
        ended = self.clock()
        parts = walk.parts
        parts.total = 1e3 * (ended - started)
        parts.wait = max(0.0, parts.total - parts.device - parts.encode - parts.transfer - parts.cloud)
        return Result(
            output=output[0], nodes=tuple(walk.nodes), answered_by=walk.answered_by, why=walk.why,
            types=tuple(walk.types), mbps=tuple(walk.mbps), parts=parts, met=deadline is None or ended <= deadline,
        )  # fmt: skip

    def _along_tree(
        self, x: np.ndarray, pixels: np.ndarray | None, walk: "_Walk", deadline: float | None
    ) -> np.ndarray:
        tree = self.device.manifest.tree
        here: int | None = None
        while True:
            kind, mbps = self.link.bandwidth_type()
            node = tree.child(here, kind)
            walk.types.append(kind)
            walk.mbps.append(mbps)
            walk.nodes.append(node.id)
            if node.block:
                x, pixels = self._local(node.block, x, walk), None
            if node.handover is not None:
                return self._handed_over(node, node.handover, x, pixels, walk, deadline)
            if node.leaf is not None:
                walk.answered_by, walk.why = "device", "the path ends on the device"
                return x
            here = node.id

    def _handed_over(
        self, node: Node, handover: Handover, x: np.ndarray, pixels: np.ndarray | None, walk: "_Walk",
        deadline: float | None,
    ) -> np.ndarray:  # fmt: skip
        """The cloud's answer, or the local one where it is not to be had."""
        reason = self._why_not(handover.block, deadline)
        if reason is None:
            try:
                return self._called(handover, x, pixels, walk, deadline)
            except NasError as error:
                reason = f"the cloud did not answer: {error}"
        walk.answered_by, walk.why = "device", f"went on here at place {handover.place}: {reason}"
        return self._local(handover.block, x, walk)

    def _why_not(self, rest: str, deadline: float | None) -> str | None:
        """Why the cloud is not asked at all; None where it is."""
        if self.transport is None:
            return "no server was named"
        if self.mode == "only-device":
            return "mode only-device"
        if not self.breaker.closed:
            return f"the server failed {self.breaker.failures} times in a row and is left alone for a while"
        self._in_flight = {call for call in self._in_flight if not call.done()}
        if len(self._in_flight) >= _CALLS_IN_FLIGHT:
            return f"{_CALLS_IN_FLIGHT} calls to the server are still unanswered"
        if self.mode == "prefer-device" and (
            deadline is None or self.clock() + self.device.expected_s(rest) + _MARGIN_S <= deadline
        ):
            return "mode prefer-device, and there is time"
        if deadline is not None and self._patience(rest, deadline) <= 0:
            return "the deadline leaves time for the local branch only"
        return None

    def _patience(self, rest: str, deadline: float | None) -> float:
        """Seconds that the cloud may take, so that the local continuation still meets the deadline."""
        if deadline is None:
            return self.timeout_s
        left = deadline - self.clock() - self.device.expected_s(rest) - _MARGIN_S
        return min(self.timeout_s, left)

    def _called(
        self, handover: Handover, x: np.ndarray, pixels: np.ndarray | None, walk: "_Walk", deadline: float | None
    ) -> np.ndarray:
        """Ask the cloud, in a thread of its own, so that nothing it does can hold this one.

        Raises
        ------
        NasError : it failed, or was not in time.
        """
        assert self.transport is not None
        patience = self._patience(handover.block, deadline)
        coded = handover.bits if handover.place else _WHOLE_BITS
        sent = x
        if pixels is not None and handover.place == 0:
            sent, coded = pixels[None], handover.bits
        shape_out = self.device.manifest.blocks[handover.block].out_shape
        started = self.clock()
        call = self._calls.submit(
            self.transport.infer, handover.block, sent, bits=coded, timeout_s=patience, shape_out=shape_out
        )  # fmt: skip
        self._in_flight.add(call)
        try:
            reply = call.result(timeout=patience)
        except NotYet as error:
            self._gave_up(sent, coded, started)
            raise NasError(f"no answer within {1e3 * patience:.0f} ms") from error
        except NasError:
            self._gave_up(sent, coded, started)
            raise
        self.breaker.succeeded()
        self.link.observe(reply)
        walk.parts.encode += 1e3 * reply.encode_s
        walk.parts.cloud += 1e3 * reply.server_s
        walk.parts.transfer += 1e3 * (reply.seconds - reply.server_s)
        walk.answered_by, walk.why = "cloud", f"handed over at place {handover.place}"
        return reply.output

    def _gave_up(self, sent: np.ndarray, bits: int, started: float) -> None:
        """A call failed: leave the server alone for a while, and take it that the link is at most so fast."""
        self.breaker.failed()
        spent, size = self.clock() - started, max(1, sent.size * bits // 8)
        self.link.observe(Exchange(sent_bytes=size, received_bytes=0, seconds=spent, server_s=0.0), finished=False)

    def _from_cloud(
        self, x: np.ndarray, pixels: np.ndarray | None, walk: "_Walk", deadline: float | None
    ) -> np.ndarray:
        """Mode only-cloud: the whole image, and no answer of our own."""
        tree = self.device.manifest.tree
        handover = next(n.handover for n in tree.nodes if n.handover is not None and n.handover.block == self._whole)
        return self._called(handover, x, pixels, walk, deadline)

    def _local(self, block: str, x: np.ndarray, walk: "_Walk") -> np.ndarray:
        started = self.clock()
        y = self.device.run(block, x)
        walk.parts.device += 1e3 * (self.clock() - started)
        return y

    def close(self) -> None:
        """Close the connection; calls in flight are not waited for."""
        self._calls.shutdown(wait=False, cancel_futures=True)
        if self.transport is not None:
            self.transport.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(kw_only=True)
class _Walk:
    """What one inference has met so far."""

    parts: Parts
    nodes: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    mbps: list[float] = field(default_factory=list)
    answered_by: str = "device"
    why: str = ""
