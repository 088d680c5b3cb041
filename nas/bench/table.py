"""Results of `nas bench` in words and as JSON."""

import math
from pathlib import Path

import msgspec

from modeltree.files import write_bytes
from nas.bench.engines import OURS, PEERS
from nas.bench.paired import Ceiling, Results, Rounds


def save_results(results: Results, path: Path) -> None:
    """Every round of every engine, as indented JSON."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def results_text(results: Results) -> str:
    """Markdown: what the machine can do, a table of times and one of ratios per thread count, geometric means."""
    said = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [f"{results.machine}, {results.date}, load average before {results.load_before:.1f}; {said}.", results.what]
    for ceiling in results.ceilings:
        lines += ["", f"## {_threads(ceiling.threads)}", "", _ceiling(ceiling), "", *_table(results, ceiling.threads)]
        lines += ["", *_means(results, ceiling.threads), *_failures(results, ceiling.threads)]
    return "\n".join(lines) + "\n"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _ceiling(ceiling: Ceiling) -> str:
    rates = ", ".join(f"{rate:.0f} GB/s over {size / 1e6:.3g} MB" for size, rate in ceiling.stream_gbps)
    return f"Measured: {ceiling.gflops:.0f} GFLOP/s in float32 from registers; reading {rates}."


def _engines(results: Results, threads: int) -> tuple[list[str], list[str]]:
    """Ours and the peers, as far as they were measured."""
    there = dict.fromkeys(r.engine for r in results.rounds if r.threads == threads)
    ours = [engine.name for engine in OURS.values() if engine.name in there]
    return ours, [name for name in PEERS if name in there]


def _table(results: Results, threads: int) -> list[str]:
    ours, peers = _engines(results, threads)
    head = ["network", "engine", "ms", "quartiles", "% of roofline", "weights MB", "MMACs", "off torch"]
    head += [f"x {peer}" for peer in peers]
    rows = []
    for case in dict.fromkeys(r.case for r in results.rounds):
        for name in [*ours, *peers]:
            entry = results.of(case, name, threads)
            if entry is not None and not entry.failure:
                rows.append(_row(entry, [results.of(case, peer, threads) for peer in peers], name in ours))
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _row(entry: Rounds, peers: list[Rounds | None], is_ours: bool) -> list[str]:
    low, high = entry.quartiles_ms
    cells = [entry.case, entry.engine, f"{entry.median_ms:.3f}", f"{low:.3f}..{high:.3f}"]
    if is_ours:
        share = 100 * entry.roofline_ms / entry.median_ms
        cells += [f"{share:.0f}", f"{entry.weight_bytes / 1e6:.2f}", f"{entry.macs / 1e6:.1f}"]
    else:
        cells += ["", "", ""]
    ratios = [math.nan if peer is None or not is_ours else entry.ratio_to(peer) for peer in peers]
    return [*cells, f"{entry.error:.0e}", *("" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios)]


def _means(results: Results, threads: int) -> list[str]:
    """A line for each of ours."""
    ours, peers = _engines(results, threads)
    lines = []
    for name in ours:
        means = {peer: results.geometric_mean(name, peer, threads) for peer in peers}
        said = [f"{mean:.2f} of {peer} (worst {worst:.2f})" for peer, (mean, worst) in means.items() if mean == mean]
        if said:
            lines.append(f"{name}, geometric mean of the time ratio: {', '.join(said)}.")
    return lines


def _failures(results: Results, threads: int) -> list[str]:
    return [f"{r.case} on {r.engine}: {r.failure}" for r in results.rounds if r.failure and r.threads == threads]
