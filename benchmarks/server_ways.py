"""Ways to spend less on a request, beside each other: connections, requests in one, frames, processes.

    python benchmarks/server_ways.py [--seconds 3] [--rounds 3] [--clients 100] [--server-cpus 0] [--client-cpus 1]

As benchmarks/server_load.py, whose bundle and pinning it takes, 100 devices over gRPC and REST. All ways have a turn in
every round, and are compared with the bare library's best batch in the same round: images a second, and the
processor's work for an image. Work is what to look at where other jobs run beside.
"""

import argparse
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from server_load import FRONTS, Remote, bare, made_bundle, over_wire, pinned, rest_of


@dataclass(frozen=True, kw_only=True)
class Way:
    """per_connection : devices that share one. images : in one request, of so many fewer devices.
    bits : 32 sends float32 without a frame."""

    name: str
    per_connection: int = 4
    images: int = 1
    bits: int = 8
    processes: int = 1


WAYS = (
    Way(name="4 devices a connection"),
    Way(name="1 device a connection", per_connection=1),
    Way(name="25 devices a connection", per_connection=25),
    Way(name="4 images a request", images=4),
    Way(name="8 images a request", images=8),
    Way(name="float32, no frame", bits=32),
    Way(name="4 bits a number", bits=4),
    Way(name="2 processes", processes=2),
)


def main() -> None:
    """Print every turn, and the medians."""
    options = arguments()
    shares: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = made_bundle(Path(folder), 0)
        model, shape = rest_of(bundle)
        print(f"{platform.machine()}, {os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} at the start")
        for number in range(options.rounds):
            best = pinned(options.server_cpus, bare, bundle, model, shape, options.seconds)
            rate, work_ms = max(one[0] for one in best.values()), min(one[1] for one in best.values())
            print(f"round {number + 1}: bare {rate:.0f}/s, {work_ms:.3f} ms; load average {os.getloadavg()[0]:.1f}")
            for way in WAYS:
                with Remote(bundle, options.server_cpus, processes=way.processes) as server:
                    for front, url in zip(FRONTS, server.urls, strict=True):
                        load = pinned(
                            options.client_cpus, over_wire, url, model, shape, max(1, options.clients // way.images),
                            options.seconds, 30.0,
                            server.pid, way.per_connection, way.images, way.bits,
                        )  # fmt: skip
                        each_ms = load.work_ms / way.images
                        share = (load.rate * way.images / rate, work_ms / each_ms)
                        shares.setdefault((front, way.name), []).append(share)
                        print(f"  {front} {way.name:24} {100 * share[0]:4.0f} % of rate {100 * share[1]:4.0f} % of "
                              f"work, {each_ms:.3f} ms an image  {load.text()}", flush=True)  # fmt: skip
    print("medians: share of the bare library's rate, and its work as share of ours")
    for (front, name), values in shares.items():
        rate, work = (100 * statistics.median(each) for each in zip(*values, strict=True))
        print(f"  {front} {name:24} {rate:4.0f} % {work:4.0f} %")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--server-cpus", type=int, nargs="+", default=[0])
    parser.add_argument("--client-cpus", type=int, nargs="+", default=[1])
    return parser.parse_args()


if __name__ == "__main__":
    main()
