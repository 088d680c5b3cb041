"""How many arm64 instructions an inference takes: our library for pi4 against ONNX Runtime's aarch64 wheel.

    apt-get install --no-install-recommends qemu-user gcc
    benchmarks/arm64_root.sh /tmp/arm64root
    python benchmarks/arm_instructions.py --root /tmp/arm64root

Both run the same network (random weights, batch 1, one thread) in the arm64 Python of the root, under the
emulation of a Cortex-A72, where a plugin of qemu's (`arm_instructions.c`) counts what is executed. After one inference
to warm up come N, then 2N; a count is the difference between the two, divided by N: start-up, loading and the counting
itself cancel. The answers of both are compared with torch's.

Instructions are not time: a load that misses every cache counts as much as one that hits, and a core may do three at
once or wait for one. What the counts show is how much work surrounds the multiply-adds that both have to do.

It needs Debian's `qemu-user`, not `qemu-user-static`: a static program loads no plugins. It sees the root through a
folder of links (`-L`), so nothing is installed there and no chroot is needed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parent.parent
LANES = 4
"""float32 numbers in a vector of arm64."""
TOLERANCE = 1e-4
"""Of the largest output; see `compile.verify`."""

PI4_CPUINFO = "".join(
    f"processor\t: {number}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    for number in range(4)
)
"""A Pi 4's /proc/cpuinfo. qemu shows this machine's, on which ONNX Runtime's reader of it crashes."""

INSIDE = """
import os, platform, sys
import numpy as np
engine, file, runtime, x, y, shape_out, inferences = sys.argv[1:]
x = np.load(x)
if engine == "ours":
    from runtime.execution.library import Library
    shape = tuple(map(int, shape_out.split(",")))
    infer = Library(file, runtime=runtime, shape_in=x.shape, shape_out=shape, threads=1).run
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    infer = lambda x: session.run(None, {"input": x})[0]
assert platform.machine() == "aarch64"
answer = infer(x)
for repeats in (1, 2):
    os.getppid()
    for _ in range(repeats * int(inferences)):
        infer(x)
os.getppid()
np.save(y, answer)
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Instructions executed, by kind: vector multiply-adds, other vector and float ones, loads and stores; the rest."""

    total: float
    multiply_adds: float
    vector: float
    memory: float

    @property
    def other(self) -> float:
        return self.total - self.multiply_adds - self.vector - self.memory

    def minus(self, before: "Counts") -> "Counts":
        return Counts(**{kind: count - asdict(before)[kind] for kind, count in asdict(self).items()})

    def over(self, inferences: int) -> "Counts":
        return Counts(**{kind: count / inferences for kind, count in asdict(self).items()})


class Emulator:
    """qemu's user emulation with the counting plugin, and what runs in it.

    folder : for the files of the run. root : the arm64 file system. version : of ONNX Runtime.
    """

    def __init__(self, qemu: str, cpu: str, root: Path, folder: Path, version: str) -> None:
        self.qemu, self.cpu, self.folder = qemu, cpu, folder
        self.view = _view(root, folder / "view")
        self.plugin = folder / "count.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(self.plugin), str(source)], check=True)
        self.packages = folder / "packages"
        _onnxruntime(version, self.packages)
        (folder / "inside.py").write_text(INSIDE)

    def counts(self, arguments: Sequence[str], inferences: int) -> Counts:
        """Of one inference, from N and 2N of them in one process."""
        path = f"/v:{REPO}:{self.packages}"
        out = self.folder / "counts"
        out.unlink(missing_ok=True)
        command = [
            self.qemu, "-cpu", self.cpu, "-L", str(self.view), "-plugin", f"{self.plugin},out={out}",
            "-E", f"PYTHONPATH={path}", "-E", "PYTHONHASHSEED=0", "-E", "PYTHONDONTWRITEBYTECODE=1",
            str(self.view / "usr/bin/python3"), str(self.folder / "inside.py"), *arguments, str(inferences),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not out.exists():
            raise SystemExit(f"{self.qemu}: status {done.returncode}\n{done.stdout}{done.stderr}")
        start, middle, end = (_counts(line) for line in out.read_text().splitlines())
        return end.minus(middle).minus(middle.minus(start)).over(inferences)


def _counts(line: str) -> Counts:
    total, multiply_adds, vector, memory = (float(number) for number in line.split())
    return Counts(total=total, multiply_adds=multiply_adds, vector=vector, memory=memory)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="what arm64_root.sh built")
    parser.add_argument("--network", action="append", help="vgg11, alexnet and resnet32 without it")
    parser.add_argument("--image-size", type=int, default=32, help="height and width in pixels")
    parser.add_argument("--inferences", type=int, default=2, help="N")
    parser.add_argument("--cpu", default="cortex-a72", help="that qemu emulates")
    parser.add_argument("--qemu", default=shutil.which("qemu-aarch64"), help="a qemu-aarch64 that takes -plugin")
    parser.add_argument("--folder", type=Path, help="for models, libraries and ONNX Runtime (else temporary)")
    parser.add_argument("--json", type=Path, help="write the counts here as well")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's and TVM's own
    qemu = _checked_qemu(asked.qemu)
    version = _installed_version()
    with tempfile.TemporaryDirectory(prefix="nas-instructions-") as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        emulator = Emulator(qemu, asked.cpu, asked.root.resolve(), folder, version)
        print(f"Instructions of one inference, emulated {asked.cpu}, ONNX Runtime {version}. Counts, not times.\n")
        print("| network | engine | million instructions | multiply-adds | other vector | loads, stores | rest | "
              "multiply-adds, of MACs / 4 | ours / ONNX Runtime |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|")
        networks = asked.network or ["vgg11", "alexnet", "resnet32"]
        rows = [row for name in networks for row in _measured(emulator, name, asked.image_size, asked.inferences)]
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _measured(emulator: Emulator, base: str, image_size: int, inferences: int) -> list[dict[str, object]]:
    """Both engines on one network: prints two lines of the table, and returns them."""

    from compile.machine_code.linking import runtime_library
    from compile.pipeline import compile_block
    from compile.program_file import read_program
    from compile.targets import load_target
    from nas.bench.cases import base_cases

    target, folder = load_target("pi4"), emulator.folder
    (case,) = base_cases([base], folder, image_size=image_size)
    network = case.name
    made = compile_block(read_program(case.program), target)
    runtime, content = runtime_library(target)
    library, x, y = folder / f"{network}.so", folder / f"{network}-x.npy", folder / f"{network}-y.npy"
    library.write_bytes(made.library)
    (folder / runtime).write_bytes(content)
    np.save(x, case.x)
    found: dict[str, Counts] = {}
    for engine, file in [("ours", library), ("onnxruntime", case.onnx)]:
        shape = ",".join(map(str, case.shape_out))
        arguments = [engine, str(file), str(folder / runtime), str(x), str(y), shape]
        found[engine] = emulator.counts(arguments, inferences)
        error = float(np.abs(np.load(y) - case.expected).max() / np.abs(case.expected).max())
        if not error <= TOLERANCE:
            raise SystemExit(f"{engine} on {network} differs from torch by {error:.1e} of the largest output")
    ratio = found["ours"].total / found["onnxruntime"].total
    for engine, counts in found.items():
        millions = [counts.total, counts.multiply_adds, counts.vector, counts.memory, counts.other]
        print(f"| {network} | {engine} | {' | '.join(f'{number / 1e6:.2f}' for number in millions)} | "
              f"{counts.multiply_adds * LANES / made.macs:.2f} | {f'{ratio:.2f}' if engine == 'ours' else ''} |",
              flush=True)  # fmt: skip
    return [
        {"network": network, "engine": engine, "macs": made.macs, **asdict(counts)} for engine, counts in found.items()
    ]


def _view(root: Path, view: Path) -> Path:
    """The root by links, with the processor description of a Pi 4."""
    shutil.rmtree(view, ignore_errors=True)
    (view / "proc").mkdir(parents=True)
    (view / "proc/cpuinfo").write_text(PI4_CPUINFO)
    for name in ("bin", "etc", "lib", "usr", "v"):
        (view / name).symlink_to(root / name)
    return view


def _checked_qemu(qemu: str | None) -> str:
    help_text = subprocess.run([qemu, "-help"], capture_output=True, text=True).stdout if qemu else ""
    if qemu is None or "-plugin" not in help_text:
        raise SystemExit(
            f"{qemu or 'qemu-aarch64'} takes no plugins or is not there: run apt-get install --no-install-recommends "
            "qemu-user, or pass --qemu"
        )
    return qemu


def _installed_version() -> str:
    from importlib.metadata import version

    return version("onnxruntime")


def _onnxruntime(version: str, folder: Path) -> None:
    """Unpack the aarch64 wheel of the version that is installed here, for the root's Python 3.11."""
    if (folder / "onnxruntime").exists():
        return
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--no-deps",
        "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_aarch64", f"onnxruntime=={version}",
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


if __name__ == "__main__":
    sys.exit(main())
