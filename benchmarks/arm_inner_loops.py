"""The inner loop of every convolution schedule against the multiply-add bound, as llvm-mca reckons them.

    apt-get install llvm-16
    python benchmarks/arm_inner_loops.py                        (all targets; a minute)
    python benchmarks/arm_inner_loops.py --target pi4 --format f32 --show dense --json loops.json

This is a model's answer, not a board's. llvm-mca knows ports and latencies of a core as LLVM describes it; it knows no
cache, no memory, no branch predictor, and takes every load as a hit. The bound is the same model's answer for a loop of
independent multiply-adds on registers, so a share tells how much our code hides behind them, not how fast a core is.

One thing is put right on the way: llvm-mca lets an arm64 load of a part of a vector register (`ldr s0`) wait for what
the register held before, which no arm64 core does, since such a load clears the rest. It gets `ldr q0` instead, which
is the same to the ports.

Where LLVM 16 has no description of a core, one that it has stands in, and the table says which: see `MACHINES`.
"""

import argparse
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENOUGH = 0.8
"""Of the bound: what issue 3 asks for."""

_ITERATIONS = (100, 300)
"""A loop's cycles are the difference between so many rounds of it, so that filling the pipeline counts nothing."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A target of ours and the core that llvm-mca takes for it. note : what that core's description is worth."""

    target: str
    cpu: str
    formats: tuple[str, ...]
    note: str


_PLAIN = ("f32", "bf16", "int8")
_A57 = "LLVM 16 describes it as a Cortex-A57: 3 micro-operations and 1 multiply-add of 128 bits a cycle"

MACHINES = (
    Machine(target="pi4", cpu="cortex-a72", formats=_PLAIN, note=_A57),
    Machine(
        target="pi5", cpu="neoverse-n1", formats=(*_PLAIN, "int8-dot"),
        note=f"the server's twin of Cortex-A76; {_A57} (but 2 dot products), where the real core does 2 of either",
    ),
    Machine(
        target="pi5", cpu="neoverse-n2", formats=(*_PLAIN, "int8-dot"),
        note="two generations younger, but like Cortex-A76 it does 2 multiply-adds a cycle; wider in all else",
    ),
    Machine(
        target="phone", cpu="neoverse-n2", formats=(*_PLAIN, "int8-dot"),
        note="as for pi5, from which phone differs in the operating system only",
    ),
    Machine(
        target="pi3", cpu="cortex-a57", formats=_PLAIN,
        note="LLVM 16 has no 32-bit description of Cortex-A7 or A53, which execute in order; the out-of-order A57 in "
        "32-bit mode stands in (2 multiply-adds of 128 bits a cycle), so this shows the mix of instructions only",
    ),
    Machine(
        target="x86-64-v4", cpu="znver4", formats=_PLAIN,
        note="LLVM's own description of Zen 4, with 1 multiply-add of 512 bits in 2 cycles",
    ),
    Machine(target="x86-64-v4", cpu="sapphirerapids", formats=_PLAIN, note="LLVM 16 describes it as a Skylake server"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Isa:
    """How an architecture writes assembly.

    sum : a multiply-add of full vectors, or the multiplication where it and the addition are two instructions.
    bound : for each kind, by how it begins, the multiply-add on registers that it is held against, and `sums` of them.
    """

    comment: str
    sum: str
    branch: str
    bound: dict[str, str]
    sums: int


ISAS = {
    "aarch64": Isa(
        comment="//", sum=r"fmla\s+v\d+\.4s|sdot\s+v\d+\.4s", branch=r"(?:b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,)",
        bound={"fmla": "fmla v{n}.4s, v30.4s, v31.4s", "sdot": "sdot v{n}.4s, v30.16b, v31.16b"}, sums=24,
    ),
    "arm": Isa(
        comment="@", sum=r"v(?:mla|fma|mul)\.f32\s+q\d+", branch=r"b(?:eq|ne|lt|le|gt|ge|lo|ls|hi|hs|mi|pl|cc|cs)?",
        bound={"vmla.f32": "vmla.f32 q{n}, q14, q15", "vfma.f32": "vfma.f32 q{n}, q14, q15",
               "vmul.f32": "vfma.f32 q{n}, q14, q15"}, sums=12,
    ),
    "x86_64": Isa(
        comment="#", sum=r"(?:vfmadd\d+ps|vpdpbusd|vdpbf16ps)\s.*%zmm\d+$", branch=r"j\w+",
        bound={
            "vfmadd": "vfmadd231ps %zmm30, %zmm31, %zmm{n}", "vpdpbusd": "vpdpbusd %zmm30, %zmm31, %zmm{n}",
            "vdpbf16ps": "vdpbf16ps %zmm30, %zmm31, %zmm{n}",
        },
        sums=24,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loop:
    """An innermost loop: its instructions, branch included, the kind of its multiply-adds and how many they are."""

    instructions: tuple[str, ...]
    kind: str
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. Cycles are of one round of the loop; `bound_cycles` those of its multiply-adds alone.

    stack : instructions that name the stack pointer: registers that did not suffice.
    """

    target: str
    core: str
    format: str
    schedule: str
    kernel: str
    tile: dict[str, int]
    multiply_adds: int
    instructions: int
    stack: int
    cycles: float
    bound_cycles: float
    share: float
    binds: str


def schedules() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """One layer a schedule, of a size that the networks here have, by name: how to make it, and its input's shape."""
    from torch import nn

    def conv(
        channels: int, out: int, kernel: int, side: int, stride: int = 1, groups: int = 1
    ) -> tuple[Callable[[], Any], tuple[int, ...]]:
        def make() -> nn.Conv2d:
            return nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups)

        return make, (channels, side, side)

    return {
        "3x3": conv(128, 256, 3, 8),
        "3x3, 32x32 image": conv(3, 64, 3, 32),
        "3x3, 2x2 map": conv(512, 512, 3, 2),
        "3x3, stride 2": conv(64, 128, 3, 16, stride=2),
        "1x1": conv(128, 256, 1, 16),
        "1x1, stride 2": conv(64, 128, 1, 16, stride=2),
        "5x5": conv(64, 192, 5, 8),
        "7x7": conv(64, 64, 7, 16),
        "3x3, 4 groups": conv(128, 128, 3, 16, groups=4),
        "depthwise 3x3": conv(128, 128, 3, 16, groups=128),
        "depthwise 3x3, stride 2": conv(128, 128, 3, 16, groups=128, stride=2),
        "dense": (lambda: nn.Linear(4096, 1024), (4096,)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", help="only these targets")
    parser.add_argument("--core", action="append", help="only these cores of llvm-mca's")
    parser.add_argument("--format", action="append", help="only these weight formats")
    parser.add_argument("--schedule", action="append", help="only these schedules, by the table's name")
    parser.add_argument("--show", action="store_true", help="print the loops themselves too")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's and TVM's own
    mca, rows = find_mca(), []
    print(f"Model: {_version(mca)}. Not measured on a board.")
    for machine in MACHINES:
        if not (_wanted(machine.target, asked.target) and _wanted(machine.cpu, asked.core)):
            continue
        print(f"\n### {machine.target} as {machine.cpu}\n\n{machine.note[0].upper()}{machine.note[1:]}.\n")
        print(f"| {' | '.join(_HEADINGS)} |\n{'|---' * len(_HEADINGS)}|")
        for form in (form for form in machine.formats if _wanted(form, asked.format)):
            for name in (name for name in schedules() if _wanted(name, asked.schedule)):
                row, loop = reckoned(mca, machine, form, name)
                rows.append(row)
                print(_line(row), *(["", *loop.instructions, ""] if asked.show else []), sep="\n", flush=True)
    _conclude(rows)
    if asked.json:
        asked.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    return 0


def _wanted(name: str, chosen: list[str] | None) -> bool:
    return not chosen or name in chosen


def reckoned(mca: str, machine: Machine, form: str, schedule: str) -> tuple[Row, Loop]:
    """The inner loop of one schedule in one format, and what llvm-mca makes of it."""
    from compile.targets import load_target

    target = load_target(machine.target)
    isa = ISAS[target.architecture]
    kernel, tile, assembly = compiled(machine.target, form, schedule)
    loop = innermost(assembly, isa)
    triple, features = target.triple, ",".join(target.features)
    cycles, binds = simulated(mca, [_whole(line) for line in loop.instructions], triple, machine.cpu, features)
    alone = [isa.bound[loop.kind].format(n=n) for n in range(isa.sums)]
    bound = simulated(mca, alone, triple, machine.cpu, features)[0] / isa.sums * loop.multiply_adds
    row = Row(
        target=machine.target, core=machine.cpu, format=form, schedule=schedule, kernel=kernel, tile=tile,
        multiply_adds=loop.multiply_adds, instructions=len(loop.instructions),
        stack=sum(_STACK.search(line) is not None for line in loop.instructions), cycles=cycles, bound_cycles=bound,
        share=bound / cycles, binds=binds,
    )  # fmt: skip
    return row, loop


_HEADINGS = (
    "format", "schedule", "tile", "multiply-adds", "instructions", "on the stack", "cycles", "bound", "share %",
    "what binds",
)  # fmt: skip
_STACK = re.compile(r"\bsp\b|%rsp")
_COMPILED: dict[tuple[str, str, str], tuple[str, dict[str, int], str]] = {}


def compiled(target_name: str, form: str, schedule: str) -> tuple[str, dict[str, int], str]:
    """Name, tile and assembly of the kernel that our compiler makes of one layer."""
    import torch

    from compile.pipeline import PHASES, Work
    from compile.targets import load_target
    from compile.tuning import TuningCache
    from transforms.graph.lifting import export

    if (target_name, form, schedule) in _COMPILED:
        return _COMPILED[target_name, form, schedule]
    torch.manual_seed(0)
    make, shape = schedules()[schedule]
    work = Work(
        program=export(make().eval(), shape), target=load_target(target_name), batch=1, weights=form,
        cache=TuningCache(None), listing=False,
    )  # fmt: skip
    for name, phase in PHASES:
        phase(work)
        if name == "tune":
            break
    found = [(kernel, tile) for kernel, tile in zip(work.kernels, work.tiles) if kernel.macs]
    ((kernel, tile),) = found
    _COMPILED[target_name, form, schedule] = kernel.name, dict(tile), _assembly(kernel, tile, work.target)
    return _COMPILED[target_name, form, schedule]


def _assembly(kernel: Any, tile: Any, target: Any) -> str:
    import tvm

    from compile.machine_code.codegen import built

    function = kernel.function(tile, private=False, name="kernel")
    return str(built(tvm.IRModule({tvm.ir.GlobalVar("kernel"): function}), target).inspect_source("s"))


def innermost(assembly: str, isa: Isa) -> Loop:
    """Of all loops without a loop inside, the one with the highest share of multiply-adds, of equals the longest.

    A loop is what lies between a label and a branch back to it. One with a branch back within it is not innermost.
    Where the whole reduction is written out (depthwise, a few input channels) that is the loop over tiles of the
    output, stores and epilogue included.
    """
    lines = [line.split(isa.comment)[0].strip() for line in assembly.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    branches = {at: re.fullmatch(rf"{isa.branch}\s*(\.L\w+)", line) for at, line in enumerate(lines)}
    loops = [(labels.get(found[1], at), at) for at, found in branches.items() if found]
    loops = [(start, end) for start, end in loops if start < end]
    best: Loop | None = None
    for start, end in loops:
        if any(start <= other_start and other_end < end for other_start, other_end in loops):
            continue
        body = [line for line in lines[start + 1 : end + 1] if line and not line.startswith(".")]
        kinds = Counter(kind for line in body if re.match(isa.sum, line) for kind in isa.bound if line.startswith(kind))
        kind, sums = kinds.most_common(1)[0] if kinds else ("", 0)
        loop = Loop(instructions=tuple(body), kind=kind, multiply_adds=sums)
        if sums and (best is None or _density(loop) > _density(best)):
            best = loop
    if best is None:
        raise SystemExit("the kernel has no loop with a multiply-add of a full vector: read its assembly")
    return best


def _density(loop: Loop) -> tuple[float, int]:
    return loop.multiply_adds / len(loop.instructions), loop.multiply_adds


def _whole(line: str) -> str:
    """A load of a part of a vector register as one of the whole, at an address that its encoding can hold."""
    found = re.fullmatch(r"(ldu?r\s+)[bhsd](\d+,\s*\[\w+)(.*)", line)
    if found is None:
        return line
    rest = "]" if re.fullmatch(r",\s*#-?\d+\]", found[3]) else re.sub(r"#\d\]", "#4]", found[3])
    return f"{found[1]}q{found[2]}{rest}"


def find_mca() -> str:
    """llvm-mca 16, else the newest there is."""
    numbered = [f"llvm-mca-{version}" for version in (16, *range(30, 13, -1))]
    for name in (*numbered, "llvm-mca"):
        if found := shutil.which(name):
            return found
    raise SystemExit("there is no llvm-mca: run apt-get install llvm-16, or llvm for the distribution's own")


def _version(mca: str) -> str:
    said = subprocess.run([mca, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"LLVM version (\S+)", said)
    return f"llvm-mca of LLVM {found[1] if found else 'unknown version'}"


def simulated(mca: str, loop: Sequence[str], triple: str, cpu: str, features: str) -> tuple[float, str]:
    """Cycles that one round of a loop takes in the long run, and what binds it."""
    few, many = (_simulation(mca, loop, triple, cpu, features, rounds) for rounds in _ITERATIONS)
    spent = many["SummaryView"]["TotalCycles"] - few["SummaryView"]["TotalCycles"]
    cycles = spent / (_ITERATIONS[1] - _ITERATIONS[0])
    return cycles, _binding(many, cycles, len(loop))


def _simulation(mca: str, loop: Sequence[str], triple: str, cpu: str, features: str, rounds: int) -> dict[str, Any]:
    command = [mca, "-json", f"-mtriple={triple}", f"-mcpu={cpu}", f"-mattr={features}", f"-iterations={rounds}"]
    done = subprocess.run(command, input="\n".join(loop) + "\n", capture_output=True, text=True)
    said = {} if done.returncode else json.loads(done.stdout)
    if not said or len(said["CodeRegions"][0]["InstructionInfoView"]["InstructionList"]) != len(loop):
        raise SystemExit(f"{mca} refuses a loop for {cpu}: {done.stderr.strip()}")
    return {**said["CodeRegions"][0], "Resources": said["TargetInfo"]["Resources"]}


def _binding(said: dict[str, Any], cycles: float, instructions: int) -> str:
    """The port that is busy all the time, else the dispatcher, else waiting for results; with its share of cycles."""
    used: dict[str, float] = {}
    for entry in said["ResourcePressureView"]["ResourcePressureInfo"]:
        if entry["InstructionIndex"] == instructions:
            name = said["Resources"][entry["ResourceIndex"]].split(".")[0].removesuffix("\0")
            used[name] = max(used.get(name, 0.0), entry["ResourceUsage"])
    summary = said["SummaryView"]
    dispatched = summary["TotaluOps"] / summary["Iterations"] / summary["DispatchWidth"]
    busiest = max(used.values())
    ports = "+".join(sorted(name for name in used if used[name] > 0.98 * busiest))
    if dispatched > max(busiest, 0.9 * cycles):
        return f"dispatch {dispatched / cycles:.0%}"
    return f"{ports} {busiest / cycles:.0%}" if busiest > 0.9 * cycles else f"latency ({ports} {busiest / cycles:.0%})"


def _line(row: Row) -> str:
    tile = " ".join(f"{size} {name}" for name, size in row.tile.items() if name != "parallel" and size > 1)
    return (
        f"| {row.format} | {row.schedule} | {tile} | {row.multiply_adds} | {row.instructions} | {row.stack} | "
        f"{row.cycles:.1f} | {row.bound_cycles:.1f} | {100 * row.share:.0f} | {row.binds} |"
    )


def _conclude(rows: list[Row]) -> None:
    """How many rows reach what was asked for, by core and format."""
    print(f"\n| target | core | format | loops | at {ENOUGH:.0%} or more | least share % | its schedule |")
    print("|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((row.target, row.core, row.format) for row in rows):
        mine = [row for row in rows if (row.target, row.core, row.format) == key]
        least = min(mine, key=lambda row: row.share)
        enough = sum(round(row.share, 4) >= ENOUGH for row in mine)
        print(f"| {' | '.join(key)} | {len(mine)} | {enough} | {100 * least.share:.0f} | {least.schedule} |")


if __name__ == "__main__":
    sys.exit(main())
