"""Agents against the exact rule and the simple ones, on a tree's actions or on made-up ones [Niu 2022, fig. 6].

    python benchmarks/policies.py --tree TREE.json --out runs/policies
    python benchmarks/policies.py --made-up --out runs/policies [--seeds 5] [--every 5]

Trains every agent once a seed, one after the other; what is trained stays in --out and is not trained again. Then every
bandwidth from 0 to 10 MB/s (80 Mbit/s) in 101 steps: prints tables as Markdown, writes a CSV and SVGs beside them.
`dqn plain` is the DQN of Mnih et al. without what ours has beyond it. Of the agents' seeds the median one is shown.
"""

import argparse
import hashlib
import io
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeltree.files import write_bytes, write_text
from modeltree.offloading.decisions import Decisions, DecisionTable, Objective, tree_decisions
from modeltree.units import mbps, ms_from_s
from nas.agents import AGENTS
from nas.decisions.offloading.compare import contenders, over_bandwidths, write_csv
from nas.decisions.offloading.environment import DecisionEnv
from nas.decisions.offloading.evaluate import Sweep, decision_ms, paper_bandwidths, sweep
from nas.decisions.offloading.inputs import device_energy, read_tree
from nas.jobs.machine import commit, processor, today
from nas.report.pieces.charts import as_svg
from nas.report.policies import lines_chart
from runtime.selection.policies import Dense, Trained

MB_PER_S = mbps(1e6, ms_from_s(1.0))
"""1 MB/s in Mbit/s."""

TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "sac": ("sac", {}),
    "dqn": ("dqn", {}),
    "dqn plain": ("dqn", {"dueling": False, "begin_at_mean": False, "last_lr": 1.0}),
}


EXITS = {1: (9, 78.7), 2: (12, 81.7), 3: (20, 83.6)}
"""Layers up to each exit, and its accuracy [Niu 2022, sec. IV]."""
LOST = {4: 3.0, 8: 0.5, 12: 0.05}
"""Points of accuracy that a code of so many bits costs on average, made up."""
IMAGE = 3 * 224 * 224
ALEXNET = (
    (193_600, 70.3), (193_600, 0), (46_656, 0), (139_968, 224), (139_968, 0), (32_448, 0), (64_896, 112), (64_896, 0),
    (43_264, 149.5), (43_264, 0), (43_264, 99.7), (43_264, 0), (9216, 0), (9216, 0), (4096, 37.7), (4096, 0),
    (4096, 0), (4096, 16.8), (4096, 0), (10, 0.04),
)  # fmt: skip
VGG = (
    (3_211_264, 86.7), (802_816, 0), (1_605_632, 925), (401_408, 0), (802_816, 925), (802_816, 1850), (200_704, 0),
    (401_408, 925), (401_408, 1850), (100_352, 0), (100_352, 462), (100_352, 462), (25_088, 0), (4096, 102.8),
    (4096, 0), (4096, 0), (4096, 16.8), (4096, 0), (4096, 0), (10, 0.04),
)  # fmt: skip
"""Numbers that a layer of AlexNet and of VGG11 gives for an image of 224 x 224, and its millions of MACs."""


def made_up(layers: tuple[tuple[int, float], ...], *, mmacs_per_ms: float, numbers_per_ms: float) -> Decisions:
    """189 actions as the paper's: 3 exits, 21 cuts, 3 widths; the cloud is 20 times faster, coding takes 60 %."""
    ms = np.array([macs / mmacs_per_ms + numbers / numbers_per_ms for numbers, macs in layers])
    sizes = [IMAGE, *(numbers for numbers, _ in layers)]
    lost = np.random.default_rng(0).uniform(0.3, 1.5, len(sizes))
    rows = []
    for (exit, (end, accuracy)), cut, (bits, points) in itertools.product(
        EXITS.items(), range(len(sizes)), LOST.items()
    ):
        if cut >= end:
            rows.append((exit, cut, bits, ms[:end].sum(), 0.0, 0.0, accuracy))
            continue
        device_ms, cloud_ms = ms[:cut].sum() + sizes[cut] / 200e3, ms[cut:end].sum() / 20 + sizes[cut] / 2e6
        rows.append((exit, cut, bits, device_ms, cloud_ms, sizes[cut] * bits / 8 * 0.4, accuracy - points * lost[cut]))
    names = ("exit", "cut", "bits", "device_ms", "cloud_ms", "sent_bytes", "accuracy")
    return Decisions(table=DecisionTable(**dict(zip(names, map(np.array, zip(*rows))))), rtt_ms=3.0)


def problems(options: argparse.Namespace) -> dict[str, Decisions]:
    """What to compare on, by name; rewards are the paper's."""
    if options.tree is None:
        return {
            "alexnet made up": made_up(ALEXNET, mmacs_per_ms=5, numbers_per_ms=100e3),
            "vgg made up": made_up(VGG, mmacs_per_ms=25, numbers_per_ms=500e3),
        }
    tree, path = read_tree(options.tree)
    energy, _ = device_energy(tree)
    return {path.stem: tree_decisions(tree, energy=energy, objective=Objective(), rtt_ms=options.rtt_ms)}


def trained(name: str, decisions: Decisions, seed: int, folder: Path, steps: int | None) -> tuple[Trained, float]:
    """A policy and how long its training took in s; from the folder if it was trained before on the same."""
    agent, changed = TRAINED[name]
    config = AGENTS[agent].config(seed=seed, **changed, **({} if steps is None else {"steps": steps}))
    table = decisions.table
    columns = [getattr(table, column) for column in ("device_ms", "cloud_ms", "sent_bytes", "accuracy")]
    content = json.dumps([asdict(config), decisions.rtt_ms]).encode() + b"".join(map(bytes, [table.keys, *columns]))
    file = folder / f"{name.replace(' ', '_')}-{seed}-{hashlib.sha256(content).hexdigest()[:12]}.npz"
    if not file.exists():
        began = time.process_time()
        arrays = AGENTS[agent].train(DecisionEnv(decisions), config).export().arrays()
        held = io.BytesIO()
        np.savez(held, train_s=np.array(time.process_time() - began), **arrays)
        write_bytes(file, held.getvalue())
    with np.load(file, allow_pickle=False) as found:
        network = Dense.from_arrays({key: found[key] for key in found.files if key != "train_s"})
        return Trained(decisions=decisions, network=network), float(found["train_s"])


def compare(name: str, decisions: Decisions, options: argparse.Namespace) -> None:
    """Train, sweep, print and write."""
    folder, swept = options.out / name.replace(" ", "_"), paper_bandwidths()
    shown: dict[str, Trained] = {}
    print(f"## {name}: {len(decisions)} actions\n\n| agent | share of the exact reward a seed, % | mean | worst | "
          "training, s of CPU |\n|---|---|---|---|---|")  # fmt: skip
    for agent in TRAINED:
        agents = [trained(agent, decisions, seed, folder, options.steps) for seed in range(options.seeds)]
        shares = np.array([100 * sweep(decisions, policy, swept).share for policy, _ in agents])
        shown[agent] = agents[int(np.argsort(shares, kind="stable")[len(shares) // 2])][0]
        print(f"| {agent} | {', '.join(f'{share:.2f}' for share in shares)} | {shares.mean():.2f} | {shares.min():.2f} "
              f"| {np.mean([spent for _, spent in agents]):.0f} |", flush=True)  # fmt: skip
    policies = contenders(decisions, shown)
    sweeps = over_bandwidths(decisions, policies, swept)
    titles = ("policy", "share, %", "mean latency above 0 MB/s, ms", "mean accuracy, %", "decision, µs")
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for policy, one in sweeps.items():
        spent_us = 1000 * decision_ms(decisions, policies[policy], swept)
        latency_ms = one.latency_ms[1:].mean()
        share = 100 * one.reward.sum() / sweeps["exact"].reward.sum()
        print(f"| {policy} | {share:.2f} | {latency_ms:.1f} | {one.accuracy.mean():.2f} | {spent_us:.1f} |")
    by_bandwidth(decisions.table, sweeps, options.every)
    write_csv(folder / "sweep.csv", decisions.table, sweeps)
    draw(folder, decisions.table, swept, sweeps)


def by_bandwidth(table: DecisionTable, sweeps: Mapping[str, Sweep], every: int) -> None:
    """Print what each chose; `exit/cut/bits ms %`, with a dash for bits where nothing is sent."""
    print(f"\n`exit/cut/bits ms %`; speed-up: latency of all on the device over that of the exact rule and of sac.\n\n"
          f"| MB/s | {' | '.join(sweeps)} | speed-up, exact | sac |\n{'|---' * (len(sweeps) + 3)}|")  # fmt: skip
    alone_ms = sweeps["on_device"].latency_ms if "on_device" in sweeps else np.full(len(sweeps["exact"].mbps), np.nan)
    faster = {name: alone_ms / sweeps[name].latency_ms for name in ("exact", "sac")}
    for i in range(0, len(alone_ms), every):
        cells = []
        for one in sweeps.values():
            action = int(one.action[i])
            bits = table.bits[action] if table.sends[action] else "-"
            place = f"{table.exit[action]}/{table.cut[action]}/{bits}"
            cells.append(f"{place} {one.latency_ms[i]:.1f} {one.accuracy[i]:.1f}")
        ratios = " | ".join(f"{values[i]:.2f}" for values in faster.values())
        print(f"| {sweeps['exact'].mbps[i] / MB_PER_S:.1f} | {' | '.join(cells)} | {ratios} |")
    most = {name: f"{np.nanmax(values):.2f}" for name, values in faster.items()}
    print(f"\nLargest speed-up: exact {most['exact']}, sac {most['sac']}.\n")


def draw(folder: Path, table: DecisionTable, at_mbps: np.ndarray, sweeps: Mapping[str, Sweep]) -> None:
    """One SVG each for latency, accuracy, reward and what is chosen."""
    drawn = {
        "latency in ms": {name: one.latency_ms for name, one in sweeps.items()},
        "accuracy in %": {name: one.accuracy for name, one in sweeps.items()},
        "reward": {name: one.reward for name, one in sweeps.items()},
        "exit": {name: table.exit[one.action] for name, one in sweeps.items()},
        "cut": {name: table.cut[one.action] for name, one in sweeps.items()},
        "bits": {name: np.where(table.sends, table.bits, np.nan)[one.action] for name, one in sweeps.items()},
    }
    for label, lines in drawn.items():
        picture = lines_chart(at_mbps / MB_PER_S, lines, x_title="bandwidth in MB/s", y_title=label)
        if picture is not None:
            write_text(folder / f"{label.split()[0]}.svg", as_svg(picture, list(lines)))


def main() -> None:
    """Compare on every problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tree", type=Path, help="a tree's JSON or a run; its leaves are the actions")
    source.add_argument("--made-up", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of every training; the agents' own unless given")
    parser.add_argument("--rtt-ms", type=float, help="the tree's unless given")
    parser.add_argument("--every", type=int, default=5, help="print every so-manieth bandwidth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, {today()}, commit {commit()}\n")
    for name, decisions in problems(options).items():
        compare(name, decisions, options)


if __name__ == "__main__":
    main()
