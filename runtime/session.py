"""A device session: walks the tree of a bundle, hands over where that pays, and never loses an answer."""

import functools
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from modeltree.errors import ConfigError
from modeltree.met import Met
from modeltree.tree import Handover, ModelTree
from modeltree.units import bytes_per_ms, mbps
from runtime.bandwidth import ProbePolicy
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.images import Entry, Picture, Pictures, sendable_file
from runtime.inference.hedging import Hedge
from runtime.inference.inference_state import Walk
from runtime.inference.met_times import MetTimes
from runtime.inference.tree_walk import TreeWalk
from runtime.meter import Meter
from runtime.options import SessionOptions
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.link_monitor import LinkWatch
from runtime.remote.offload_client import Cloud, Link
from runtime.remote.prober import Prober
from runtime.remote.workers import Closed, Workers
from runtime.result import Parts, Result
from runtime.selection.branch_selection import ByMeasured, BySwitch, Driver, open_driver
from runtime.wire.transports.interface import Transport

if TYPE_CHECKING:
    from runtime.stream.pipeline import TaskStream
    from runtime.stream.results import TaskResult

_DEFAULTS = SessionOptions()
_STREAM_ENDS_S = 5.0


class Session:
    """Use `Session.open`; a context manager. Closed or dropped, it leaves no thread and no connection behind.

    Several threads may share one; their inferences share the processor. After a fork the child must open its own.

    Parameters
    ----------
    link : what watches the link; a `LinkWatch`, or what a test puts in its place, which is not probed.
    driver : chooses the forks; the bandwidth type unless given.
    """

    def __init__(
        self, device: Device, link: Link, transport: Transport | None, options: SessionOptions = _DEFAULTS, *,
        driver: Driver | None = None, clock: Callable[[], float] = time.perf_counter,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self.device, self.link, self.options, self.clock = device, link, options, clock
        tree = device.manifest.tree
        self._whole = _whole(tree)
        self._sends_files = any(node.handover is not None and node.handover.code == "came" for node in tree.nodes)
        if options.mode == "only-cloud":
            _check_only_cloud(transport, self._whole)
        self.driver = driver or BySwitch(tree)
        self.cloud: Cloud | None = None
        self._prober: Prober | None = None
        self._hedge: Hedge | None = None
        if transport is not None:
            watch = link if isinstance(link, LinkWatch) and transport.frames else None  # others have no model to probe
            probes = options.probes if options.mode != "only-device" and watch is not None else None
            breaker = Breaker(clock, rng or random.Random())
            self.cloud = Cloud(transport, link, breaker, clock, probed=probes is not None)
            self._hedge = Hedge(device, self.cloud, options, clock)
            if watch is not None:
                self._prober = Prober(watch, self.cloud, probes or ProbePolicy())
            if self._prober is not None and probes is not None:
                self._prober.start()
        self._times = MetTimes(tree, device, link, self.cloud)
        if isinstance(self.driver, ByMeasured):
            self.driver.reckons_with(self._times)
        self._walk = TreeWalk(
            device, link, self.driver, cloud=self.cloud, hedge=self._hedge, mode=options.mode, clock=clock
        )
        self._meter, self._meter_lock = Meter(tree), threading.Lock()
        self._waiting = Workers(1, "nas-ainfer")
        self._streams = _Streams()
        self._stream_lock = threading.Lock()
        self._pid = os.getpid()
        parts = (self._streams, self._prober, self._waiting, self._hedge, self.cloud)
        closing = (part for part in parts if part is not None)
        self._finalizer = weakref.finalize(self, _close, self._pid, tuple(closing))

    @classmethod
    def open(
        cls, bundle: Path | str, *, server: str | None = None, options: SessionOptions = _DEFAULTS, **changes: Any
    ) -> "Session":  # fmt: skip
        """Open a bundle on this device, and a connection where a server is named.

        Parameters
        ----------
        bundle : folder that `nas compile` wrote.
        server : `grpc://`, `grpcs://`, `http://` or `https://host:port`; None stays on the device.
        options, changes : see `SessionOptions`, whose names are keywords here: `mode`, `policy`, `timeout_s`, `token`.

        Raises
        ------
        ConfigError, FormatError : the bundle, the policy or an option is off. DataError : a file cannot be read.
        """
        from runtime.wire.transports import open_transport

        options = replace(options, **changes)
        opened = Bundle.open(bundle)
        driver = open_driver(opened.manifest.tree, options.policy, options.charge)
        device = Device(
            opened, target=options.target, variant=options.variant, threads=options.threads, least_s=options.least_s
        )
        device.warm_up()
        transport = None
        if server is not None:
            transport = open_transport(
                server, token=options.token, ca=options.ca, certificate=options.certificate, key=options.key,
                frames=options.frames,
            )  # fmt: skip
        tree = device.manifest.tree
        session = cls(device, LinkWatch(tree.types, rtt_ms=tree.rtt_ms), transport, options, driver=driver)
        if session._hedge is not None:
            session._hedge.warm_up()
        return session

    def measure(self) -> bool:
        """Measure the link now, by a small message and a larger one, and wait for it; whether they were answered.

        Until the link was measured once the slowest bandwidth is assumed.

        Raises
        ------
        Closed : the session was closed, or opened by the parent of this process.
        """
        self._check_open()
        return self._prober is not None and bool(self._prober.measure())

    @property
    def unanswered(self) -> str:
        """Why the last probe was not answered, in words; nothing where it was, or none was sent."""
        return "" if self._prober is None or self._prober.failure is None else str(self._prober.failure)

    @overload
    def infer(self, picture: Picture, *, deadline_ms: float | None = None) -> Result: ...

    @overload
    def infer(self, picture: Pictures, *, deadline_ms: float | None = None) -> list[Result]: ...

    def infer(self, picture: Picture | Pictures, *, deadline_ms: float | None = None) -> Result | list[Result]:
        """Classify a picture, or a list of them one after the other.

        Parameters
        ----------
        picture : what the bundle's rule turns into the network's input, see `runtime.images`: a file's name, the bytes
            of a JPEG or PNG, an image of Pillow's, uint8 of any size with 1, 3 or 4 channels, or float32
            (3, height, width) normalised already. Of a list, all are read before the first is classified.
        deadline_ms : from now, of a list from each one's turn; the cloud is given no longer than leaves time for the
            local continuation. Where that would be late, an early exit that is not answers.

        Raises
        ------
        ConfigError : the deadline is no number from 0 up, or Pillow is not installed and needed.
        DataError : a picture cannot be read.
        Closed : the session was closed, or opened by the parent of this process.
        NasError : a block failed, or, with `only-cloud`, the cloud did.
        """
        return self._inferred(picture, self.clock(), _checked_ms(deadline_ms))

    @overload
    async def ainfer(self, picture: Picture, *, deadline_ms: float | None = None) -> Result: ...

    @overload
    async def ainfer(self, picture: Pictures, *, deadline_ms: float | None = None) -> list[Result]: ...

    async def ainfer(
        self, picture: Picture | Pictures, *, deadline_ms: float | None = None
    ) -> Result | list[Result]:  # fmt: skip
        """As `infer`, while other coroutines go on: in a thread of the session, one after the other.

        The deadline counts from now. An inference whose waiting coroutine is cancelled is not begun, or its answer is
        dropped.
        """
        import asyncio  # here: it costs 4 MB, and most devices await nothing

        self._check_open()
        work = functools.partial(self._inferred, picture, self.clock(), _checked_ms(deadline_ms))
        return await asyncio.wrap_future(self._waiting.submit(work))

    def _inferred(
        self, picture: Picture | Pictures, started: float, deadline_ms: float | None
    ) -> Result | list[Result]:  # fmt: skip
        self._check_open()
        if not isinstance(picture, list | tuple):
            return self._classified(*self._entered(picture), started, deadline_ms)
        read = [self._entered(one) for one in picture]
        return [self._classified(*one, self.clock(), deadline_ms) for one in read]

    def _entered(self, picture: Picture) -> tuple[np.ndarray | Entry, np.ndarray | None]:
        """A picture as the network takes it, and its pixels; a file that a fork may send is not decoded yet."""
        if self._sends_files and (file := sendable_file(picture)) is not None:
            return Entry(file, functools.partial(self.device.entering, file)), None
        return self.device.entering(picture)

    def _classified(
        self, x: np.ndarray | Entry, pixels: np.ndarray | None, started: float, deadline_ms: float | None
    ) -> Result:  # fmt: skip
        deadline = None if deadline_ms is None else started + deadline_ms / 1e3
        walk = Walk(parts=Parts(), tree=self.device.manifest.tree, x=x)
        if self.options.mode == "only-cloud":
            assert self._hedge is not None
            assert self._whole is not None
            output = self._hedge.whole(self._whole, x, pixels, walk, deadline)
        else:
            output = self._walk.answer(pixels, walk, deadline)
            busy_ms = walk.parts.device + walk.raced_ms, walk.parts.transfer + walk.radio_ms
            self.driver.answered(walk.nodes[-1], walk.seen, *busy_ms)
        ended = self.clock()
        result = walk.result(output[0], total_ms=1e3 * (ended - started), met=deadline is None or ended <= deadline)
        self._note(result)
        return result

    def _note(self, result: Result) -> None:
        """Keep what was met."""
        self._times.note(result)
        tree, parts = self.device.manifest.tree, result.parts
        with self._meter_lock:
            self._meter.ran(result.blocks_ms)
            if result.answered_by != "cloud" or not result.nodes or not isinstance(self.link, LinkWatch):
                return
            end, rtt_ms, known = tree.nodes[result.nodes[-1]], self.link.usual_rtt_ms, result.mbps[-1]
            if end.handover is None or not known > 0:
                return
            sent_ms, said_ms = (size / bytes_per_ms(known) for size in (result.sent_bytes, end.handover.bytes))
            self._meter.crossed(
                tree, end.id, encode_ms=parts.encode, transfer_ms=parts.transfer, server_ms=parts.cloud,
                sent_bytes=result.sent_bytes, carried_ms=rtt_ms + sent_ms,
                predicted_ms=tree.extra_ms + rtt_ms + said_ms,
            )  # fmt: skip
            if (carry_ms := parts.transfer - rtt_ms) > 0:
                met_mbps = mbps(result.sent_bytes, carry_ms)
                right = tree.types.match(met_mbps) == result.types[-1]
                self._meter.estimated(known, met_mbps, right=right)

    def met(self) -> Met:
        """What this session met of late, for `nas refit` and `nas search --measured`: the latest 200 of each thing."""
        rtt_ms = self.link.usual_rtt_ms if isinstance(self.link, LinkWatch) else self.device.manifest.tree.rtt_ms
        with self._meter_lock:
            return self._meter.met("session", "a session", rtt_ms=rtt_ms)

    def submit(self, images: Sequence[Picture], deadline_ms: float) -> "Future[TaskResult]":
        """A task of a stream: 1 to 10 images with a deadline, queued, planned and run side by side with others.

        The first one measures what the bundle's exits and cuts take here and at the server; `open_stream` does so
        before. The future always brings a result, of a task that was not run as well.

        Raises
        ------
        DataError : the images do not fit. Closed : as for `infer`. NasError : measuring failed.
        """
        return self.open_stream().submit(images, deadline_ms)

    async def asubmit(self, images: Sequence[Picture], deadline_ms: float) -> "TaskResult":
        """As `submit`, while other coroutines go on."""
        import asyncio

        return await asyncio.wrap_future(self.submit(images, deadline_ms))

    def open_stream(self, **told: Any) -> "TaskStream":
        """The session's stream, made when it is first asked for; `told` as for `runtime.stream.opening.open_stream`."""
        from runtime.stream.opening import open_stream

        self._check_open()
        with self._stream_lock:
            if not self._streams:
                self._streams.append(open_stream(self.device, self.cloud, self.link, **told))
            elif told:
                raise ConfigError("the session has a stream already: open it before the first task, or another session")
            return self._streams[0]

    def close(self) -> None:
        """Close the connection; calls in flight are not waited for. An inference of another thread ends nevertheless.

        It ends with an answer of the device, or with an error where only the cloud may answer. May be called again.
        """
        self._finalizer()

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(
                f"this session belongs to process {self._pid}, and this is process {os.getpid()}, forked from it: "
                "threads and connections do not survive a fork; open a session after it, in each process"
            )
        if not self._finalizer.alive:
            raise Closed("the session is closed: open another")

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Streams(list["TaskStream"]):
    """The session's stream, once there is one."""

    def close(self) -> None:
        """What is under way is ended first."""
        for stream in self:
            stream.close(_STREAM_ENDS_S)


def _close(pid: int, parts: tuple[_Streams | Prober | Workers | Hedge | Cloud, ...]) -> None:
    """Close what a session is made of; in a forked child nothing, for it all is the parent's."""
    if os.getpid() == pid:
        for part in parts:
            part.close()


def _whole(tree: ModelTree) -> Handover | None:
    """The hand-over of the image itself; None where no path has one."""
    return next((node.handover for node in tree.nodes if node.handover and not node.handover.place), None)


def _check_only_cloud(transport: Transport | None, whole: Handover | None) -> None:
    if transport is None:
        raise ConfigError("mode only-cloud needs a server: pass server='grpc://host:port'")
    if whole is None:
        raise ConfigError(
            "mode only-cloud needs the whole network as a model of the cloud, and no path of this tree hands the "
            "image over: use prefer-cloud"
        )


def _checked_ms(deadline_ms: float | None) -> float | None:
    """A deadline as it was given.

    Raises
    ------
    ConfigError : it is no number, not a number, or below 0.
    """
    if deadline_ms is None:
        return None
    if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, int | float | np.number) or not deadline_ms >= 0:
        raise ConfigError(f"deadline_ms is {deadline_ms!r}: it must be milliseconds from 0 up, or None for no deadline")
    return None if deadline_ms == math.inf else float(deadline_ms)
