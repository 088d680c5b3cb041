"""Run whole branches of a bundle in an arm64 root file system, and compare with the blocks they came from.

    benchmarks/arm64_root.sh /tmp/arm64root
    python benchmarks/arm64_branch.py --root /tmp/arm64root --bundle BUNDLE --run RUN --target pi4 --paths 3

Inside the root there are python3, numpy, msgspec and tvm-ffi, our `runtime` and `modeltree`, and the bundle; neither
torch nor TVM. Everything runs under qemu-aarch64-static, so the times are no board's: they are not printed.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from modeltree.manifest import PathEntry
from runtime.execution.bundle import Bundle

REPO = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
"""Of the largest output: float32 sums in another order differ by about 1e-6 of it, a wrong layout by about 1."""

INSIDE = """
import importlib.util, json, platform, sys
import numpy as np
from runtime.execution.bundle import Bundle
from runtime.execution.library import Library

spare = [name for name in ("torch", "tvm", "ziglang") if importlib.util.find_spec(name)]
assert not spare, f"{spare} must not be installed here"
target, paths = sys.argv[1], json.loads(sys.argv[2])
bundle = Bundle.open("/v/bundle", target)
for number, blocks in enumerate(paths):
    x = np.load(f"/v/data/x{number}.npy")
    for block in blocks:
        shapes = bundle.block(block)
        library = Library(
            bundle.library_path(block, target=target), runtime=bundle.runtime_path(target),
            shape_in=(1, *shapes.in_shape), shape_out=(1, *shapes.out_shape), threads=2,
        )
        x = library.run(x)
    np.save(f"/v/data/y{number}.npy", x)
print(json.dumps({
    "machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__,
    "modules": sorted({"torch", "tvm", "tvm_ffi"} & set(sys.modules)),
}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="what arm64_root.sh built")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="the run directory that the bundle was compiled from")
    parser.add_argument("--target", default="pi4")
    parser.add_argument("--paths", type=int, default=3, help="how many ways through the tree")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    bundle = Bundle.open(asked.bundle, asked.target)
    chosen = [_blocks(path) for path in _distinct(bundle.manifest.paths)][: asked.paths]
    rng = np.random.default_rng(asked.seed)
    inputs = [rng.standard_normal((1, *bundle.manifest.tree.input_shape)).astype(np.float32) for _ in chosen]
    _furnish(asked.root, asked.bundle, inputs)
    print(_run_inside(asked.root, asked.target, chosen))
    return _compare(asked.root, asked.run, chosen, inputs)


def _blocks(path: PathEntry) -> list[str]:
    """All blocks of a way through the tree, those of the cloud too, so that it ends with logits."""
    return [*path.blocks, *([path.rest] if path.rest else [])]


def _distinct(paths: tuple[PathEntry, ...]) -> list[PathEntry]:
    """Those with the most blocks first, each sequence of blocks once."""
    return list({tuple(_blocks(path)): path for path in sorted(paths, key=lambda path: -len(_blocks(path)))}.values())


def _furnish(root: Path, bundle: Path, inputs: list[np.ndarray]) -> None:
    """Put our code, the bundle and the inputs into the root."""
    for name, source in [("bundle", bundle), ("runtime", REPO / "runtime"), ("modeltree", REPO / "modeltree")]:
        shutil.rmtree(root / "v" / name, ignore_errors=True)
        shutil.copytree(source, root / "v" / name, ignore=shutil.ignore_patterns("__pycache__", "onnx"))
    shutil.rmtree(root / "v/data", ignore_errors=True)
    (root / "v/data").mkdir(parents=True)
    for number, x in enumerate(inputs):
        np.save(root / f"v/data/x{number}.npy", x)


def _run_inside(root: Path, target: str, paths: list[list[str]]) -> str:
    """Run the branches in the root; what it says of itself."""
    (root / "v/inside.py").write_text(INSIDE)
    command = [
        "chroot", str(root), "/usr/bin/qemu-aarch64-static", "-cpu", "max", "-E", "PYTHONPATH=/v", "/usr/bin/python3",
        "/v/inside.py", target, json.dumps(paths),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise SystemExit(f"in {root}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _compare(root: Path, run: Path, paths: list[list[str]], inputs: list[np.ndarray]) -> int:
    """Print each branch's largest difference from torch; 1 when one is too large."""
    import torch

    from compile.program_file import read_program

    failed = 0
    for number, (blocks, x) in enumerate(zip(paths, inputs)):
        tensor = torch.from_numpy(x)
        with torch.no_grad():
            for block in blocks:
                tensor = read_program(run / "blocks" / f"{block}.pt2").module()(tensor)
        wanted, got = tensor.numpy(), np.load(root / f"v/data/y{number}.npy")
        error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
        failed += not error <= TOLERANCE
        print(f"{' > '.join(block[:8] for block in blocks)}: differs by {error:.1e} of the largest output")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
