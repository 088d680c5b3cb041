"""Streams of tasks with deadlines [Song 2021]: costs, the paper's figures 5 to 7, distances to the optimum, times.

    python benchmarks/streams.py measure --out MS.json
    python benchmarks/streams.py costs --measured MS.json [--weights FILE --data imagefolder:DIR]
    python benchmarks/streams.py run --weights FILE --data imagefolder:DIR --out RUN; nas compile RUN --out BUNDLE
    python benchmarks/streams.py figure k|p|devices [--seeds 10] [--policies DIR] --out DIR
    python benchmarks/streams.py optimum
    python benchmarks/streams.py times

`measure` times every layer as a library of its own at 1 to 10 images on this machine; `costs` fits the lines and writes
what is shipped; `figure` trains a double DQN for each point (kept in --policies) and plays ten drawn streams of 100
tasks with every solver; `optimum` prints every solver's distance to the exact optimum on small streams.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from modeltree.streams.costs import Line, StreamCosts, save_costs
from modeltree.streams.system import Planner, Scripted, StreamSystem, play, total_gain
from modeltree.streams.tasks import Arrivals, Task
from nas.decisions.streams.dynamic import dynamic_programme
from nas.decisions.streams.environment import COSTS, TaskStreamEnv, setting
from nas.decisions.streams.exact import exact
from nas.jobs.machine import commit, processor, today
from runtime.stream.learned import Learned
from runtime.stream.planners import BestFit, Greedy, Random
from runtime.stream.rolling import RollingHorizon

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "modeltree" / "streams" / f"{COSTS}.json"
DEVICE, SLOWDOWN = "pi4", 4.94
"""A Pi Zero 2 W: AlexNet takes it 689.1 ms where a Pi 4 takes 139.4, one thread (ncnn's benchmark table)."""
PAPER = (0.527, 0.623, 0.697, 0.743)
SWEEPS = {"k": (1, 2, 3, 4, 5, 6), "p": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5), "devices": (1, 2, 3, 4, 5, 6)}
ORDER = ("exact", "dp", "rolling", "ddqn", "edf", "greedy", "random")
TASKS = 100


def layers(weights: Path | None) -> tuple[object, object]:
    """The network's layers, and the network with its heads."""
    from nas.bases import build, load_weights_
    from nas.exits.heads import load_heads, new_head
    from nas.exits.places import exit_places
    from nas.profiling.stream_costs import Layers
    from transforms import analyse, export

    model = build("alexnet_exits4", num_classes=10, image_size=32)
    if weights is not None:
        load_weights_(model, weights)
    network = analyse(export(model, (3, 32, 32)))
    places = exit_places(network, "auto", base="alexnet_exits4")
    heads = load_heads(weights, network) if weights is not None else {p: new_head(network, p, 0) for p in places}
    return Layers(network, heads), (network, heads)


def measure(out: Path) -> None:
    """Milliseconds of every layer at every size, on this machine."""
    from nas.profiling.stream_costs import measured

    line_ms = measured(layers(None)[0], progress=lambda done, total, text: print(done, total, text, flush=True))
    out.write_text(json.dumps({"machine": processor(), "date": today(), "ms": dict(line_ms)}))


def costs(measured: Path, weights: Path | None, data: str | None) -> None:
    """The shipped file."""
    from modeltree.profiles import load_profile
    from nas.profiling.stream_costs import profiled, stream_costs

    measurement = json.loads(measured.read_text())
    stack, (network, heads) = layers(weights)
    accuracies, whose = PAPER, "the paper's, since no weights were given"
    if weights is not None and data is not None:
        from nas.cli.search import default_cache
        from nas.data import load_dataset
        from nas.exits.heads import exit_accuracies

        dataset = load_dataset(data, image_size=32, seed=0, cache=default_cache())
        accuracies = [round(one / 100, 4) for one in exit_accuracies(network, heads, dataset.test, dataset)]
        whose = f"measured on {len(dataset.test)} test images of CIFAR-10 (re-encoded as JPEG)"
    origin = (
        f"Device: profile {DEVICE} times {SLOWDOWN}, images one after the other. Server: libraries of every layer, one "
        f"thread, on {measurement['machine']}, {measurement['date']}. Bytes: float32, pixels as one byte. Accuracies: "
        f"{whose}."
    )
    made = stream_costs(
        stack,
        profiled(stack, load_profile(DEVICE), SLOWDOWN),
        measurement["ms"],
        accuracies,
        name=COSTS,
        origin=origin,
    )
    save_costs(made, SHIPPED)
    for branch in made.branches:
        print(f"accuracy {branch.accuracy}")
        for layer in branch.layers:
            print(f"  {layer.name:10} device {layer.device_ms.k:7.3f} D   server {layer.server_ms.k:6.3f} D + "
                  f"{layer.server_ms.b:5.3f} ms (misses by at most {100 * layer.server_ms.error:.0f} %)   "
                  f"{layer.out_bytes.k:.0f} D bytes")  # fmt: skip


def bundle_run(weights: Path | None, data: str, out: Path) -> None:
    """A run of all exits and cuts, for `nas compile OUT --out BUNDLE --batch 1 --batch 4 --batch 10`."""
    from modeltree.profiles import load_profile
    from nas.cli.search import default_cache
    from nas.data import load_dataset
    from nas.decisions.streams.tree import StreamTree
    from nas.exits.heads import exit_accuracies

    dataset = load_dataset(data, image_size=32, seed=0, cache=default_cache())
    _, (network, heads) = layers(weights)
    accuracies = exit_accuracies(network, heads, dataset.test, dataset)
    tree = StreamTree(
        network, heads, accuracies, base="alexnet_exits4", dataset=dataset, device=load_profile(DEVICE),
        cloud=load_profile("cloud_cpu"),
    )  # fmt: skip
    print(tree.write(out), " ".join(f"{one:.2f} %" for one in accuracies))


def trained(
    of: dict[str, float], seed: int, folder: Path, costs_of: StreamCosts | None = None
) -> tuple[Learned, float]:
    """A double DQN for a setting, from a file if it was trained before; and the seconds of processor it took."""
    import torch

    from nas.agents import AGENTS
    from runtime.stream.policy_file import StreamPolicyHeader, read_stream_policy, write_stream_policy

    torch.set_num_threads(1)
    env = TaskStreamEnv(costs=costs_of, **of)
    name = folder / ("_".join(f"{key}{value:g}" for key, value in sorted(of.items())))
    name = name.with_name(f"{name.name}{'' if costs_of is None else f'_{costs_of.name}'}_s{seed}.npz")
    took = name.with_suffix(".seconds")
    if not name.exists():
        began, wall = time.process_time(), time.perf_counter()
        network = AGENTS["ddqn"].train(env, AGENTS["ddqn"].config(seed=seed)).export()
        arrivals = env.arrivals
        header = StreamPolicyHeader(
            agent="ddqn", seed=seed, p=arrivals.p, k=arrivals.k, devices=arrivals.devices, slot_ms=arrivals.slot_ms,
            mbps=env.system.mbps, longest_ms=env.observer.longest_ms, activation=network.activation,
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        write_stream_policy(name, header, env.system.table, network)
        took.write_text(f"{time.process_time() - began:.1f} {time.perf_counter() - wall:.1f}")
    return read_stream_policy(name, env.system)[1], float(took.read_text().split()[0])


def solvers(
    system: StreamSystem, arrivals: Arrivals, ddqn: Planner | None, step_ms: float = 1.0
) -> dict[str, Callable[[list[Task], int], float]]:
    """Gain of a stream by every solver; (tasks, seed)."""
    rolling = RollingHorizon(system, arrivals)

    def played(planner: Planner, tasks: list[Task]) -> float:
        return total_gain(play(system, tasks, planner, devices=arrivals.devices))

    def dp(tasks: list[Task]) -> float:
        return played(Scripted(actions=dynamic_programme(system, tasks, step_ms=step_ms)), tasks)

    def optimum(tasks: list[Task]) -> float:
        known = dynamic_programme(system, tasks)
        best = exact(system, tasks, devices=arrivals.devices, known=[known], most_states=20_000)
        return best.gain if best.proven else math.nan

    every = {
        "exact": lambda tasks, seed: optimum(tasks),
        "dp": lambda tasks, seed: dp(tasks),
        "rolling": lambda tasks, seed: played(rolling, tasks),
        "ddqn": lambda tasks, seed: math.nan if ddqn is None else played(ddqn, tasks),
        "edf": lambda tasks, seed: played(BestFit(system=system), tasks),
        "greedy": lambda tasks, seed: played(Greedy(system=system), tasks),
        "random": lambda tasks, seed: played(Random(system=system, rng=np.random.default_rng(seed)), tasks),
    }
    return {name: every[name] for name in ORDER}


def figure(what: str, seeds: int, out: Path, policies: Path) -> None:
    """Sum of rewards of 100 tasks against k, p or the number of devices: mean and spread over seeds."""
    gains: dict[str, list[list[float]]] = {name: [] for name in ORDER}
    for value in SWEEPS[what]:
        of = {"k": 3.0, "p": 0.1, "devices": 3} | {what: value}
        system, arrivals = setting(**of)
        agent, seconds = trained(of, 0, policies)
        by_name = solvers(system, arrivals, agent)
        streams = [arrivals.draw(TASKS, np.random.default_rng([7, seed])) for seed in range(seeds)]
        for name, solve in by_name.items():
            gains[name].append([solve(tasks, seed) for seed, tasks in enumerate(streams)])
        means = {name: np.mean(rows[-1]) for name, rows in gains.items()}
        text = "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        print(f"{what} = {value:g}: {text}  (trained in {seconds:.0f} s of processor time)", flush=True)
    _write(what, gains, seeds, out)


def _write(what: str, gains: dict[str, list[list[float]]], seeds: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"| {what} | " + " | ".join(ORDER) + " | ddqn of dp % |", "|---" * (len(ORDER) + 2) + "|"]
    for i, value in enumerate(SWEEPS[what]):
        cells = [f"{np.mean(gains[name][i]):.2f} ± {np.std(gains[name][i]):.2f}" for name in ORDER]
        share = 100 * np.mean(gains["ddqn"][i]) / np.mean(gains["dp"][i])
        lines.append(f"| {value:g} | " + " | ".join(cells) + f" | {share:.1f} |")
    print("\n".join(lines))
    print(f"{seeds} streams of {TASKS} tasks a point, mean ± standard deviation; {processor()}, {today()}, {commit()}")
    (out / f"streams_{what}.md").write_text("\n".join(lines) + "\n")
    (out / f"streams_{what}.svg").write_text(drawn(what, gains))


def drawn(what: str, gains: dict[str, list[list[float]]]) -> str:
    """A small SVG: a line a solver, a band of one standard deviation."""
    colours = dict(zip(ORDER, ("#000", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#999")))
    xs, titles = SWEEPS[what], {"k": "deadline, slots an image (k)", "p": "arrival rate p", "devices": "end devices"}
    shown = [name for name in ORDER if name != "random"]
    low = math.floor(min(np.mean(row) - np.std(row) for name in shown for row in gains[name]) / 10) * 10
    high = 111.0

    def at(x: float, y: float) -> str:
        across = 45 + 330 * (x - xs[0]) / (xs[-1] - xs[0])
        return f"{across:.1f},{15 + 205 * (high - min(max(y, low), high)) / (high - low):.1f}"

    parts = []
    for tick in range(int(low), 111, 10 if high - low < 80 else 20):
        y = at(xs[0], tick).split(",")[1]
        parts.append(
            f'<path d="M45,{y}H375" stroke="#ddd"/><text x="40" y="{y}" text-anchor="end" dy="4">{tick}</text>'
        )
    for x in xs:
        parts.append(f'<text x="{at(x, low).split(",")[0]}" y="236" text-anchor="middle">{x:g}</text>')
    for name in shown:
        mean, spread = (np.array([f(row) for row in gains[name]]) for f in (np.mean, np.std))
        edge = [at(x, m + s) for x, m, s in zip(xs, mean, spread)]
        edge += [at(x, m - s) for x, m, s in reversed(list(zip(xs, mean, spread)))]
        parts.append(f'<polygon points="{" ".join(edge)}" fill="{colours[name]}" fill-opacity=".1"/>')
        line = " ".join(at(x, m) for x, m in zip(xs, mean))
        dash = ' stroke-dasharray="4 3"' if name == "exact" else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colours[name]}" stroke-width="2"{dash}/>')
    for i, name in enumerate(shown):
        parts.append(f'<text x="385" y="{30 + 18 * i}" fill="{colours[name]}">{name}</text>')
    parts.append(f'<text x="210" y="254" text-anchor="middle">{titles[what]}</text>')
    parts.append('<text x="45" y="10">sum of rewards, 100 tasks (random is below)</text>')
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 450 260" {style}>{"".join(parts)}</svg>\n'


def optimum(policies: Path) -> None:
    """Streams of 8 tasks, two devices, three exits: how far every solver stays from the exact optimum."""
    from nas.decisions.streams.environment import shipped_costs

    whole = shipped_costs()
    three = replace(whole, name="three_exits", branches=whole.branches[1:])
    settings = {
        "two devices": (three, 2, 1.0), "one device": (three, 1, 1.0),
        "one device, nothing leaves it": (_alone(three), 1, 0.05),
    }  # fmt: skip
    for title, (costs_of, devices, step_ms) in settings.items():
        for k, p in ((2.0, 0.1), (3.0, 0.3)):
            system, arrivals = setting(costs=costs_of, k=k, p=p, devices=devices)
            agent, _ = trained({"k": k, "p": p, "devices": devices}, 0, policies, costs_of)
            by_name = solvers(system, arrivals, agent, step_ms)
            streams = [arrivals.draw(8, np.random.default_rng([9, seed])) for seed in range(50)]
            best = [by_name["exact"](tasks, 0) for tasks in streams]
            lines = []
            for name in ORDER[1:]:
                gaps = [b - by_name[name](tasks, seed) for seed, (tasks, b) in enumerate(zip(streams, best))]
                equal = sum(gap < 1e-6 for gap in gaps)
                lines.append(f"{name} {np.mean(gaps):.3f} (worst {np.max(gaps):.3f}, equal in {equal})")
            print(
                f"{title}, k = {k:g}, p = {p:g}: optimum {np.mean(best):.3f}; below it: {'; '.join(lines)}", flush=True
            )


def _alone(costs_of: StreamCosts) -> StreamCosts:
    """The same network where sending anything but an exit's answer takes for ever, and that takes nothing: no two tasks
    overlap, as algorithm 1 assumes."""
    branches = []
    for branch in costs_of.branches:
        made = [replace(layer, out_bytes=Line(k=1e12)) for layer in branch.layers[:-1]]
        branches.append(replace(branch, layers=(*made, replace(branch.layers[-1], out_bytes=Line(k=0.0)))))
    return replace(costs_of, name=f"{costs_of.name}_alone", in_bytes=Line(k=1e12), branches=tuple(branches))


def times(policies: Path) -> None:
    """How long solvers take: processor time, and what a clock on the wall says."""
    system, arrivals = setting()
    tasks = arrivals.draw(TASKS, np.random.default_rng(0))
    agent, seconds = trained({"k": 3.0, "p": 0.1, "devices": 3}, 0, policies)
    print(f"double DQN, {processor()}: trained in {seconds:.1f} s of processor time")
    rolling = RollingHorizon(system, arrivals)
    runs: dict[str, Callable[[], object]] = {
        "dp, 100 tasks": lambda: dynamic_programme(system, tasks),
        "exact, 100 tasks": lambda: exact(system, tasks, devices=3),
        "rolling, 100 decisions": lambda: play(system, tasks, rolling, devices=3),
        "ddqn, 100 decisions": lambda: play(system, tasks, agent, devices=3),
        "edf, 100 decisions": lambda: play(system, tasks, BestFit(system=system), devices=3),
    }
    for name, run in runs.items():
        wall, cpu = [], []
        for _ in range(7):
            began, busy = time.perf_counter(), time.process_time()
            run()
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - busy)
        print(f"{name}: {1e3 * np.median(wall):.2f} ms on the wall, {1e3 * np.median(cpu):.2f} ms of processor time")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "costs", "run", "figure", "optimum", "times"))
    parser.add_argument("axis", nargs="?", choices=tuple(SWEEPS))
    parser.add_argument("--out", type=Path, default=Path("runs/streams"))
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--policies", type=Path, default=Path("runs/streams/policies"))
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.out)
    elif options.what == "costs":
        if options.measured is None:
            parser.error("--measured FILE is needed: see measure")
        costs(options.measured, options.weights, options.data)
    elif options.what == "run":
        bundle_run(options.weights, options.data or "digits", options.out)
    elif options.what == "figure":
        if options.axis is None:
            parser.error("which figure: k, p or devices")
        figure(options.axis, options.seeds, options.out, options.policies)
    elif options.what == "optimum":
        optimum(options.policies)
    else:
        times(options.policies)


if __name__ == "__main__":
    main()
