"""What a session costs a device that has no torch: seconds to import, memory, and words on standard error.

    python benchmarks/device_memory.py [BUNDLE] [--venvs ~/.cache/nas/venvs] [--images 20] [--rounds 3] [--json FILE]

Makes two environments with pip, or takes those that are there: one with the dependencies of pyproject.toml, one with
those of gRPC besides. Of this project they see `runtime` and `modeltree` alone. In each a process of its own opens the
bundle and infers; with `rest` and `grpc`, against `nas serve` in a process of this environment. Without a bundle one is
made: VGG11 with random weights, 37 MB of float32, whole on the device and in the cloud. Memory is what Linux says in
/proc/self/status: VmRSS is what is resident, of which RssFile is mapped from files and can be dropped and read again;
VmHWM is the most that VmRSS was. Exits with 3 where pip cannot get the packages.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from server_load import made_bundle

ROOT = Path(__file__).resolve().parents[1]
NO_PACKAGES = 3
_CLOUD = ("grpcio", "protobuf")
_FORBIDDEN = ("torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "typer")
_FIELDS = ("VmRSS", "VmHWM", "RssAnon", "RssFile", "Threads")

DEVICE = """
import time
started = time.perf_counter()
import runtime
from runtime import Session
imported_s = time.perf_counter() - started
import json, sys
import numpy as np

def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status", encoding="ascii"))
    return {name: int(lines[name].split()[0]) for name in FIELDS}

report = {"imported_s": imported_s, "memory": {"imported": memory()}}
with Session.open(BUNDLE, server=SERVER) as session:
    report["memory"]["opened"] = memory()
    rng = np.random.default_rng(0)
    shape = session.device.manifest.tree.input_shape
    results = [session.infer(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(IMAGES)]
    report["memory"]["inferred"] = memory()
report["answered_by"] = sorted({one.answered_by for one in results})
report["finite"] = all(bool(np.isfinite(one.output).all()) for one in results)
report["forbidden"] = sorted(set(FORBIDDEN) & set(sys.modules))
print(json.dumps(report))
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one process says. memory : kB by field, after importing, opening and inferring. errors : standard error."""

    imported_s: float
    memory: dict[str, dict[str, int]]
    answered_by: list[str]
    finite: bool
    forbidden: list[str]
    errors: str


def main() -> None:
    """Print a line for every process; the last of each kind is the one to quote."""
    options = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = options.bundle or made_bundle(folder, 0, batches=(1,))
        plain = environment(options.venvs / "device", dependencies())
        coded = environment(options.venvs / "device-grpc", dependencies() + dependencies("cloud", _CLOUD))
        packages = seen(folder / "packages")
        print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
        found: dict[str, list[Report]] = {}
        with Serving(bundle) as serving:
            kinds = {"no server": (plain, None), "rest": (plain, serving.rest), "grpc": (coded, serving.grpc)}
            for _ in range(options.rounds):
                for kind, (python, server) in kinds.items():
                    found.setdefault(kind, []).append(process(python, packages, bundle, server, options.images))
                    print(line(kind, found[kind][-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps({kind: [asdict(one) for one in all_] for kind, all_ in found.items()}))


def line(kind: str, report: Report) -> str:
    """One process, in MB of 10^6 bytes."""
    steps = []
    for step, kb in report.memory.items():
        mb = {name: kb[name] * 1024 / 1e6 for name in _FIELDS[:4]}
        steps.append(
            f"{step} {mb['VmRSS']:.1f} (own {mb['RssAnon']:.1f}, of files {mb['RssFile']:.1f}, most {mb['VmHWM']:.1f})"
        )
    threads = report.memory["inferred"]["Threads"]
    answered = f"{threads} threads, answered by {'/'.join(report.answered_by)}"
    errors = f"{len(report.errors)} bytes on standard error"
    return f"{kind:9}  import {report.imported_s:.3f} s; MB: {'; '.join(steps)}; {errors}, {answered}"


def process(python: Path, packages: Path, bundle: Path, server: str | None, images: int) -> Report:
    """Open the bundle and infer, in an environment."""
    given = {"BUNDLE": str(bundle), "SERVER": server, "IMAGES": images, "FIELDS": _FIELDS, "FORBIDDEN": _FORBIDDEN}
    program = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + DEVICE
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, timeout=300, cwd=packages,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the device failed with status {done.returncode}:\n{done.stderr}")
    return Report(errors=done.stderr, **json.loads(done.stdout))


def environment(folder: Path, packages: list[str]) -> Path:
    """Python of a virtual environment with these packages; made once."""
    python, mark = folder / "bin/python", folder / "packages.json"
    if not mark.exists() or json.loads(mark.read_text()) != packages:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            print(f"pip cannot install {', '.join(packages)}: {done.stderr.strip()[-500:]}", file=sys.stderr)
            raise SystemExit(NO_PACKAGES)
        mark.write_text(json.dumps(packages))
    return python


def dependencies(extra: str | None = None, names: tuple[str, ...] = ()) -> list[str]:
    """Of pyproject.toml: all that the project needs, or those of an extra that go by these names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    if extra is None:
        return list(project["dependencies"])
    return [one for one in project["optional-dependencies"][extra] if re.split(r"[<>=;\[ ]", one)[0] in names]


def seen(folder: Path) -> Path:
    """A folder that holds the two packages that a device has, and nothing else."""
    folder.mkdir()
    for name in ("runtime", "modeltree"):
        (folder / name).symlink_to(ROOT / name)
    return folder


class Serving:
    """`nas serve` in a process of its own."""

    def __init__(self, bundle: Path) -> None:
        listen = ["--listen", "http://127.0.0.1:0", "--listen", "grpc://127.0.0.1:0"]
        command = [sys.executable, "-c", "from nas.cli import main; main()", "serve", str(bundle), *listen]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.rest, self.grpc = re.findall(r"\w+://[^\s,]+", self._process.stdout.readline())

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache/nas/venvs")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
