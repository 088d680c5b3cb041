"""Plays a stream for real: a server, a relay and a process a device; every policy the same tasks, in turn."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import ConfigError
from modeltree.files import write_bytes
from modeltree.link.traces import Trace
from modeltree.streams.costs import ActionTable, encode_table
from modeltree.streams.system import PAPER_MBPS
from modeltree.streams.tasks import Arrivals, Task
from modeltree.units import s_from_ms
from nas.field.images import FieldImages
from nas.field.methods import predicted_s
from nas.field.processes.child import Child
from nas.field.processes.links import START_S, port_of
from nas.field.processes.relaying import RelayTask
from nas.field.stream.device import DeviceTask, Due
from nas.field.stream.record import StreamRun, TaskLine
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.stream.calibration import calibrated
from runtime.stream.ways import ways_of
from runtime.wire.transports import open_transport

_LEAD_S = 0.3
_SLOWEST_S = 90.0
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What is played.

    slowdown : what every block of a device takes at least, in times of what the tree predicts for its device; 0: the
        devices are this machine as it is. The server always is. order : of the queues, on devices and server.
    trace : of every device's link, in place of `mbps`; it begins with the tasks.
    kill_at_s, down_s : when the server is killed, and for how long; None: never. pipelined : see `TaskStream`.
    """

    bundle: Path
    arrivals: Arrivals
    mbps: float = PAPER_MBPS
    trace: Trace | None = None
    rtt_ms: float = 4.0
    order: str = "fcfs"
    slowdown: float = 0.0
    workers: int = 1
    kill_at_s: float | None = None
    down_s: float = 2.0
    pipelined: bool = True

    def __post_init__(self) -> None:
        if not (self.slowdown >= 0 and math.isfinite(self.slowdown)):
            raise ConfigError(f"slowdown is {self.slowdown}: it must be finite and at least 0")
        if self.kill_at_s is not None and not (self.kill_at_s >= 0 and self.down_s > 0):
            raise ConfigError(f"the server is killed at {self.kill_at_s} s for {self.down_s} s: both must be above 0")


class Cast:
    """The server, and what is known of it and the devices; a context manager that ends it.

    table, least_s : what the ways take, measured here over loopback with nothing else going on; blocks slowed down.
    """

    def __init__(self, config: StreamConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self._stack = contextlib.ExitStack()
        self.port = 0
        self.server: Child | None = None

    def __enter__(self) -> "Cast":
        self.start_server()
        bundle = Bundle.open(self.config.bundle)
        self.least_s = slowed(bundle, self.config.slowdown)
        device = Device(bundle, threads=1, least_s=self.least_s)
        device.warm_up()
        self.ways = ways_of(device.manifest.tree)
        with open_transport(f"grpc://127.0.0.1:{self.port}") as transport:
            self.table: ActionTable = calibrated(device, self.ways, transport)
        write_bytes(self.folder / "table.json", encode_table(self.table))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()
        self._stack.close()

    def start_server(self) -> None:
        """Start it, on the port that it had before."""
        config = self.config
        words = ("serve", str(config.bundle), "--listen", f"grpc://127.0.0.1:{self.port}", "--workers",
                 str(config.workers), "--drain-s", "1", "--order", config.order)  # fmt: skip
        self.server = Child("server", "nas.cli:main", *words)
        self.port = port_of(self.server.line(START_S))

    def stop_server(self) -> None:
        """Kill it, whatever it is doing."""
        if self.server is not None:
            self.server.kill()
            self.server = None


def slowed(bundle: Bundle, slowdown: float) -> dict[str, float]:
    """Block -> seconds that it must take at least."""
    return {block: slowdown * seconds for block, seconds in predicted_s(bundle.manifest.tree).items()}


def play_policy(cast: Cast, policy: str, tasks: Sequence[Task], images: FieldImages, progress: Progress) -> StreamRun:
    """One policy's turn over the tasks.

    Raises
    ------
    NasError : a process failed; with its last words.
    """
    config = cast.config
    pixels = cast.folder / "images.npy"
    np.save(pixels, images.images, allow_pickle=False)
    down: list[float] = []
    with contextlib.ExitStack() as stack:
        devices = []
        for number in range(config.arrivals.devices):
            relay = stack.enter_context(Child("relay", "nas.field.processes.relaying:main"))
            relay.say(msgspec.to_builtins(_link(cast)))
            url = f"grpc://127.0.0.1:{int(relay.line(START_S))}"
            child = stack.enter_context(Child(f"device {number}", "nas.field.stream.device:main"))
            child.say(msgspec.to_builtins(_device_task(cast, policy, number, tasks, url, images)))
            devices.append((relay, child))
        for _, child in devices:
            child.heard(START_S)
        begins_s = time.monotonic() + _LEAD_S
        for relay, child in devices:
            relay.say(begins_s)
            child.say(begins_s)
        if config.kill_at_s is not None:
            killer = threading.Thread(target=_killed, args=(cast, begins_s, down), daemon=True)
            killer.start()
            stack.callback(killer.join, config.kill_at_s + config.down_s + START_S)
        lines: list[TaskLine] = []
        longest_s = s_from_ms(tasks[-1].arrival_ms) + _SLOWEST_S
        for number, (_, child) in enumerate(devices):
            mine = sum(task.device == number for task in tasks)
            for _ in range(mine):
                lines.append(msgspec.json.decode(child.line(longest_s), type=TaskLine))
                progress(policy, len(lines), len(tasks), "tasks")
    lines.sort(key=lambda line: line.number)
    return StreamRun(policy=policy, lines=tuple(lines), server_down_ms=(down[0], down[1]) if len(down) == 2 else None)


def _killed(cast: Cast, begins_s: float, down: list[float]) -> None:
    config = cast.config
    assert config.kill_at_s is not None
    time.sleep(max(0.0, begins_s + config.kill_at_s - time.monotonic()))
    cast.stop_server()
    down.append(1e3 * (time.monotonic() - begins_s))
    time.sleep(config.down_s)
    cast.start_server()
    down.append(1e3 * (time.monotonic() - begins_s))


def _link(cast: Cast) -> RelayTask:
    config = cast.config
    times_s, mbps, end_s, rtts = (0.0,), (config.mbps,), 1.0, None
    if config.trace is not None:
        trace = config.trace
        times_s, mbps, end_s = tuple(trace.time_s.tolist()), tuple(trace.bandwidth_mbps.tolist()), trace.end_s
        rtts = trace.rtts_ms if config.rtt_ms == trace.rtt_ms else None  # one that was asked for does not change
    return RelayTask(
        host="127.0.0.1", port=cast.port, time_s=times_s, bandwidth_mbps=mbps, end_s=end_s, rtt_ms=config.rtt_ms,
        rtts_ms=() if rtts is None else tuple(rtts.tolist()),
    )  # fmt: skip


def _device_task(
    cast: Cast, policy: str, number: int, tasks: Sequence[Task], url: str, images: FieldImages
) -> DeviceTask:
    config, arrivals = cast.config, cast.config.arrivals
    mine = tuple(
        Due(number=i, due_ms=task.arrival_ms, images=task.images, deadline_ms=task.deadline_ms)
        for i, task in enumerate(tasks)
        if task.device == number
    )
    least_s: Mapping[str, float] = cast.least_s
    return DeviceTask(
        bundle=str(config.bundle.resolve()), server=url, device=number, tasks=mine,
        images=str(cast.folder / "images.npy"), labels=images.labels, table=str(cast.folder / "table.json"),
        planner=policy, order=config.order, mbps=config.mbps, pipelined=config.pipelined, least_s=dict(least_s),
        p=arrivals.p, k=arrivals.k, devices=arrivals.devices, slot_ms=arrivals.slot_ms,
    )  # fmt: skip
