"""Inferences of a session while its server and its link break in every way that we could think of.

    python benchmarks/faults.py BUNDLE [--inferences 10000] [--seed 0]

A real `nas serve` (`fault_world.py`), a relay in another process, sessions in this one: over gRPC and REST, plain and
encrypted, prefer-cloud and prefer-device, with and without hedging, in turns. Good times and faults (`fault_kinds.py`)
follow each other at random; images are pixels or normalised already; deadlines are none, comfortable or tight. Every
inference must be answered, with exactly the numbers that the libraries give for its path, and in time wherever the
device alone could have been: its own time for the path, the 95th percentile of measurements within the last minute,
taken between the inferences. Prints tables in Markdown; ends with status 1 if an answer was missing or wrong.

A missed deadline is *disturbed* where the blocks here took longer than the path's median, or one of our threads waited
for a processor, by at least as much as was missed: other work on the machine, not the session, kept it.
"""

import argparse
import contextlib
import itertools
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fault_kinds import KINDS, kinds_for
from fault_record import SETTINGS, Footprint, Inference, Record, told
from fault_truth import Local, Truth, slower
from fault_world import MBPS, RTT_MS, World

from runtime.execution.bundle import Bundle
from runtime.options import SessionOptions
from runtime.remote.link_monitor import LinkWatch
from runtime.session import Session
from runtime.wire.transports import open_transport

IMAGES = 8
TIMEOUT_S = 0.5
MEASURE_EVERY = 4
LONGEST_PAUSE_S = 0.02
RECOVERY_INFERENCES = 200
GOOD_TIMES = 0.4
DEVICE_MS = 15.0
"""What the device takes for its quickest path."""
SETTLED = 10
"""Inferences after the first answer of the cloud, before the next fault."""
SHOWN = 20


class Campaign:
    """Sessions in turn against one world, until there were `count` inferences."""

    def __init__(self, bundle: Path, world: World, count: int, seed: int) -> None:
        self.world, self.count, self.rng = world, count, random.Random(seed)
        self.device = slower(Bundle.open(bundle), DEVICE_MS)
        self.truth = Truth(Bundle.open(bundle), IMAGES, seed)
        self.local = Local(Bundle.open(bundle), self.device)
        self.record = Record()
        self._waited = _Waits()

    def run(self, each: int) -> Record:
        """each : inferences of a session."""
        for setting in itertools.cycle(SETTINGS):
            if len(self.record.inferences) >= self.count:
                return self.record
            until = min(self.count, len(self.record.inferences) + each)
            with self.session(*setting) as session:
                session.measure()
                while len(self.record.inferences) < until:
                    self.episode(session, setting)
            self.record.footprints.append(Footprint.now())

    @contextlib.contextmanager
    def session(self, scheme: str, mode: str, hedge: bool) -> Iterator[Session]:
        """A session with a link of its own to get to know."""
        self.world.server.wait()
        ca = self.world.ca if scheme.endswith("s") else None
        tree = self.device.manifest.tree
        transport = open_transport(self.world.url(scheme), ca=ca)
        session = Session(
            self.device, LinkWatch(tree.types, rtt_ms=RTT_MS), transport,
            SessionOptions(mode=mode, hedge=hedge, timeout_s=TIMEOUT_S), rng=random.Random(self.rng.random()),
        )  # fmt: skip
        with session:
            yield session

    def episode(self, session: Session, setting: tuple[str, str, bool]) -> None:
        """A fault, and the time after it until the cloud has answered again."""
        fault = "none" if self.rng.random() < GOOD_TIMES else self.rng.choice(kinds_for(setting[0]))
        with KINDS[fault](self.world, setting[0], self.rng):
            for _ in range(self.rng.randrange(5, 40)):
                self.infer(session, setting, fault, False)
        if fault == "none" or setting[1] != "prefer-cloud":
            return
        ended, recovered = time.perf_counter(), float("nan")
        for _ in range(RECOVERY_INFERENCES):
            if not self.world.server.is_ready:
                ended = time.perf_counter()
            if self.infer(session, setting, fault, True).by == "cloud":
                recovered = time.perf_counter() - ended
                break
        self.record.recovery_s[fault].append(recovered)
        for _ in range(SETTLED):
            self.infer(session, setting, "none", False)

    def infer(self, session: Session, setting: tuple[str, str, bool], fault: str, after: bool) -> Inference:
        """One inference, judged and noted; sometimes the device's own time is measured before."""
        if len(self.record.inferences) % MEASURE_EVERY == 0:
            self.local.measure(self.truth.image(0, False))
        time.sleep(self.rng.uniform(0.0, LONGEST_PAUSE_S))
        number, ready = self.rng.randrange(IMAGES), self.rng.random() < 0.5
        deadline_ms = self._deadline_ms()
        self._waited.mark()
        try:
            result = session.infer(self.truth.image(number, ready), deadline_ms=deadline_ms)
        except Exception as error:  # nothing may come out of it, so whatever does is counted
            wrong = f"no answer: {type(error).__name__}: {error}"
            return self._noted(setting, fault, after, by="nobody", deadline_ms=deadline_ms, wrong=wrong)
        wrong = self.truth.wrong(result, number)
        over_ms, disturbed = 0.0, False
        if deadline_ms is not None and not result.met and deadline_ms >= self.local.need_ms(result.nodes):
            over_ms = result.parts.total - deadline_ms
            slow_ms = result.parts.device - self.local.usual_ms(result.nodes)
            disturbed = max(slow_ms, self._waited.longest_ms()) >= over_ms
        return self._noted(
            setting, fault, after, by=result.answered_by, total_ms=result.parts.total, deadline_ms=deadline_ms,
            met=result.met, over_ms=over_ms, disturbed=disturbed, wrong=wrong,
        )  # fmt: skip

    def _noted(
        self, setting: tuple[str, str, bool], fault: str, after: bool, *, by: str, deadline_ms: float | None,
        wrong: str, total_ms: float = 0.0, met: bool = False, over_ms: float = 0.0, disturbed: bool = False,
    ) -> Inference:  # fmt: skip
        inference = Inference(
            scheme=setting[0], mode=setting[1], hedge=setting[2], fault=fault, after=after, by=by, total_ms=total_ms,
            deadline_ms=deadline_ms, met=met, over_ms=over_ms, disturbed=disturbed, wrong=wrong,
        )  # fmt: skip
        self.record.inferences.append(inference)
        return inference

    def _deadline_ms(self) -> float | None:
        """None, comfortable or tight."""
        alone_ms = self.local.quickest_ms()
        kind = self.rng.randrange(3)
        return (None, alone_ms * self.rng.uniform(3.0, 10.0), alone_ms * self.rng.uniform(0.5, 2.0))[kind]


class _Waits:
    """How long threads of this process waited for a processor, since `mark`; 0 where the kernel does not say."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def mark(self) -> None:
        self._before = self._now()

    def longest_ms(self) -> float:
        """Of the thread that waited longest."""
        return max((ns - self._before.get(task, 0) for task, ns in self._now().items()), default=0) / 1e6

    @staticmethod
    def _now() -> dict[str, int]:
        found = {}
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
                found[task.name] = int((task / "schedstat").read_text().split()[1])
        return found


def main() -> None:
    """Run and print."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "runtime"))
    from certificates import Authority

    given = arguments()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        world = World(given.bundle, Authority(Path(folder), "faults"), given.seed)
        try:
            record = Campaign(given.bundle, world, given.inferences, given.seed).run(given.each)
        finally:
            world.close()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(
        f"{platform.machine()}, {os.cpu_count()} processors, {time.strftime('%Y-%m-%d')}, commit {commit}, seed "
        f"{given.seed}; {len(record.inferences)} inferences in {(time.perf_counter() - began) / 60:.1f} min; "
        f"link {MBPS:g} Mbit/s, round trip {RTT_MS:g} ms; load average {os.getloadavg()[0]:.1f} at the end\n"
    )
    print(told(record))
    bad = [one for one in record.inferences if one.wrong]
    for one in bad[:SHOWN]:
        print(f"{one.fault}, {one.scheme}, {one.mode}: {one.wrong}")
    sys.exit(bool(bad))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--inferences", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=300, help="Inferences of a session")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
