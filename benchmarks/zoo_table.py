"""The zoo's rows as Markdown: `python benchmarks/zoo.py --out FOLDER --table` prints it."""

import itertools
import math
from pathlib import Path

import numpy as np
from zoo_rows import CROSS, DOT_PEERS, DOTS, PEERS, STEPS, TRANSFORMERS, Compiled, Row, read_row


def table(out: Path, names: list[str]) -> str:
    """Markdown: a row a network, what was refused, and geometric means."""
    head = [
        "network", "MMACs", "cuts", "MACs %", "weights MB", "library over weights", "s host", "s pi4 / pi5 / phone",
        "peak GB", "off torch", "off, pi4 / pi5 / phone", "ms", *(f"over {peer}" for peer in PEERS),
        "ms, 2 threads", *(f"over {peer}" for peer in PEERS),
    ]  # fmt: skip
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head))]
    ratios: dict[str, dict[str, dict[str, float]]] = {
        step: {peer: {} for peer in PEERS} for step in ("times", "times2")
    }
    refused = []
    for name in names:
        rows = {one: read_row(out, name, one) for parts in STEPS.values() for one in parts}
        refused += [f"* {name}, {step}: {row.refused}" for step, row in rows.items() if row and row.refused]
        lines.append("| " + " | ".join(_cells(name, rows, ratios)) + " |")
    lines += ["", *refused, "", *_dot_lines(out, names), ""]
    for kind, inside in (("CNNs", False), ("transformers", True)):
        for step, peer in itertools.product(ratios, PEERS):
            mine = [ratio for name, ratio in ratios[step][peer].items() if (name in TRANSFORMERS) == inside]
            if mine:
                mean, worst = math.exp(sum(map(math.log, mine)) / len(mine)), max(mine)
                lines.append(f"{step}: {len(mine)} {kind} over {peer}: geometric mean {mean:.2f}, worst {worst:.2f}.")
    return "\n".join(lines)


def _dot_lines(out: Path, names: list[str]) -> list[str]:
    """Markdown: what the formats of the dot products take beside OpenVINO's, and the means of the ratios."""
    cells = ["network", *(f"{form} ms" for form in DOTS), *(f"{peer} ms" for peer in DOT_PEERS)]
    cells += [f"{form} over {peer}" for form, peer in zip(DOTS, DOT_PEERS)]
    lines, held = ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"], []
    for name in names:
        if (row := read_row(out, name, "timesdot")) is None or (times := row.timed) is None:
            continue
        ratios = [
            float(np.median(np.divide(times.round_ms[f"nas-{form}"], times.round_ms[peer])))
            for form, peer in zip(DOTS, DOT_PEERS)
        ]
        held.append(ratios)
        taken = [float(np.median(times.round_ms[one])) for one in (*(f"nas-{form}" for form in DOTS), *DOT_PEERS)]
        lines.append(
            "| " + " | ".join([name, *(f"{one:.1f}" for one in taken), *(f"{one:.2f}" for one in ratios)]) + " |"
        )
    if not held:
        return []
    means, worst = np.exp(np.log(held).mean(0)), np.max(held, 0)
    return [*lines, "", *(
        f"{len(held)} networks, {form} over {peer}: geometric mean {means[k]:.2f}, worst {worst[k]:.2f}."
        for k, (form, peer) in enumerate(zip(DOTS, DOT_PEERS))
    )]  # fmt: skip


def _cells(name: str, rows: dict[str, Row | None], ratios: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    network = rows["lift"].lifted if rows["lift"] else None
    libraries = {step: row.compiled for step in ("host", *CROSS) if (row := rows[step]) and row.compiled}
    cells = [name, *([""] * 4)]
    if network:
        cells = [
            name,
            f"{network.macs / 1e6:.0f}",
            str(network.cuts),
            f"{network.share:.1f}",
            f"{network.bytes / 1e6:.1f}",
        ]
    sizes = [made.library_bytes / network.bytes for made in libraries.values()] if network else []
    cells.append(f"{max(sizes):.3f}" if sizes else "")
    host = libraries.get("host")
    cross = [libraries.get(step) for step in CROSS]
    cells.append(f"{host.seconds:.0f}" if host else "")
    cells.append(" / ".join(f"{one.seconds:.0f}" if one else "-" for one in cross))
    peaks = [made.peak_bytes for step, made in libraries.items() if step in ("host", CROSS[0])]
    cells.append(f"{max(peaks) / 1e9:.1f}" if peaks else "")
    cells.append(_error(host))
    cells.append(" / ".join(map(_error, cross)))
    for step, held in ratios.items():
        times = row.timed if (row := rows[step]) else None
        if times is None:
            cells += ["", *("" for _ in PEERS)]
            continue
        ours = times.round_ms["nas-f32"]
        for peer in PEERS:
            held[peer][name] = float(np.median(np.divide(ours, times.round_ms[peer])))
        cells += [f"{np.median(ours):.1f}", *(f"{held[peer][name]:.2f}" for peer in PEERS)]
    return cells


def _error(made: Compiled | None) -> str:
    return "-" if made is None or made.off is None else f"{made.off:.0e}"
