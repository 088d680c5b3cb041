"""What each part of the search is worth: fair chances, boosting, pool; block-wise against per-branch distillation.

    python benchmarks/ablation.py --data imagefolder:DIR --weights DIR --traces DIR [--seeds 5] [--budget 2000]
        [--episodes 12]

The first table leaves parts out, one by one, on every so many-th instance (network x device x recorded link), and gives
the share of the exact optimum's reward. The second searches AlexNet on one link twice, with variants distilled once and
with every composed network distilled whole (`--episodes` of those, since each trains a network).
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from instances import arguments, benches, learnt

from modeltree.link.scenes import load_trace
from modeltree.slicing import slice_blocks
from nas.config import SearchConfig
from nas.finalise.per_branch import BranchOracle
from nas.search import scenario_of
from nas.treesearch.methods import run_branch, run_exact, run_tree
from nas.treesearch.search_spaces import build_search_spaces

VARIANTS = {
    "all": {},
    "no fair chances": {"fair_chances": False},
    "no boosting": {"boosting": False},
    "no pool": {"pool": False},
    "none of them": {"fair_chances": False, "boosting": False, "pool": False},
}


def main() -> None:
    """Print both tables."""
    options = arguments(__doc__, seeds=5, budget=2000, episodes=12, every=4)
    torch.set_num_threads(1)
    shares: dict[str, list[float]] = {name: [] for name in VARIANTS}
    evaluations: dict[str, list[int]] = {name: [] for name in VARIANTS}
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _, _, _, spaces in itertools.islice(benches(options), 0, None, options.every):
        exact = run_exact(spaces)["valued"]
        for name, changes in VARIANTS.items():
            for seed in range(options.seeds):
                config = SearchConfig(seed=seed, budget=options.budget, **changes)
                began = time.perf_counter()
                branch = run_branch(spaces, config, lambda *_: None) if config.boosting else None
                tree = run_tree(spaces, config, branch, lambda *_: None)
                seconds[name].append(time.perf_counter() - began)
                shares[name].append(100 * tree.valued / exact)
                evaluations[name].append(tree.evaluations)
    print("| search | of exact %, mean | worst | evaluations, median | s, median |\n|---|---|---|---|---|")
    for name in VARIANTS:
        print(
            f"| {name} | {statistics.mean(shares[name]):.2f} | {min(shares[name]):.2f} "
            f"| {statistics.median(evaluations[name]):.0f} | {statistics.median(seconds[name]):.1f} |"
        )
    print(f"({len(shares['all']) // options.seeds} instances, {options.seeds} seeds, {options.budget} episodes)\n")
    distillation(options)


def distillation(options: object) -> None:
    """Block-wise against per-branch distillation, on one instance."""
    torch.set_num_threads(2)
    options.bases = ["alexnet"]  # type: ignore[attr-defined]
    _, config, prepared, library, predictor = next(iter(learnt(options)))  # type: ignore[arg-type]
    trace = load_trace(sorted(Path(options.traces).glob("*.csv"))[0], seed=0)  # type: ignore[attr-defined]
    cuts = slice_blocks(prepared.network.spec, config.N)
    spaces = build_search_spaces(
        prepared.network, library, predictor, scenario_of(SearchConfig(device="phone"), trace), cuts,
        single_root=False, max_loss=SearchConfig().max_loss,
    )  # fmt: skip
    print("| distillation | episodes | networks evaluated | s | reward found | accuracy %, measured | latency ms |")
    print("|---|---|---|---|---|---|---|")
    for mode, episodes in (("block", options.budget), ("branch", options.episodes)):  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as scratch:
            changed = SearchConfig(distillation=mode, budget=episodes, data=config.data, weights=config.weights)
            oracle = BranchOracle(prepared, changed, Path(scratch) / "known.json", library.folder)
            began = time.perf_counter()
            asked = oracle if mode == "branch" else None
            branch = run_branch(spaces, changed, lambda *_: None, asked)
            tree = run_tree(spaces, changed, branch, lambda *_: None, asked)
            print(
                f"| {mode} | {episodes} | {tree.evaluations} | {time.perf_counter() - began:.0f} | {tree.reward:.2f} "
                f"| {tree.accuracy:.2f}{'' if asked else ' (predicted)'} | {tree.latency_ms:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
