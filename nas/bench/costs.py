"""What networks or blocks cost in every number format, and kernel by kernel, as results and in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modeltree.files import write_bytes
from nas.bench.cases import Case
from nas.bench.engines import OURS
from nas.bench.processes import Child
from nas.jobs.machine import load_average, processor, today
from nas.jobs.progress import StageProgress, silent_stages

if TYPE_CHECKING:
    from compile.costs import FormatCost, KernelTime


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one case on one target. formats or kernels, whichever was asked for; kernels are those of `weights`."""

    case: str
    target: str
    threads: int
    weights: str = ""
    formats: tuple["FormatCost", ...] = ()
    kernels: tuple["KernelTime", ...] = ()


class CostResults(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run of `nas bench --formats` or `--kernels`, and where it was made."""

    machine: str
    date: str
    load_before: float
    what: str
    costs: tuple[Costs, ...]


class Coster:
    """Prices cases in a process with so many threads: TVM reads their number when it is loaded."""

    def __init__(self, threads: int, tiles: Path | None) -> None:
        from compile.tuning import TuningCache

        self.threads, self.tiles = threads, TuningCache(tiles)

    def formats(self, case: Case, target: str, formats: Sequence[str]) -> Costs:
        """A case on a target, by name or file."""
        from compile.costs import format_costs
        from compile.program_file import read_program
        from compile.targets import load_target

        place = load_target(target)
        threads = self.threads if place.runs_here else 1
        place = msgspec.structs.replace(place, threads=threads)
        found = format_costs(read_program(case.program), place, formats, cache=self.tiles)
        self.tiles.save()
        return Costs(case=case.name, target=place.name, threads=threads, formats=tuple(found))

    def kernels(self, case: Case, target: str, weights: str) -> Costs:
        """Every kernel of a case's library."""
        from compile.costs import kernel_times
        from compile.program_file import read_program
        from compile.targets import load_target

        place = msgspec.structs.replace(load_target(target), threads=self.threads)
        found = kernel_times(read_program(case.program), place, weights=weights, cache=self.tiles)
        self.tiles.save()
        return Costs(case=case.name, target=place.name, threads=self.threads, weights=weights, kernels=tuple(found))


def cost_results(
    cases: Sequence[Case], *, kernels: bool, targets: Sequence[str], weights: Sequence[str], threads: Sequence[int],
    what: str = "", tiles: Path | None = None, progress: StageProgress = silent_stages,
) -> CostResults:  # fmt: skip
    """Price every case on every target with every number of threads; targets that are not here are reckoned for one.

    kernels : times of kernels in place of costs of formats. weights : the formats.
    """
    load_before, found = load_average(), []
    for count in threads:
        with Child(Coster, count, tiles, environment=OURS["f32"].environment(count)) as coster:
            for done, case in enumerate(cases):
                for target in targets:
                    progress(f"{count} threads", done, len(cases), f"{case.name} on {target}")
                    if kernels:
                        found += [coster.call("kernels", case, target, form) for form in weights]
                    else:
                        found.append(coster.call("formats", case, target, weights))
    progress("priced", len(cases), len(cases), "")
    unique = {(one.case, one.target, one.threads, one.weights): one for one in found}
    return CostResults(
        machine=processor(), date=today(), load_before=load_before, what=what, costs=tuple(unique.values())
    )


def save_costs(results: CostResults, path: Path) -> None:
    """As indented JSON."""
    write_bytes(path, costs_json(results) + b"\n")


def costs_json(results: CostResults) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1)


def costs_text(results: CostResults) -> str:
    """Markdown: a table of formats, or one of kernels for every case."""
    lines = [f"{results.machine}, {results.date}, load average before {results.load_before:.1f}.", results.what, ""]
    if any(one.formats for one in results.costs):
        head = ["block", "target", "threads", "format", "ms", "library kB", "weights kB", "maps kB", "output off by"]
        rows = [_format_row(one, cost) for one in results.costs for cost in one.formats if not cost.refused]
        lines += _table(head, rows)
        lines += [f"{one.case}, {cost.format}: {cost.refused}" for one in results.costs for cost in one.formats
                  if cost.refused]  # fmt: skip
        lines += ["", "ms: measured here; with ~ reckoned for one thread, to compare formats. Output off by: root mean "
                  "square over that of torch's output, on random inputs."]  # fmt: skip
    for one in results.costs:
        if one.kernels:
            lines += [f"{one.case}, {one.weights} on {one.target}, {one.threads} threads:", ""]
            lines += [*_table(["kernel", "makes", "ms", "%", "MMACs", "GFLOP/s"], _kernel_rows(one)), ""]
    return "\n".join(lines) + "\n"


def _format_row(costs: Costs, cost: "FormatCost") -> list[str]:
    ms = "" if cost.ms is None else f"{'~' if cost.origin == 'estimated' else ''}{cost.ms:.3f}"
    sizes = [f"{size / 1e3:.0f}" for size in (cost.library_bytes, cost.weight_bytes, cost.workspace_bytes)]
    error = "" if cost.relative_error is None else f"{cost.relative_error:.1e}"
    return [costs.case, cost.target, str(costs.threads), cost.format, ms, *sizes, error]


def _kernel_rows(costs: Costs) -> list[list[str]]:
    """Kernels in the order in which they run, and their sum."""
    total = sum(kernel.ms for kernel in costs.kernels)
    rows = [
        [kernel.name, "x".join(map(str, kernel.out)), f"{kernel.ms:.4f}", f"{100 * kernel.ms / total:.1f}",
         f"{kernel.macs / 1e6:.2f}", f"{2e-6 * kernel.macs / kernel.ms:.1f}" if kernel.macs else ""]
        for kernel in costs.kernels
    ]  # fmt: skip
    macs = sum(kernel.macs for kernel in costs.kernels)
    return [*rows, ["all", "", f"{total:.4f}", "100.0", f"{macs / 1e6:.2f}", f"{2e-6 * macs / total:.1f}"]]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
