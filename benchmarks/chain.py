"""VGG16 in four blocks on four servers in network namespaces of their own: latency, throughput, and faults.

    python benchmarks/chain.py make FOLDER                     the bundle (compiles), certificates
    python benchmarks/chain.py figures FOLDER [--least-ms 100] latency against the plan, throughput against one server
    python benchmarks/chain.py faults FOLDER [--count 2000]    inferences under eight faults, one after the other

Needs root, iproute2 and openssl. Every host has a namespace; its wire to a common bridge is shaped by tc (tbf) to
`RATE_MBPS`. Each server's share of the processor is played by a slowdown: a stage takes at least so long, one by one.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

RATE_MBPS = 200.0
NAMES = ("a", "b", "c", "d")
PORT = 8001
_TAG = f"nch{os.getpid()}"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Hosts:
    """Namespaces on one bridge; `device` has address 1, members 2 and up."""

    def __enter__(self) -> "Hosts":
        self.hub = f"{_TAG}hub"
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "link", "set", "br0", "up")
        for number, name in enumerate(("device", *NAMES), 1):
            space, port = self.space(name), f"p{number}"
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.hub)
            run("ip", "-n", space, "address", "add", f"10.214.0.{number}/24", "dev", "eth0")
            for where, link in ((space, "eth0"), (space, "lo"), (self.hub, port)):
                run("ip", "-n", where, "link", "set", link, "up")
            run("ip", "-n", self.hub, "link", "set", port, "master", "br0")
            for where, link in ((space, "eth0"), (self.hub, port)):
                run("tc", "-n", where, "qdisc", "add", "dev", link, "root", "tbf", "rate", f"{RATE_MBPS}mbit",
                    "burst", "16kb", "limit", "256kb")  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("device", *NAMES):
            subprocess.run(("ip", "netns", "del", self.space(name)), capture_output=True, check=False)
        subprocess.run(("ip", "netns", "del", self.hub), capture_output=True, check=False)

    def space(self, name: str) -> str:
        return f"{_TAG}{name}"

    def start(self, name: str, *words: str, **options: object) -> subprocess.Popen:
        line = ("ip", "netns", "exec", self.space(name), sys.executable, __file__, *words)
        return subprocess.Popen(line, text=True, **options)  # type: ignore[call-overload]


def address(name: str) -> str:
    return f"10.214.0.{NAMES.index(name) + 2}"


def make(folder: Path) -> None:
    import torch

    from compile.targets import host
    from modeltree.slicing import slice_blocks
    from nas.bases import build, save_weights
    from nas.decisions.placement.networks.chain_bundle import write_chain
    from transforms import analyse, export

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bundle").exists():
        torch.set_num_threads(2)
        model = build("vgg16", num_classes=10, image_size=32).eval()
        network = analyse(export(model, (3, 32, 32)))
        write_chain(network, slice_blocks(network.spec, 4), folder / "bundle", [host()], base="vgg16")
        save_weights(model, folder / "vgg16.safetensors")
    if not (folder / "other").exists():
        network = analyse(export(build("nin", num_classes=10, image_size=32).eval(), (3, 32, 32)))
        write_chain(network, slice_blocks(network.spec, 2), folder / "other", [host()], base="nin")
    certificates(folder)


def certificates(folder: Path) -> None:
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    run("openssl", "req", "-x509", *new, "-keyout", str(ca_key), "-out", str(ca), "-subj", "/CN=ca", "-days", "30")
    for name, where, days in [
        *((n, address(n), 30) for n in NAMES),
        ("expired", address("c"), -1),
        ("device", "10.214.0.1", 30),
    ]:
        stem = folder / name
        stem.with_suffix(".ext").write_text(f"subjectAltName=IP:{where}")
        run("openssl", "req", *new, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj", f"/CN={name}")
        run("openssl", "x509", "-req", "-in", f"{stem}.csr", "-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial",
            "-days", str(days), "-extfile", f"{stem}.ext", "-out", f"{stem}.pem")  # fmt: skip
    (folder / "token").write_text("a-token-of-the-benchmark")


def placement(folder: Path, name: str, least_ms: float, *, spares: bool, one: bool = False) -> Path:
    from runtime.chain.placement_file import Member, Placement, Stage, write_placement
    from runtime.execution.bundle import Bundle

    blocks = Bundle.open(folder / "bundle").manifest.paths[0].blocks
    stages = []
    for index, block in enumerate(blocks):
        planned = NAMES[0] if one else NAMES[index]
        others = tuple(n for n in NAMES if n != planned) if spares else ()
        stages.append(Stage(blocks=(block,), members=(planned, *others), expected_ms=least_ms))
    members = tuple(Member(name=n, address=f"grpcs://{address(n)}:{PORT}") for n in NAMES)
    path = folder / f"{name}.json"
    write_placement(Placement(stages=tuple(stages), members=members), path)
    return path


def identity(folder: Path, name: str):
    from runtime.chain.neighbours import Identity
    from runtime.wire.protocol.token import read_token

    return Identity(token=read_token(folder / "token"), ca=folder / "ca.pem", certificate=folder / f"{name}.pem",
                    key=folder / f"{name}.key")  # fmt: skip


def member(options: argparse.Namespace) -> None:
    """A member, in its namespace, until it is killed."""
    from runtime.chain.serving import as_member
    from runtime.server.fronts.admission import ServerTls
    from runtime.server.serving import ServeConfig, Server

    folder, certificate = options.folder, options.certificate or options.name
    who = identity(folder, certificate)
    config = ServeConfig(
        bundle=options.bundle or folder / "bundle", listen=(f"grpcs://{address(options.name)}:{PORT}",), workers=1,
        threads=1,
        token=who.token, tls=ServerTls(certificate=who.certificate, key=who.key, ca=who.ca), max_queue=64,
    )  # fmt: skip
    config, wrap = as_member(config, options.placement, options.name, who)

    def slowed(engine):
        found = wrap(engine)
        found._least_s = dict.fromkeys(range(4), options.least_ms / 1e3)
        return found

    server = Server(config, slowed)
    print("ready", flush=True)
    server.run(threading.Event(), threading.Event())


def device(options: argparse.Namespace) -> None:
    """Inferences from the device's namespace; one JSON line each."""
    from runtime.chain.session import ChainSession

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    with ChainSession.open(
        options.folder / "bundle", options.placement, identity=identity(options.folder, "device")
    ) as s:
        wanted = []
        for picture in pictures:
            x, _ = s.device.entering(picture)
            for stage in s.placement.stages:
                for block in stage.blocks:
                    x = s.device.run(block, x)
            wanted.append(x[0].copy())
        lock = threading.Lock()

        def one(index: int) -> None:
            began = time.time()
            done = s.infer(pictures[index % 16], deadline_ms=options.deadline_ms)
            error = float(np.abs(done.output - wanted[index % 16]).max())
            line = {"at": began, "ms": done.ms, "by": done.answered_by, "attempts": done.attempts, "why": done.why,
                    "error": error, "output": done.output.tolist() if options.outputs else None}  # fmt: skip
            with lock:
                print(json.dumps(line), flush=True)

        one(0)
        if options.streams == 1:
            for index in range(options.count):
                one(index)
        else:
            with ThreadPoolExecutor(options.streams) as pool:
                list(pool.map(one, range(options.count)))


def started(hosts: Hosts, folder: Path, plan: Path, least_ms: float, name: str, *more: str) -> subprocess.Popen:
    process = hosts.start(
        name, "member", str(folder), "--name", name, "--placement", str(plan), "--least-ms", str(least_ms), *more,
        stdout=subprocess.PIPE, stderr=open(folder / f"{name}.log", "a"),  # noqa: SIM115
    )  # fmt: skip
    assert process.stdout.readline().strip() == "ready", f"{name} did not start: see {folder / name}.log"
    return process


def asked(hosts: Hosts, folder: Path, plan: Path, *more: str) -> list[dict]:
    process = hosts.start("device", "device", str(folder), "--placement", str(plan), *more, stdout=subprocess.PIPE)
    lines = [json.loads(line) for line in process.stdout]
    assert process.wait() == 0
    return lines[1:]


def figures(options: argparse.Namespace) -> None:
    folder, least = options.folder, options.least_ms
    four, alone = placement(folder, "four", least, spares=False), placement(folder, "one", least, spares=True, one=True)
    with Hosts() as hosts:
        running = [started(hosts, folder, four, least, name) for name in NAMES]
        lines = asked(hosts, folder, four, "--count", "20", "--outputs")
        moved = sum(b * 8e-3 / RATE_MBPS for b in sizes(folder))
        planned = 4 * least + moved
        took = statistics.median(line["ms"] for line in lines)
        more = 100 * (took / planned - 1)
        print(f"latency: planned {planned:.1f} ms, measured {took:.1f} ms (median of 20), {more:+.1f} %")
        print(f"answers: at most {difference(folder, lines):.2e} from torch's")
        rates = {"four": rate(asked(hosts, folder, four, "--count", "80", "--streams", "8"))}
        stop(running)
        running = [started(hosts, folder, alone, least, "a")]
        lines = asked(hosts, folder, alone, "--count", "24", "--streams", "2")  # more would be given up while they wait
        rates["one"] = rate(lines)
        assert all(line["by"] == "a" for line in lines)
        stop(running)
    four, single = rates["four"], rates["one"]
    print(f"throughput: {four:.2f} a second with four, {single:.2f} with one: {four / single:.2f}x")


def sizes(folder: Path) -> list[int]:
    from runtime.execution.bundle import Bundle

    manifest = Bundle.open(folder / "bundle").manifest
    return [4 * int(np.prod(manifest.blocks[block].in_shape)) for block in manifest.paths[0].blocks]


def difference(folder: Path, lines: list[dict]) -> float:
    import torch

    from nas.bases import build, load_weights_

    model = build("vgg16", num_classes=10, image_size=32).eval()
    load_weights_(model, folder / "vgg16.safetensors")
    pictures = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        y = model(x).numpy()
    return max(float(np.abs(np.array(line["output"]) - y[i % 16]).max()) for i, line in enumerate(lines))


def rate(lines: list[dict]) -> float:
    ends = sorted(line["at"] + line["ms"] / 1e3 for line in lines)
    kept = ends[len(ends) // 5 :]
    return (len(kept) - 1) / (kept[-1] - kept[0])


def stop(running: list[subprocess.Popen]) -> None:
    for process in running:
        process.kill()
        process.wait()


def faults(options: argparse.Namespace) -> None:
    """Eight phases of `count / 8` inferences; in each one thing is wrong from its first third on."""
    folder, least = options.folder, options.least_ms
    plan = placement(folder, "spares", least, spares=True)
    with Hosts() as hosts:
        running = {name: started(hosts, folder, plan, least, name) for name in NAMES}
        process = hosts.start("device", "device", str(folder), "--placement", str(plan), "--count", str(options.count),
                              "--deadline-ms", "5000", stdout=subprocess.PIPE)  # fmt: skip
        phases = itertools.cycle(
            ("none", "killed", "stopped", "slow", "unreachable", "another bundle", "expired", "back")
        )
        lines, phase, undo = [], "", lambda: None
        for number, text in enumerate(process.stdout):
            line = json.loads(text)
            at = number % (options.count // 8 or 1)
            if at == 0:
                undo()
                undo, phase = (lambda: None), next(phases)
            if at == (options.count // 24 or 1):
                undo = broken(hosts, folder, plan, least, running, phase)
            lines.append(line | {"phase": phase})
        undo()
        assert process.wait() == 0
        stop(list(running.values()))
    report(lines)


def broken(hosts, folder, plan, least, running, phase):
    """Break one thing; what mends it."""
    space, c = hosts.space("c"), running["c"]

    def again() -> None:
        stop([running["c"]])
        running["c"] = started(hosts, folder, plan, least, "c")

    if phase == "killed":
        stop([c])
        return again
    if phase == "stopped":
        pid = int(subprocess.check_output(("ip", "netns", "pids", space), text=True).split()[0])
        os.kill(pid, signal.SIGSTOP)
        return lambda: (os.kill(pid, signal.SIGCONT), again())
    if phase == "slow":
        run("tc", "-n", space, "qdisc", "change", "dev", "eth0", "root", "tbf", "rate", "20kbit", "burst", "16kb",
            "limit", "256kb")  # fmt: skip
        return lambda: run("tc", "-n", space, "qdisc", "change", "dev", "eth0", "root", "tbf", "rate",
                           f"{RATE_MBPS}mbit", "burst", "16kb", "limit", "256kb")  # fmt: skip
    if phase == "unreachable":
        run("ip", "-n", hosts.space("b"), "route", "add", "blackhole", f"{address('c')}/32")
        return lambda: run("ip", "-n", hosts.space("b"), "route", "del", "blackhole", f"{address('c')}/32")
    if phase in ("another bundle", "expired"):
        stop([c])
        more = ("--certificate", "expired") if phase == "expired" else ("--bundle", str(folder / "other"))
        running["c"] = started(hosts, folder, plan, least, "c", *more)
        return again
    return lambda: None


def report(lines: list[dict]) -> None:
    wrong = [line for line in lines if line["error"] > 1e-3]
    print(f"{len(lines)} inferences, {len(wrong)} wrong")
    for phase in dict.fromkeys(line["phase"] for line in lines):
        these = [line for line in lines if line["phase"] == phase]
        slow = sorted(line["ms"] for line in these)
        local = sum(line["by"] == "device" for line in these)
        p99 = slow[int(0.99 * len(slow))]
        print(f"{phase:15s} {len(these):5d}  median {statistics.median(slow):7.1f} ms  p99 {p99:7.1f}"
              f"  max {slow[-1]:7.1f}  on the device {local}")  # fmt: skip
    usual = statistics.median(line["ms"] for line in lines if line["phase"] == "none")
    hit = [line["ms"] - usual for line in lines if line["ms"] > usual + 150]
    if hit:
        middle = statistics.median(hit)
        print(f"{len(hit)} inferences met a fault: {middle:.0f} ms more in the median, {max(hit):.0f} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "figures", "faults", "member", "device"))
    parser.add_argument("folder", type=Path)
    for name, kind, default in (("least-ms", float, 100.0), ("count", int, 2000), ("name", str, ""),
                                ("streams", int, 1), ("placement", Path, None), ("certificate", str, ""),
                                ("bundle", Path, None),
                                ("deadline-ms", float, None)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--outputs", action="store_true")
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder)
    else:
        {"figures": figures, "faults": faults, "member": member, "device": device}[options.what](options)


if __name__ == "__main__":
    main()
