"""How near the searches come to the exact optimum, and how fast; random and epsilon-greedy get equal evaluations.

    python benchmarks/regret.py --data imagefolder:DIR --weights DIR --traces DIR [--seeds 5] [--budget 2000]

Every instance (network x device x recorded link) is solved exactly by dynamic programming; rewards are as
the search values them (predicted accuracy, guarded).
"""

import statistics
import time

import torch
from instances import arguments, benches

from nas.config import SearchConfig
from nas.treesearch.methods import run_branch, run_exact, run_surgery, run_tabular, run_tree


def main() -> None:
    """Print one row per instance and the summary."""
    options = arguments(__doc__, seeds=5, budget=2000)
    torch.set_num_threads(1)
    print(
        "| base | device | link | surgery | tree - surgery | exact | branch % | tree % (worst seed) "
        "| random % | e-greedy % | evaluated "
        "| episodes/s |"
    )
    print("|---" * 12 + "|")
    everything: dict[str, list[float]] = {name: [] for name in ("branch", "tree", "random", "egreedy")}
    rates, worst = [], 100.0
    margins: dict[str, list[float]] = {}
    for base, device, link, bench in benches(options):
        exact, cut = run_exact(bench)["valued"], run_surgery(bench).reward
        gains = []
        shares: dict[str, list[float]] = {name: [] for name in everything}
        evaluations = []
        for seed in range(options.seeds):
            config = SearchConfig(seed=seed, budget=options.budget)
            began = time.perf_counter()
            branch = run_branch(bench, config, lambda *_: None)
            tree = run_tree(bench, config, branch, lambda *_: None)
            rates.append(options.budget / (time.perf_counter() - began))
            found = {"branch": branch, "tree": tree}
            found |= {name: run_tabular(bench, config, name, tree.evaluations) for name in ("random", "egreedy")}
            evaluations.append(tree.evaluations)
            gains.append(tree.reward - cut)
            for name, result in found.items():
                shares[name].append(100 * result.valued / exact)
        for name, values in shares.items():
            everything[name] += values
        mean = {name: statistics.mean(values) for name, values in shares.items()}
        worst = min(worst, mean["tree"])
        margins.setdefault(base, []).append(statistics.mean(gains))
        print(
            f"| {base} | {device} | {link} | {cut:.2f} | {statistics.mean(gains):+.2f} "
            f"| {exact:.2f} | {mean['branch']:.2f} | {mean['tree']:.2f} "
            f"({min(shares['tree']):.2f}) | {mean['random']:.2f} | {mean['egreedy']:.2f} "
            f"| {statistics.median(evaluations):.0f} | {statistics.median(rates[-options.seeds :]):.0f} |",
            flush=True,
        )
    print(
        "\nShare of the exact reward, mean over all instances and seeds: "
        + ", ".join(f"{name} {statistics.mean(values):.2f} %" for name, values in everything.items())
        + f". Worst instance of the tree search, mean over seeds: {worst:.2f} %. "
        + "Tree over surgery, predicted reward: "
        + ", ".join(f"{base} {statistics.mean(values):+.2f}" for base, values in margins.items())
        + f". Episodes a second: median {statistics.median(rates):.0f}, least {min(rates):.0f}."
    )


if __name__ == "__main__":
    main()
