"""What a session costs over the bare libraries, and what deciding on a fork costs.

    python benchmarks/overhead.py BUNDLE [--rounds 300] [--threads 1]

Takes turns, so that other work on the machine meets both: the blocks of a path as bare libraries on an image that is
normalised already, then the session (only-device) on the same image as pixels. The fork is timed as the session takes
it, with a real estimator behind it and a reading before each, as a hand-over would leave it; the dispatch from there
until a transport is called in its thread, and back from its answer (which it has at once) to the session.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.options import SessionOptions
from runtime.remote.link_monitor import LinkWatch
from runtime.session import Session
from runtime.wire.transports import Exchange
from runtime.wire.transports.interface import Reply

WARM = 20


def main() -> None:
    """Measure and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    device = Device(Bundle.open(arguments.bundle), threads=arguments.threads)
    tree = device.manifest.tree
    image = np.random.default_rng(0).integers(0, 256, tree.input_shape, dtype=np.uint8)
    x, _ = device.entering(image)
    with Session(device, LinkWatch(tree.types), None, SessionOptions(mode="only-device")) as session:
        blocks = _blocks(session, image)
        for _ in range(WARM):
            _bare(device, blocks, x)
            session.infer(image)
        bare, whole, inside = [], [], []
        for _ in range(arguments.rounds):
            bare.append(_bare(device, blocks, x))
            began = time.perf_counter()
            result = session.infer(image)
            whole.append(1e3 * (time.perf_counter() - began))
            inside.append(result.parts.device)
        fork_us = _fork_us(session, arguments.rounds)
    dispatch_us = _dispatch_us(device, arguments.rounds)
    middle = statistics.median(bare)
    machine, threads = platform.machine(), arguments.threads
    print(f"{machine}, {len(blocks)} blocks, {threads} thread(s), medians of {arguments.rounds} rounds\n")
    print("| | ms | over the bare libraries |\n|---|---|---|")
    print(f"| bare libraries | {middle:.3f} | |")
    for name, times in (("session, its blocks", inside), ("session, pixels to answer", whole)):
        over = statistics.median(now - before for now, before in zip(times, bare, strict=True))
        print(f"| {name} | {statistics.median(times):.3f} | {1e3 * over:+.0f} us, {100 * over / middle:+.1f} % |")
    print(f"\nA fork, from reading to node: {statistics.median(fork_us):.1f} us "
          f"(95 % under {np.quantile(fork_us, 0.95):.1f} us)")  # fmt: skip
    if dispatch_us:
        print(f"Dispatch to a transport's thread and back: {statistics.median(dispatch_us):.0f} us "
              f"(95 % under {np.quantile(dispatch_us, 0.95):.0f} us)")  # fmt: skip


def _blocks(session: Session, image: np.ndarray) -> list[str]:
    """What the device runs for the path it takes on its own."""
    tree = session.device.manifest.tree
    nodes = [tree.nodes[one] for one in session.infer(image).nodes]
    end = nodes[-1].handover
    return [node.block for node in nodes if node.block] + ([end.block] if end else [])


def _bare(device: Device, blocks: list[str], x: np.ndarray) -> float:
    began = time.perf_counter()
    for block in blocks:
        x = device.library(block).run(x)
    return 1e3 * (time.perf_counter() - began)


def _fork_us(session: Session, rounds: int) -> list[float]:
    from runtime.inference.inference_state import Walk
    from runtime.result import Parts

    found = []
    for number in range(rounds):
        seconds = 0.03 + 0.01 * (number % 7)
        session.link.observe(Exchange(sent_bytes=3000, received_bytes=100, seconds=seconds, server_s=0.001))
        walk = Walk(parts=Parts(), tree=session.device.manifest.tree, x=np.empty(0, np.float32))
        began = time.perf_counter()
        session._walk.fork(walk, None)
        found.append(1e6 * (time.perf_counter() - began))
    return found


class _AtOnce:
    """A transport that has the answer when it is asked."""

    frames = True

    def __init__(self, shape_out: tuple[int, ...]) -> None:
        self.output = np.zeros((1, *shape_out), np.float32)

    def infer(self, model: str, x: np.ndarray, **_: object) -> Reply:
        """Nothing crosses."""
        return Reply(output=self.output, encode_s=0.0, sent_bytes=3000, received_bytes=100, seconds=0.01, server_s=0.0)

    def close(self) -> None:
        """Nothing to close."""


def _dispatch_us(device: Device, rounds: int) -> list[float]:
    """Microseconds; none where the tree hands nothing over."""
    from runtime.inference.inference_state import Walk
    from runtime.result import Parts

    tree = device.manifest.tree
    crossing = next((node for node in tree.nodes if node.handover is not None), None)
    if crossing is None or crossing.handover is None:
        return []
    transport = _AtOnce((len(tree.classes),))
    x, found = np.zeros((1, *crossing.handover.shape), np.float32), []
    options = SessionOptions(hedge=False, probes=None)
    with Session(device, LinkWatch(tree.types), transport, options) as session:  # type: ignore[arg-type]
        for _ in range(rounds):
            walk = Walk(parts=Parts(), tree=tree, x=x)
            began = time.perf_counter()
            session._walk.handed_over(crossing, x, None, walk, None)
            found.append(1e6 * (time.perf_counter() - began))
    return found


if __name__ == "__main__":
    main()
