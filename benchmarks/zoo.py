"""Networks that people deploy, through the whole compiler: lifted, compiled for four targets, checked, and timed.

    python benchmarks/zoo.py --out FOLDER [--network resnet18 ...] [--step host ...] [--again]
    python benchmarks/zoo.py --out FOLDER --table

Every step of a network is a process of its own and leaves a JSON file in the folder; what is there is not made again
(`--again`: what was refused is). Needs torchvision and timm. Weights are random and batch norms have the statistics of
random images, so errors are those of arithmetic and accuracies mean nothing. Tiles are reckoned unless `--tune`, which
goes for `host` alone. Seconds are of processor, so that other jobs on the machine do not count.

Steps: `here` (lifted: cuts, share of MACs that techniques apply to; compiled for one thread, run against torch),
`cross` (compiled for `pi4`, `pi5` and `phone`; their twins run against torch), `times` (in turns with
the peers, one thread); and where they are named, `two` (compiled for two threads), `times2` (so by the clock, on a
machine with nothing else to do) and `dots` (compiled in bf16-dot and int8-dot for one thread, in turns with OpenVINO's
bf16 and the int8 that NNCF makes of it; needs `pip install nncf`).
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from zoo_rows import (
    CLASSES,
    CROSS,
    DOT_PEERS,
    DOTS,
    NETWORKS,
    PEERS,
    SIZES,
    STEPS,
    UNASKED,
    Compiled,
    Lifted,
    Row,
    Timed,
    file_name,
    read_row,
    row_path,
    write_row,
)
from zoo_table import table

from modeltree.files import write_bytes

LIMIT_S = 3600
ROUNDS, BURST_S = 5, 0.15


def here(name: str, folder: Path, tune: bool) -> dict[str, Lifted | Compiled]:
    """Build, export, analyse, compile for this machine and check; leaves program, library and torch's answer there."""
    from applicable import share

    from compile.targets import host
    from compile.tuning import TuningCache
    from compile.verify import verify_block
    from nas.bench.cases import case_of, random_network
    from transforms import TECHNIQUES, analyse, export

    size = SIZES.get(name, 224)
    model = random_network(NETWORKS.get(name, name), image_size=size, classes=CLASSES)
    program = export(model, (3, size, size))
    case = case_of(file_name(name), program, folder, onnx=False)
    np.savez(folder / f"{file_name(name)}.npz", x=case.x, expected=case.expected)
    network = analyse(program)
    held = {one.data_ptr(): one for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()}
    lifted = Lifted(
        macs=network.spec.macs(), bytes=sum(4 * one.numel() for one in held.values()),
        cuts=len(network.spec.places) - 2, share=share(network, list(TECHNIQUES)),
    )  # fmt: skip
    cache = TuningCache(folder / "tiles.json") if tune else None
    made, library = _library(program, msgspec.structs.replace(host(), threads=1), cache)
    case.library("f32", 1).write_bytes(library)
    made.off, made.checked = verify_block(program, case.library("f32", 1)).relative, "library"
    return {"lift": lifted, "host": made}


def cross(name: str, folder: Path) -> dict[str, Lifted | Compiled]:
    """Compiled for all other targets, and checked here. Those with the same twin have one run for them."""
    from compile.program_file import read_program
    from compile.targets import load_target
    from compile.verify import Deviation
    from compile.vouch import twin_of, vouched

    program = read_program(folder / f"{file_name(name)}.pt2")
    found: dict[str, Lifted | Compiled] = {}
    known: dict[object, Deviation | None] = {}
    for target in map(load_target, CROSS):
        made, _ = _library(program, target, None)
        twin = twin_of(target)
        key = twin and msgspec.structs.replace(twin, name="")
        if key not in known:
            known[key] = vouched(program, target, batch=1, weights="f32")
        if deviation := known[key]:
            made.off, made.checked = deviation.relative, "twin"
        found[target.name] = made
    return found


def two(name: str, folder: Path) -> dict[str, Lifted | Compiled]:
    """Compiled for two threads of this machine."""
    from compile.program_file import read_program
    from compile.targets import host

    program = read_program(folder / f"{file_name(name)}.pt2")
    made, library = _library(program, msgspec.structs.replace(host(), threads=2), None)
    _case(name, folder).library("f32", 2).write_bytes(library)
    return {"two": made}


def dots(name: str, folder: Path) -> dict[str, Lifted | Compiled]:
    """Compiled in the formats of the dot products, for one thread of this machine."""
    from compile.program_file import read_program
    from compile.targets import host

    program = read_program(folder / f"{file_name(name)}.pt2")
    found: dict[str, Lifted | Compiled] = {}
    for form in DOTS:
        found[form], library = _library(program, msgspec.structs.replace(host(), threads=1), None, form)
        _case(name, folder).library(form, 1).write_bytes(library)
    return found


def _case(name: str, folder: Path) -> Any:
    """What step `here` left."""
    from nas.bench.cases import Case

    held = np.load(folder / f"{file_name(name)}.npz")
    return Case(name=file_name(name), folder=folder, x=held["x"], expected=held["expected"])


def _library(program: Any, target: Any, cache: Any, weights: str = "f32") -> tuple[Compiled, bytes]:
    from compile.pipeline import compile_block

    began = time.process_time()
    made = compile_block(program, target, weights=weights, cache=cache, tune=cache is not None)
    seconds, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if cache is not None:
        cache.save()
    facts = Compiled(
        seconds=seconds, peak_bytes=peak, library_bytes=len(made.library), weight_bytes=made.weight_bytes,
        workspace_bytes=made.workspace_bytes, kernels=Counter(made.kernels),
    )  # fmt: skip
    return facts, made.library


def timed(
    name: str, folder: Path, rounds: int, tuned: bool, threads: int = 1, *,
    ours: tuple[str, ...] = ("f32",), peers: tuple[str, ...] = PEERS,
) -> Timed:  # fmt: skip
    """Ours and the peers in turns, with one thread each or two."""
    from compile.bundle.onnx_form import onnx_form
    from compile.program_file import read_program
    from nas.bench import OURS
    from nas.bench.engines import PEERS as KNOWN
    from nas.bench.engines import Runner
    from nas.bench.processes import Child

    case = _case(name, folder)
    if not case.onnx.exists():
        write_bytes(case.onnx, onnx_form(read_program(case.program), batch=1))
    engines = {**{OURS[one].name: OURS[one] for one in ours}, **{peer: KNOWN[peer] for peer in peers}}
    children = {
        one: Child(Runner, one, threads, environment=engine.environment(threads)) for one, engine in engines.items()
    }
    largest = float(np.abs(case.expected).max())
    off = {
        one: float(np.abs(child.call("load", case) - case.expected).max()) / largest for one, child in children.items()
    }
    times: dict[str, list[float]] = {one: [] for one in children}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for one in map(str, rng.permutation(list(children))):
            times[one].append(1e3 * children[one].call("burst", BURST_S, threads == 1))
    for child in children.values():
        child.close()
    return Timed(round_ms=times, off=off, tuned=tuned)


def run_step(name: str, step: str, told: argparse.Namespace) -> None:
    """In this process: the row of one step."""
    import torch

    from nas.jobs.machine import commit, load_average, today

    torch.set_num_threads(1)
    made = partial(Row, network=name, date=today(), commit=commit(), load=load_average())
    folder = told.out / "work"
    try:
        if step in ("times", "times2"):
            threads = 1 if step == "times" else 2
            rows = [made(step=step, timed=timed(name, folder, told.rounds, told.tune, threads))]
        else:
            compiling = {"here": partial(here, tune=told.tune), "cross": cross, "two": two, "dots": dots}
            rows = [
                made(step=part, lifted=one) if isinstance(one, Lifted) else made(step=part, compiled=one)
                for part, one in compiling[step](name, folder).items()
            ]
        if step == "dots":
            rows.append(
                made(step="timesdot", timed=timed(name, folder, told.rounds, told.tune, ours=DOTS, peers=DOT_PEERS))
            )
    except Exception as error:  # a row says what went wrong, whatever it was
        reason = (str(error).strip() or "no message").splitlines()[0]
        rows = [made(step=part, refused=f"{type(error).__name__}: {reason}") for part in STEPS[step]]
    for row in rows:
        write_row(told.out, row)


def drive(told: argparse.Namespace) -> None:
    """Every step that is wanted and not there, each in its own process."""
    (told.out / "work").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1", "TVM_BIND_THREADS": "0"}
    for step, name in _order(told):
        rows = [read_row(told.out, name, one) for one in STEPS[step]]
        if all(row is not None and not (told.again and row.refused) for row in rows):
            continue
        words = ["--out", str(told.out), "--one", "--network", name, "--step", step, "--rounds", str(told.rounds)]
        words += ["--tune"] if told.tune else []
        began = time.monotonic()
        for one in STEPS[step]:
            row_path(told.out, name, one).unlink(missing_ok=True)
        ended = subprocess.run([sys.executable, __file__, *words], env=environment, timeout=LIMIT_S, check=False)
        for one in STEPS[step]:
            if not row_path(told.out, name, one).exists():
                why = f"its process ended with status {ended.returncode}"
                write_row(told.out, Row(network=name, step=one, date="", commit="", load=0.0, refused=why))
        said = {row.refused for one in STEPS[step] if (row := read_row(told.out, name, one)) is not None}
        print(f"{name} {step} {time.monotonic() - began:.0f} s {' '.join(sorted(said))}", flush=True)


def _order(told: argparse.Namespace) -> list[tuple[str, str]]:
    """This machine's steps network by network, then the other targets: what says most comes first."""
    names, steps = told.network or list(NETWORKS), told.step or UNASKED
    first = [(step, name) for name in names for step in STEPS if step in steps and step != "cross"]
    return first + [("cross", name) for name in names if "cross" in steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--network", action="append", help="of the list, or torchvision:NAME or timm:NAME; all unless said"
    )
    parser.add_argument("--step", action="append", choices=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.table:
        print(table(told.out, told.network or list(NETWORKS)))
    elif told.one:
        run_step(told.network[0], told.step[0], told)
    else:
        drive(told)


if __name__ == "__main__":
    main()
