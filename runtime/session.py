"""A device session: walks the tree of a bundle, hands over where that pays, and never loses an answer.

Every hand-over has a continuation here: the rest that the cloud would run is in the bundle for the device too. The
feature map is kept until the cloud's answer is there and sound; if it is not in time, or the call fails in any way, the
device goes on from where it stands. In a tree with early exits a sample that a head is sure of leaves there, and with a
deadline an exit that can be in time answers where nothing else can be.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from types import TracebackType

import numpy as np

from modeltree.errors import ConfigError, NasError, unknown
from modeltree.tree import Handover, Node
from runtime.bandwidth import ProbePolicy
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.remote.circuit_breaker import Breaker
from runtime.remote.link_monitor import LinkWatch, Prober
from runtime.remote.offload_client import CALLS_IN_FLIGHT, LATE, Call, Cloud, Link
from runtime.result import Parts, Result, Walk
from runtime.selection.branch_selection import SWITCH, BySwitch, Charge, Driver, Seen, open_driver, planned_s
from runtime.selection.early_exit import Leaving, Onward, end_text
from runtime.wire.transports.interface import Reply, Transport

MODES = ("only-device", "prefer-device", "prefer-cloud", "only-cloud")
"""Who answers, in the words of hybrid inference.

only-device : the server is never asked. prefer-device : only where the device alone would miss the deadline.
prefer-cloud : the tree as it was searched. only-cloud : the whole image to the cloud, and an error where that fails.
"""

TIMEOUT_S = 2.0
"""Longest wait for the cloud where no deadline is given."""
_MARGIN_S = 0.003
_WHOLE_BITS = 32
_PROBES = ProbePolicy()


class Session:
    """Use `Session.open`; a context manager. One inference at a time.

    Parameters
    ----------
    link : what watches the link; a `LinkWatch`, or what a test puts in its place.
    driver : chooses the forks; the bandwidth type unless given.
    hedge : start the rest here while still waiting, when the deadline is near or the answer overdue.
    probes : when the idle link is probed; None never does, and needs no thread.
    """

    def __init__(
        self, device: Device, link: Link, transport: Transport | None, *, mode: str = "prefer-cloud",
        timeout_s: float = TIMEOUT_S, hedge: bool = True, probes: ProbePolicy | None = None,
        driver: Driver | None = None,
        clock: Callable[[], float] = time.perf_counter, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if mode == "only-cloud" and transport is None:
            raise ConfigError("mode only-cloud needs a server: pass server='grpc://host:port'")
        self.device, self.link = device, link
        self.mode, self.timeout_s, self.hedge, self.clock = mode, timeout_s, hedge, clock
        self._whole = next(
            (n.handover for n in device.manifest.tree.nodes if n.handover and not n.handover.place), None
        )
        if mode == "only-cloud" and self._whole is None:
            raise ConfigError(
                "mode only-cloud needs the whole network as a model of the cloud, and no path of this tree hands the "
                "image over: use prefer-cloud"
            )
        self.driver = driver or BySwitch(device.manifest.tree)
        self._leaving = Leaving(device.manifest.tree)
        self._locals = ThreadPoolExecutor(CALLS_IN_FLIGHT, thread_name_prefix="nas-hedge")
        self._probes = probes
        self._prober: Prober | None = None
        self.cloud: Cloud | None = None
        if transport is not None:
            breaker = Breaker(clock, rng or random.Random())
            probes = probes if transport.frames else None  # another server has no model to probe
            watch = link if isinstance(link, LinkWatch) and mode != "only-device" else None
            self.cloud = Cloud(transport, link, breaker, clock, probed=probes is not None and watch is not None)
            if probes is not None and watch is not None:
                self._prober = Prober(watch, self.cloud, probes)

    @classmethod
    def open(
        cls, bundle: Path | str, *, server: str | None = None, target: str | None = None, variant: str = "f32",
        mode: str = "prefer-cloud", policy: str | Path = SWITCH, timeout_s: float = TIMEOUT_S, hedge: bool = True,
        threads: int | None = None, battery_mj: float | None = None, inferences: int | None = None,
        token: str | None = None, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None,
        frames: bool = True,
        probes: ProbePolicy | None = _PROBES, least_s: Mapping[str, float] | None = None,
    ) -> "Session":  # fmt: skip
        """Open a bundle on this device, and a connection where a server is named.

        Parameters
        ----------
        bundle : folder. target, variant : which of its libraries; the only target for devices unless named.
        server : `grpc://`, `grpcs://`, `http://` or `https://host:port`; None stays on the device.
        mode : one of `MODES`.
        policy : what chooses the forks: `switch` (the bandwidth's type), `exact` (the leaf of the highest reward at the
            bandwidth) or the file of a trained policy.
        battery_mj, inferences : energy that must last for so many inferences; only with a policy that knows of energy.
        timeout_s : longest wait for the cloud. hedge, probes : see the class.
        threads : of a block. token : that the server asks for. ca : PEM file of who signed its certificate.
        certificate, key : PEM files of our own, for a server that wants to know its devices (mutual TLS).
        frames : False for another server of the protocol that hosts the ONNX forms: it is sent float32, never probed.
        least_s : plays a slower device, see `Device`.

        Raises
        ------
        ConfigError, FormatError : the bundle, the policy or an argument is off. DataError : a file cannot be read.
        """
        from runtime.wire.transports import open_transport

        opened = Bundle.open(bundle)
        if (battery_mj is None) != (inferences is None) or (battery_mj is not None and mode == "only-cloud"):
            raise ConfigError("a battery needs battery_mj and inferences, and any mode but only-cloud: pass both")
        charge = None
        if battery_mj is not None and inferences is not None:
            charge = Charge(battery_mj, inferences, 1e3 * timeout_s)
        driver = open_driver(opened.manifest.tree, policy, charge)
        device = Device(opened, target=target, variant=variant, threads=threads, least_s=least_s)
        device.warm_up()
        transport = None
        if server is not None:
            transport = open_transport(server, token=token, ca=ca, certificate=certificate, key=key, frames=frames)
        tree = device.manifest.tree
        session = cls(
            device, LinkWatch(tree.types, rtt_ms=tree.rtt_ms), transport, mode=mode, timeout_s=timeout_s, hedge=hedge,
            probes=probes, driver=driver,
        )  # fmt: skip
        session._warm_up()
        return session

    def measure(self) -> bool:
        """Measure the link now, by a small message and a larger one, and wait for it; whether they were answered.

        Until the link was measured once the slowest bandwidth is assumed.
        """
        link = self.link
        if self.cloud is None or not self.cloud.transport.frames or not isinstance(link, LinkWatch):
            return False
        policy = self._probes or ProbePolicy()
        return bool(self.cloud.probe(lambda transport: link.probe(transport, policy, now=True)))

    def infer(self, image: np.ndarray, *, deadline_ms: float | None = None) -> Result:
        """Classify one image.

        Parameters
        ----------
        image : uint8 (height, width, 3) or (3, height, width), or float32 (3, height, width) normalised already.
        deadline_ms : from now; the cloud is given no longer than leaves time for the local continuation. Where that
            would be late, an early exit that is not answers.

        Raises
        ------
        DataError : the image does not fit. NasError : a block failed, or, with `only-cloud`, the cloud did.
        """
        started = self.clock()
        deadline = None if deadline_ms is None else started + deadline_ms / 1e3
        x, pixels = self.device.entering(image)
        walk = Walk(parts=Parts(), tree=self.device.manifest.tree, x=x)
        if self.mode == "only-cloud":
            output = self._from_cloud(x, pixels, walk, deadline)
        else:
            output = self._along_tree(x, pixels, walk, deadline)
            busy_ms = walk.parts.device + walk.raced_ms, walk.parts.transfer + walk.radio_ms
            self.driver.answered(walk.nodes[-1], walk.seen, *busy_ms)
        ended = self.clock()
        parts = walk.parts
        parts.total = 1e3 * (ended - started)
        parts.wait = max(0.0, parts.total - parts.device - parts.encode - parts.transfer - parts.cloud)
        return Result(
            output=output[0], nodes=tuple(walk.nodes), answered_by=walk.answered_by, why=walk.why,
            types=tuple(walk.types), mbps=tuple(walk.mbps), parts=parts, met=deadline is None or ended <= deadline,
        )  # fmt: skip

    def _along_tree(self, x: np.ndarray, pixels: np.ndarray | None, walk: Walk, deadline: float | None) -> np.ndarray:
        while True:
            walk.x = x
            node = self._fork(walk, deadline)
            if (way := self._rather(walk, deadline)) is not None:
                return self._alone(way, walk, "what the forks would do is late")
            walk.nodes.append(node.id)
            if node.block:
                x, pixels = self._local(node.block, x, walk), None
            if node.handover is not None:
                return self._handed_over(node, x, pixels, walk, deadline)
            if node.leaf is not None:
                walk.answered_by, walk.why = "device", end_text(node) + walk.stays
                return x
            head = walk.tree.confident(node.id)
            if head is not None and walk.sure(head, logits := self._local(head.block, x, walk)):
                return logits
            walk.here = node.id

    def _fork(self, walk: Walk, deadline: float | None) -> Node:
        """The node to go on with, as the driver has it."""
        kind, mbps = self.link.bandwidth_type()
        alone = Seen(type=kind, mbps=mbps, asks=False)
        reason = self._why_stay(walk.here, alone, deadline)
        walk.seen = alone._replace(asks=reason is None)
        walk.stays = "" if reason is None else f": {reason}"
        walk.types.append(kind)
        walk.mbps.append(mbps)
        return self.driver.child(walk.here, walk.seen)

    def _why_stay(self, here: int | None, alone: Seen, deadline: float | None) -> str | None:
        """Why the cloud is not asked for what follows a node; None where it may be."""
        if self.mode == "only-device":
            return "mode only-device"
        if self.cloud is None:
            return "no server was named"
        if self.mode == "prefer-device":
            alone_s = 0.0 if deadline is None else self._planned_s(here, alone)
            if deadline is None or self.clock() + alone_s + _MARGIN_S <= deadline:
                return "mode prefer-device, and there is time"
        return self.cloud.why_not()

    def _planned_s(self, here: int | None, seen: Seen) -> float:
        """Seconds until the answer of what follows a node, if nothing changes; a cloud not known yet is quick."""

        def cloud_s(handover: Handover) -> float:
            assert self.cloud is not None
            return self.cloud.expected_s(handover.block, handover.bytes) or 0.0

        return planned_s(self.device.manifest.tree, self.driver, here, seen, self.device.within_s, cloud_s)

    def _rather(self, walk: Walk, deadline: float | None) -> Onward | None:
        """An exit that can be in time where what the forks would do cannot; None where it can, or nothing can."""
        if deadline is None or not walk.tree.exits:
            return None
        left_s = deadline - self.clock() - _MARGIN_S
        return None if self._planned_s(walk.here, walk.seen) <= left_s else self._exit(walk, left_s)

    def _exit(self, walk: Walk, left_s: float) -> Onward | None:
        """The latest exit within so many seconds from the last fork on, or a head's answer that is at hand already."""
        reachable = self._leaving.latest(walk.here, walk.x, left_s, self.device.within_s, self.driver.allows)
        return self._leaving.later(reachable, walk.held)

    def _handed_over(
        self, node: Node, x: np.ndarray, pixels: np.ndarray | None, walk: Walk, deadline: float | None
    ) -> np.ndarray:  # fmt: skip
        """The cloud's answer, or the local one where it is not to be had."""
        assert node.handover is not None
        block = node.handover.block
        way = Onward(blocks=(block,), x=x, path=walk.tree.path(node.id), within_s=self.device.within_s(block))
        left_s = math.inf if deadline is None else deadline - self.clock() - _MARGIN_S
        if way.within_s > left_s:
            way = self._exit(walk, left_s) or way
        reason = walk.stays.removeprefix(": ") or None
        if reason is None and left_s <= -_MARGIN_S:
            reason = "the deadline has passed"
        if reason is None:
            try:
                return self._asked(node.handover, way, x, pixels, walk, deadline)
            except NasError as error:
                reason = f"the cloud did not answer: {error}"
        return self._alone(way, walk, reason)

    def _alone(self, way: Onward, walk: Walk, reason: str) -> np.ndarray:
        """The answer of a way that needs no cloud."""
        started = self.clock()
        y = self._ran(way)
        walk.parts.device += 1e3 * (self.clock() - started)
        walk.note(way, reason)
        return y

    def _ran(self, way: Onward) -> np.ndarray:
        x = way.x
        for block in way.blocks:
            x = self.device.run(block, x)
        return x

    def _asked(
        self, handover: Handover, way: Onward, x: np.ndarray, pixels: np.ndarray | None, walk: Walk,
        deadline: float | None,
    ) -> np.ndarray:  # fmt: skip
        """Ask the cloud, in a thread of its own, so that nothing it does can hold this one.

        It is given as long as leaves time for the way here. Where that is the rest and would be late in any case, or
        with `hedge` from that moment on, both run at once and the first answer counts. An early exit is worth less than
        the cloud's answer, and so is not begun because that is overdue, but only when the deadline asks for it.

        Raises
        ------
        NasError : it failed, or was not in time.
        """
        assert self.cloud is not None
        left_s = math.inf if deadline is None else deadline - self.clock()
        spare_s = left_s - way.within_s - _MARGIN_S
        race = self.hedge or spare_s <= 0
        timeout_s = min(self.timeout_s, left_s if race else spare_s)
        call = self._call(handover, x, pixels, timeout_s)
        due_s = self.cloud.expected_s(handover.block, call.size_bytes) if self.hedge and not way.leaves else None
        alone_s = min(timeout_s, spare_s, math.inf if due_s is None else LATE * due_s)
        try:
            return self._taken(call.future.result(max(0.0, alone_s)), handover, walk)
        except NotYet:
            if race and alone_s < timeout_s:
                return self._raced(call, handover, way, walk)
            self.cloud.give_up(call)
            raise NasError(f"no answer within {1e3 * timeout_s:.0f} ms") from None
        finally:
            if walk.answered_by != "cloud":
                walk.radio_ms = 1e3 * min(timeout_s, self.clock() - call.began_s)

    def _raced(self, call: Call, handover: Handover, way: Onward, walk: Walk) -> np.ndarray:
        """The first of two answers: the cloud's, or that of the way here, which starts now."""
        waited_ms = 1e3 * (self.clock() - call.began_s)
        started = self.clock()
        local = self._locals.submit(self._ran, way)
        pending: set[Future] = {call.future, local}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            if call.future in done and call.future.exception() is None:
                if not local.cancel():
                    walk.raced_ms = 1e3 * way.within_s  # it runs on to its end
                return self._taken(call.future.result(), handover, walk, f", {waited_ms:.0f} ms late: also begun here")
            if local in done and (local.exception() is None or not pending):
                break
        y = local.result()
        walk.parts.device += 1e3 * (self.clock() - started)
        walk.note(way, f"no answer within {waited_ms:.0f} ms")
        return y

    def _call(self, handover: Handover, x: np.ndarray, pixels: np.ndarray | None, timeout_s: float) -> Call:
        assert self.cloud is not None
        coded = self.cloud.transport.frames
        bits, sent = (handover.bits, x) if handover.place and coded else (_WHOLE_BITS, x)
        if pixels is not None and handover.place == 0 and coded:  # another server takes normalised floats alone
            bits, sent = handover.bits, pixels[None]
        shape_out = self.device.manifest.blocks[handover.block].out_shape
        return self.cloud.ask(handover.block, sent, bits=bits, timeout_s=timeout_s, shape_out=shape_out)

    def _taken(self, reply: Reply, handover: Handover, walk: Walk, remark: str = "") -> np.ndarray:
        """The cloud's answer, noted."""
        walk.parts.encode += 1e3 * reply.encode_s
        walk.parts.cloud += 1e3 * reply.server_s
        walk.parts.transfer += 1e3 * (reply.seconds - reply.server_s)
        walk.answered_by, walk.why = "cloud", f"handed over at place {handover.place}{remark}"
        return reply.output

    def _from_cloud(self, x: np.ndarray, pixels: np.ndarray | None, walk: Walk, deadline: float | None) -> np.ndarray:
        """Mode only-cloud: the whole image, and no answer of our own."""
        assert self.cloud is not None
        assert self._whole is not None
        timeout_s = self.timeout_s if deadline is None else max(1e-3, min(self.timeout_s, deadline - self.clock()))
        call = self._call(self._whole, x, pixels, timeout_s)
        try:
            return self._taken(call.future.result(timeout_s + _MARGIN_S), self._whole, walk)
        except NotYet:
            self.cloud.give_up(call)
            raise NasError(
                f"no answer within {1e3 * timeout_s:.0f} ms: try again, or use prefer-cloud, which goes on here"
            ) from None

    def _warm_up(self) -> None:
        """Run a rest where races run it: a thread's first call makes its pool of threads, which takes milliseconds."""
        rests = [node.handover.block for node in self.device.manifest.tree.nodes if node.handover is not None]
        if self.cloud is not None and rests:
            library = self.device.library(rests[0])
            self._locals.submit(library.run, np.zeros(library.shape_in, np.float32)).result()

    def _local(self, block: str, x: np.ndarray, walk: Walk) -> np.ndarray:
        started = self.clock()
        y = self.device.run(block, x)
        walk.parts.device += 1e3 * (self.clock() - started)
        return y

    def close(self) -> None:
        """Close the connection; calls in flight are not waited for."""
        if self._prober is not None:
            self._prober.stop()
        self._locals.shutdown(wait=False, cancel_futures=True)
        if self.cloud is not None:
            self.cloud.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
