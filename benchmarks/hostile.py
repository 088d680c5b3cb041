"""What is hostile, sent to a real `nas serve`, and bundles that were tampered with.

    python benchmarks/hostile.py [--messages 100000] [--bundles 500] [--programs 1000] [--pictures 100000]
                                 [--clients 4] [--drips 50] [--seed 0]

Messages come from tests/runtime/hostile_messages.py and hostile_http.py, half over gRPC and half over REST, from
so many clients at once; after every 100 of a client, good requests on old and new connections must be answered rightly.
Meanwhile so many connections send a byte a second. Each message must be refused with a reason, within 20 s. Bundles
come from tests/runtime/hostile_bundles.py: each must be refused before anything of it is loaded. Exported programs
come from tests/compile/hostile_programs.py: each must be read or refused without anything being unpickled. Pictures
come from tests/runtime/images/hostile_pictures.py: each must be decoded or refused with a reason as a server does it.
Prints what came of every kind and the server's memory; ends with status 1 if anything was not as it must be.
"""

import argparse
import collections
import os
import platform
import random
import resource
import socket
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "runtime"), str(TESTS / "nas"), str(TESTS / "compile"), str(TESTS / "runtime" / "images")]

from hostile_bundles import opened, tampered, whole  # noqa: E402
from hostile_http import over_http  # noqa: E402
from hostile_messages import over_grpc  # noqa: E402
from hostile_pictures import hostile, sound_files  # noqa: E402
from hostile_programs import armed, bloated, damaged, outcome, sound  # noqa: E402
from hostile_server import Served  # noqa: E402
from small_bundle import write_small_bundle  # noqa: E402

from modeltree.errors import DataError  # noqa: E402
from modeltree.preprocessing import Preprocessing  # noqa: E402
from runtime.images import received  # noqa: E402

CHECK_EVERY = 100
TELL_EVERY_S = 15.0
DRIP_S = 1.0
DRIPS_AT_MOST_S = {"http": 45.0, "grpc": 150.0}
"""REST gives a request 30 s, gRPC a connection without a call 120 s."""
SHOWN = 5


class Tally:
    """What came of messages, by kind; and what was wrong. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.longest_s: dict[str, float] = collections.defaultdict(float)
        self.wrong: dict[str, list[str]] = collections.defaultdict(list)
        self.count = self.checks = 0

    def add(self, kind: str, outcome: str, wrong: str, seconds: float = 0.0) -> None:
        with self._lock:
            self.count += 1
            self.outcomes[kind][outcome] += 1
            self.longest_s[kind] = max(self.longest_s[kind], seconds)
            if wrong:
                self.wrong[kind].append(wrong)

    def checked(self, wrong: list[str]) -> None:
        with self._lock:
            self.checks += 4
            self.wrong["good requests"] += wrong

    def tell(self) -> int:
        """Print all of it; how many were wrong."""
        for kind, outcomes in sorted(self.outcomes.items()):
            counts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
            print(f"  {kind:46} {self.longest_s[kind]:6.3f} s at most: {counts}")
        wrong = {kind: found for kind, found in self.wrong.items() if found}
        for kind, found in wrong.items():
            print(f"WRONG {len(found)} of {kind}:")
            for one in found[:SHOWN]:
                print(f"    {one}")
        return sum(map(len, wrong.values()))


def main() -> None:
    """All parts."""
    options = arguments()
    print(f"{platform.machine()}, {os.cpu_count()} processors, seed {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = write_small_bundle(folder / "bundle")
        wrong = messages(bundle, folder, options) if options.messages else 0
        wrong += bundles(folder, options) if options.bundles else 0
        wrong += programs(folder, options) if options.programs else 0
    wrong += pictures(options) if options.pictures else 0
    print("all as it must be" if not wrong else f"{wrong} were not as they must be")
    sys.exit(bool(wrong))


def messages(bundle: Path, folder: Path, options: argparse.Namespace) -> int:
    """How many went wrong."""
    tally, started = Tally(), time.monotonic()
    with Served(bundle, folder) as served:
        print(f"the server has {served.memory_mb():.0f} MB at the start", flush=True)
        clients = [
            threading.Thread(
                target=client, args=(served, tally, options.messages // options.clients, options.seed + index)
            )
            for index in range(options.clients)
        ]
        drips = [threading.Thread(target=drip, args=(served, tally, index)) for index in range(options.drips)]
        for one in (*clients, *drips):
            one.start()
        while any(one.is_alive() for one in (*clients, *drips)) and served.alive():
            clients[0].join(TELL_EVERY_S) if clients[0].is_alive() else time.sleep(1.0)
            print(
                f"  {tally.count:7} after {time.monotonic() - started:4.0f} s, {served.memory_mb():.0f} MB", flush=True
            )
        alive = served.alive()
        most_mb = served.memory_mb("VmHWM") if alive else float("nan")
        tally.checked(served.check() if alive else ["the server died"])
    log = served.log.read_bytes()
    wrong = tally.tell() + (b"Traceback" in log)
    print(f"{tally.count} messages and {tally.checks} good requests in {time.monotonic() - started:.0f} s")
    print(
        f"the server had {most_mb:.0f} MB at most; its log has {len(log)} bytes, {log.count(b'Traceback')} tracebacks"
    )
    if (at := log.find(b"Traceback")) >= 0:
        print(log[max(0, at - 300) : at + 3000].decode(errors="replace"))
    return wrong


def client(served: Served, tally: Tally, count: int, seed: int) -> None:
    """Send so many, one after the other."""
    rng = random.Random(seed)
    for number in range(1, count + 1):
        hostile = rng.choice((over_grpc, over_http))(rng)
        started = time.monotonic()
        try:
            outcome, wrong = served.send(hostile)
        except Exception as error:
            outcome, wrong = "nothing", f"{type(error).__name__}: {error}"
        tally.add(hostile.kind, outcome, wrong, time.monotonic() - started)
        if number % CHECK_EVERY == 0:
            if not served.alive():
                return
            tally.checked(served.check())


def drip(served: Served, tally: Tally, index: int) -> None:
    """A request that arrives byte by byte; the server must hang up."""
    url = (served.grpc, served.http)[index % 2]
    scheme, _, place = url.partition("://")
    host, port = place.split(":")
    text = {
        "http": b"POST /v2/models/a/infer HTTP/1.1\r\ncontent-length: 9\r\n" + b"a: b\r\n" * 99,
        "grpc": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x08\6\0\0\0\0\0pingping" * 99,
    }[scheme]
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=5.0) as sock:
        sock.settimeout(DRIP_S)
        closed = any(not _sent(sock, byte) or time.monotonic() - started > DRIPS_AT_MOST_S[scheme] for byte in text)
    seconds = time.monotonic() - started
    late = not closed or seconds > DRIPS_AT_MOST_S[scheme]
    wrong = f"not closed within {DRIPS_AT_MOST_S[scheme]} s" if late else ""
    tally.add(f"a byte a second, {scheme}", "never closed" if late else "closed", wrong, seconds)


def _sent(sock: socket.socket, byte: int) -> bool:
    """Send a byte, wait; whether the connection is still there."""
    try:
        sock.sendall(bytes([byte]))
        return bool(sock.recv(4096)) and not time.sleep(DRIP_S)
    except TimeoutError:
        return True
    except OSError:
        return False


def bundles(folder: Path, options: argparse.Namespace) -> int:
    """How many went wrong."""
    tally, rng, started = Tally(), random.Random(options.seed), time.monotonic()
    good = whole(folder / "whole")
    for number in range(options.bundles):
        kind, bundle = tampered(rng, good, folder / f"{number}")
        begun = time.monotonic()
        tally.add(kind, *opened(bundle, good), time.monotonic() - begun)
    wrong = tally.tell()
    print(f"{tally.count} tampered bundles in {time.monotonic() - started:.0f} s")
    return wrong


def programs(folder: Path, options: argparse.Namespace) -> int:
    """How many went wrong."""
    tally, rng, started, trap, unpickled = Tally(), random.Random(options.seed), time.monotonic(), folder / "sprung", []
    sys.addaudithook(lambda event, args: unpickled.append(args) if event == "pickle.find_class" else None)
    whole = sound()
    kinds = [*armed(trap).items(), *bloated().items()]
    for kind, data in [*kinds, *(("damaged", damaged(rng, whole)) for _ in range(options.programs))]:
        begun = time.monotonic()
        try:
            what = outcome(data).partition(":")[0]
            wrong = "it sprang the trap" if trap.exists() else f"unpickled {unpickled[0]}" if unpickled else ""
        except Exception as error:
            what, wrong = "broke", f"{type(error).__name__}: {error}"
        tally.add(f"program: {kind}", what, wrong, time.monotonic() - begun)
    wrongs = tally.tell()
    print(f"{tally.count} hostile programs in {time.monotonic() - started:.0f} s")
    return wrongs


def pictures(options: argparse.Namespace) -> int:
    """How many went wrong; a crash ends all of it."""
    tally, rng, started = Tally(), np.random.default_rng(options.seed), time.monotonic()
    taking = Preprocessing(height=224, width=224, mean=(0.5,) * 3, std=(0.25,) * 3)
    files = sound_files(rng)
    warnings.simplefilter("ignore")  # Pillow's, of what it passes over
    for file in files:
        received(file, taking, whole=True)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in range(options.pictures):
        kind, data = hostile(files, rng)
        begun, wrong = time.monotonic(), ""
        try:
            received(data, taking, whole=bool(rng.integers(2)))
            what = "decoded"
        except DataError as error:
            what, wrong = "refused", "" if str(error) else "no reason"
        except Exception as error:
            what, wrong = "broke", f"{type(error).__name__}: {error}"
        tally.add(f"picture: {kind}", what, wrong, time.monotonic() - begun)
    wrongs = tally.tell()
    after_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{tally.count} hostile pictures in {time.monotonic() - started:.0f} s, {before_mb:.0f} MB to {after_mb:.0f} MB"
    )
    return wrongs


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--bundles", type=int, default=500)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--drips", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
