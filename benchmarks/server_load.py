"""What the server answers under load, beside the bare library on the same processors.

    python benchmarks/server_load.py [BUNDLE] [--seconds 3] [--rounds 3] [--clients 1 10 100] [--server-cpus 0]
                                     [--client-cpus 1]
    python benchmarks/server_load.py --soak 600 [--unbounded]

Without a bundle, one is made: VGG11 with random weights as the rest behind the image, batches of 1, 4 and 8. The bare
library, the engine in one process with its callers, and the server behind gRPC and REST each run pinned to
--server-cpus; the devices run on --client-cpus. Rounds go through all of them in turn, and ratios are taken within a
round, since other work on the machine comes and goes. It touches less the processor's time for an image, which stands
beside every rate: that of the server's process, or of the bare library and the engine with their callers.

With --soak, devices ask for so long, beyond what the server can bear in every second part; between the parts it swaps
to another bundle, whose model they ask for from then on, and memory is watched.
"""

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modeltree.errors import NasError
from runtime.execution.bundle import Bundle
from runtime.execution.library import Library
from runtime.execution.processor import chosen_target
from runtime.server.engine.engine import BundleEngine
from runtime.server.interface import Busy
from runtime.server.memory import bound_arenas
from runtime.server.processes import Processes
from runtime.server.serving import ServeConfig, Server
from runtime.wire.transports import BusyError, TimedOut, open_transport

BATCHES = (1, 4, 8)
FRONTS = ("gRPC", "REST")
SETTLE_S = 0.3
PARTS = 10
WARM_PARTS = 3
CALM = 10
DEADLINES_S = (1.0, 0.05)
KEEP_OLD_S = 1.0
BACKOFF_S = 0.15
"""After a refusal: the mean of what `runtime.remote.circuit_breaker` waits first."""


@dataclass(kw_only=True)
class Load:
    """What callers met: seconds of every answer, and how often there was none.

    span_s : of the whole. work_s : of the processor, by those who answer.
    """

    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    late: int = 0
    failed: int = 0
    span_s: float = 1.0
    work_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.span_s

    @property
    def work_ms(self) -> float:
        """The processor's time for an answer."""
        return 1e3 * self.work_s / len(self.seconds)

    def text(self) -> str:
        """Rate, work, latencies and refusals."""
        refusals = f"busy {self.busy}  late {self.late}  failed {self.failed}"
        if not self.seconds:
            return f"no answer  {refusals}"
        p50, p99 = (1e3 * float(np.percentile(self.seconds, percent)) for percent in (50, 99))
        return f"{self.rate:7.0f}/s  {self.work_ms:.3f} ms of work  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  {refusals}"


def main() -> None:
    """Print a line for every measurement and the medians of the ratios."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        count = 2 if options.soak else 1
        bundles = [options.bundle] if options.bundle else [made_bundle(Path(folder), number) for number in range(count)]
        model, shape = rest_of(bundles[0])
        print(f"{platform.machine()}, {os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} at the start")
        print(f"model {model}, {shape}; server on processors {options.server_cpus}, devices on {options.client_cpus}")
        if options.soak:
            soak(bundles, options)
        else:
            compare(bundles[0], model, shape, options)


def compare(bundle: Path, model: str, shape: tuple[int, ...], options: argparse.Namespace) -> None:
    """All measurements, in rounds."""
    ratios: dict[str, list[tuple[float, float]]] = {}
    for number in range(options.rounds):
        before = pinned(options.server_cpus, bare, bundle, model, shape, options.seconds)
        loads: dict[str, Load] = {}
        for clients in options.clients:
            loads[f"in process, {clients:3} callers"] = pinned(
                options.server_cpus, in_process, bundle, model, shape, clients, options.seconds
            )
        with Remote(bundle, options.server_cpus) as server:
            for (name, url), clients in itertools.product(zip(FRONTS, server.urls, strict=True), options.clients):
                loads[f"{name}, {clients:3} devices"] = pinned(
                    options.client_cpus, over_wire, url, model, shape, clients, options.seconds, 30.0, server.pid
                )
        after = pinned(options.server_cpus, bare, bundle, model, shape, options.seconds)
        best = max((before[batch][0] + after[batch][0]) / 2 for batch in before)
        least_ms = min((before[batch][1] + after[batch][1]) / 2 for batch in before)
        bare_text = ", ".join(f"batch {batch} {rate:.0f}/s {work:.3f} ms" for batch, (rate, work) in after.items())
        print(f"round {number + 1}: bare library {bare_text}; load average {os.getloadavg()[0]:.1f}")
        for name, load in loads.items():
            shares = load.rate / best, least_ms / load.work_ms
            ratios.setdefault(name, []).append(shares)
            print(
                f"  {name:24} {100 * shares[0]:4.0f} % of rate {100 * shares[1]:4.0f} % of work  {load.text()}",
                flush=True,
            )
    print("medians, beside the bare library's best batch: share of its rate, and its work as share of ours")
    for name, values in ratios.items():
        rate, work = (100 * statistics.median(each) for each in zip(*values))
        print(f"  {name:24} {rate:4.0f} %  {work:4.0f} %")


def soak(bundles: list[Path], options: argparse.Namespace) -> None:
    """Ask for long, too much in every second part; swap between the parts; print memory after each."""
    loads, memory_mb = [], []
    with Remote(bundles[0], options.server_cpus, KEEP_OLD_S, not options.unbounded) as server:
        for part in range(PARTS):
            over, bundle = part % 2, bundles[part % len(bundles)]
            if part:
                server.swap(bundle)
            clients = (CALM, max(options.clients))[over]
            given = (server.urls[0], *rest_of(bundle), clients, options.soak / PARTS, DEADLINES_S[over], server.pid)
            loads.append(pinned(options.client_cpus, over_wire, *given))
            memory_mb.append(server.resident_mb())
            print(f"  {clients:3} devices, deadline {DEADLINES_S[over]} s: {loads[-1].text()}  {memory_mb[-1]:.1f} MB",
                  flush=True)  # fmt: skip
    calm, beyond = loads[::2], loads[1::2]
    refused = sum(one.busy + one.late for one in beyond)
    print(
        f"soak of {options.soak:.0f} s, {PARTS - 1} swaps: {sum(len(one.seconds) for one in loads)} answers, "
        f"{sum(one.failed for one in loads)} failed; {refused} refused or late with {max(options.clients)} devices at "
        f"{1e3 * DEADLINES_S[1]:.0f} ms, {sum(one.busy + one.late for one in calm)} with {CALM} devices in between; "
        f"resident {memory_mb[WARM_PARTS]:.1f} MB after the warm-up, {memory_mb[-1]:.1f} MB at the end"
    )


# ---- what is measured


def bare(bundle: Path, model: str, shape: tuple[int, ...], seconds: float) -> dict[int, tuple[float, float]]:
    """Images a second and milliseconds of work an image, by batch size; a thread for every processor, nothing around
    it."""
    opened, found = Bundle.open(bundle), {}
    target = chosen_target(opened.manifest)
    entry = opened.block(model)
    for batch in sorted({one.batch for one in entry.libraries if one.target == target}):
        library = Library(
            opened.library_path(model, target=target, batch=batch), shape_in=(batch, *shape),
            shape_out=(batch, *entry.out_shape), runtime=opened.runtime_path(target), threads=1,
        )  # fmt: skip
        x = sample(shape, batch)
        load = repeated(lambda: lambda: library.run(x), len(os.sched_getaffinity(0)), seconds / 2)  # noqa: B023
        found[batch] = batch * load.rate, load.work_ms / batch
    return found


def in_process(bundle: Path, model: str, shape: tuple[int, ...], clients: int, seconds: float) -> Load:
    """The engine, its callers threads beside it."""
    x = sample(shape, 1)
    with BundleEngine(bundle, max_requests=max(256, clients)) as engine:
        return repeated(lambda: lambda: engine.infer(model, x), clients, seconds)


def over_wire(
    url: str, model: str, shape: tuple[int, ...], clients: int, seconds: float, deadline_s: float, server: int,
    per_connection: int = 4, images: int = 1, bits: int = 8,
) -> Load:  # fmt: skip
    """Devices of a server. server : its process, whose work is counted, with that of its children."""
    x = sample(shape, images)
    links = [open_transport(url) for _ in range(-(-clients // per_connection))]
    turn = iter(range(clients))

    def device() -> Callable[[], object]:
        link = links[next(turn) % len(links)]
        return lambda: link.infer(model, x, bits=bits, timeout_s=deadline_s)

    try:
        return repeated(device, clients, seconds, lambda: work_of(server))
    finally:
        for link in links:
            link.close()


def work_of(process: int) -> float:
    """Seconds of the processor that all threads of a process, and of its children, have had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    children = [
        int(one) for task in Path(f"/proc/{process}/task").glob("*/children") for one in task.read_text().split()
    ]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(work_of, children))


def repeated(
    caller: Callable[[], Callable[[], object]], threads: int, seconds: float,
    worked: Callable[[], float] = time.process_time,
) -> Load:  # fmt: skip
    """Call again and again from so many threads, each with a caller of its own. worked : seconds of the processor."""
    load, lock, count, stop = Load(), threading.Lock(), threading.Event(), threading.Event()

    def counts() -> bool:
        """Whether what ends now ends within the time that is measured, not after it."""
        return count.is_set() and not stop.is_set()

    def work(call: Callable[[], object]) -> None:
        mine, busy, late, failed = [], 0, 0, 0
        while not stop.is_set():
            started = time.perf_counter()
            try:
                call()
            except (Busy, BusyError):
                busy += counts()
                time.sleep(BACKOFF_S)
            except TimedOut:
                late += counts()
            except NasError:
                failed += counts()
            else:
                if counts():
                    mine.append(time.perf_counter() - started)
        with lock:
            load.seconds += mine
            load.busy += busy
            load.late += late
            load.failed += failed

    callers = [threading.Thread(target=work, args=(caller(),)) for _ in range(threads)]
    for one in callers:
        one.start()
    time.sleep(SETTLE_S)
    count.set()
    started, before = time.perf_counter(), worked()
    time.sleep(seconds)
    load.span_s, load.work_s = time.perf_counter() - started, worked() - before
    stop.set()
    for one in callers:
        one.join()
    return load


# ---- processes


def pinned(cpus: list[int], work: Callable[..., Any], *given: Any) -> Any:
    """What `work` gives in a process of its own on these processors."""
    with multiprocessing.get_context("spawn").Pool(1, os.sched_setaffinity, (0, cpus)) as pool:
        return pool.apply(work, given)


class Remote:
    """A server in a process of its own, on some processors."""

    def __init__(
        self, bundle: Path, cpus: list[int], keep_old_s: float = 0.0, bounded: bool = True, processes: int = 1
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(bundle, cpus, keep_old_s, bounded, processes, there))
        self._process.start()
        self.pid = self._process.pid or 0
        self.urls: tuple[str, ...] = self._here.recv()

    def swap(self, bundle: Path) -> None:
        self._here.send(bundle)
        self._here.recv()

    def resident_mb(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join(60)


def _serve(bundle: Path, cpus: list[int], keep_old_s: float, bounded: bool, processes: int, pipe: Any) -> None:
    """As `nas serve` does."""
    os.sched_setaffinity(0, cpus)
    if bounded:
        bound_arenas()
    listen = ("grpc://127.0.0.1:0", "http://127.0.0.1:0")
    config = ServeConfig(bundle=bundle, listen=listen, keep_old_s=keep_old_s)
    if processes > 1:
        several = Processes(config, processes)
        pipe.send(several.urls)
        pipe.recv()
        several.stop()
        return
    with Server(config) as server:
        pipe.send(server.urls)
        threading.Thread(target=server.run, args=(threading.Event(), threading.Event()), daemon=True).start()
        while (other := pipe.recv()) is not None:
            server.engine.swap(other)
            pipe.send("done")


# ---- the bundle


def rest_of(bundle: Path) -> tuple[str, tuple[int, ...]]:
    """The rest that is most work, and what goes in."""
    blocks = Bundle.open(bundle).manifest.blocks
    name = max((name for name, one in blocks.items() if "rest" in one.roles), key=lambda one: _macs(blocks[one]))
    return name, blocks[name].in_shape


def _macs(block: Any) -> int:
    return max((one.macs for one in block.libraries if one.batch == 1), default=0)


def sample(shape: tuple[int, ...], batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, *shape), np.float32)


def made_bundle(folder: Path, number: int, batches: tuple[int, ...] = BATCHES) -> Path:
    """VGG11 with random weights, handed over whole; every number has weights and a model's name of its own."""
    import torch

    from compile.bundle import Wanted, compile_run
    from compile.program_file import write_program
    from compile.targets import host
    from modeltree.files import write_bytes
    from modeltree.link.bandwidth import BandwidthTypes
    from modeltree.tree import BandwidthFork, Handover, Leaf, ModelTree, Node, encode_tree
    from nas.bases import build
    from nas.cli.search import default_cache
    from transforms import export

    shape, block = (3, 32, 32), f"{number:020x}"
    types = BandwidthTypes(representative_mbps=(8.0,), edges_mbps=(), transition=((1.0,),), initial=(1.0,))
    node = Node(
        id=0, level=0, parent=None, fork=BandwidthFork(types=(0,)), partition=0, segments=1, device_ms=0.0, actions=(),
        handover=Handover(place=0, shape=shape, bytes=3072, bits=8, block=block),
        leaf=Leaf(chance=1.0, latency_ms=1.0, accuracy=10.0, accuracy_origin="predicted"),
    )  # fmt: skip
    tree = ModelTree(
        base="vgg11", input_shape=shape, mean=(0.5,) * 3, std=(0.25,) * 3, classes=tuple(map(str, range(10))),
        places=(0, 1), types=types, rtt_ms=0.0, device="none", cloud="none", trace="none", nodes=(node,),
    )  # fmt: skip
    run, made = folder / f"run{number}", folder / f"bundle{number}"
    write_bytes(run / "tree.json", encode_tree(tree))
    (run / "blocks").mkdir()
    torch.manual_seed(number)
    write_program(export(build("vgg11", num_classes=10, image_size=32).eval(), shape), run / f"blocks/{block}.pt2")
    compile_run(run, made, Wanted(targets=[host()], batches=batches), cache=default_cache() / "compiled")
    return made


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--server-cpus", type=int, nargs="+", default=[0])
    parser.add_argument("--client-cpus", type=int, nargs="+", default=[1])
    parser.add_argument("--soak", type=float, default=0.0)
    parser.add_argument("--unbounded", action="store_true", help="leave glibc's arenas as they are")
    return parser.parse_args()


if __name__ == "__main__":
    main()
