"""Whole searches over networks, devices and recorded links: times, margins over surgery, accuracy after fine-tuning.

    python benchmarks/grid.py --data imagefolder:DIR --weights DIR --traces DIR --out runs/grid

`--weights` holds NAME_cifar10_jpeg.safetensors for every base, `--traces` CSV files. The first search of a base builds
its library; what later ones take is what a user with a library waits. Finished runs are read, not repeated.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

from nas.cli.search import default_cache
from nas.config import SearchConfig
from nas.results.run_directory import read_run
from nas.search import search

BASES = ("vgg11", "alexnet")
DEVICES = ("phone", "pi4")
TRACES = (
    "wifi_weak_indoor__zhuge_restaurant_13", "4g_outdoor_quick__att_lte_driving2016_up",
    "4g_indoor_static__nyc19_home1", "4g_weak_indoor__opennetlab_4g500kbps", "wifi_weak_outdoor__sbu_path8_t4_wifi",
    "wifi_outdoor_slow__sbu_path7_t1_wifi",
)  # fmt: skip


def main() -> None:
    """Run the grid and print it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "traces", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--bases", nargs="*", default=BASES)
    parser.add_argument("--devices", nargs="*", default=DEVICES)
    parser.add_argument("--links", nargs="*", default=TRACES)
    parser.add_argument("--finetune-steps", type=int, default=None)
    parser.add_argument("--rtt-ms", type=float, default=None, help="of every link; its scene's unless said")
    options = parser.parse_args()
    rows = []
    for base in options.bases:
        for device in options.devices:
            for trace in options.links:
                config = SearchConfig(
                    base=base, data=options.data, device=device, trace=str(Path(options.traces) / f"{trace}.csv"),
                    weights=str(Path(options.weights) / f"{base}_cifar10_jpeg.safetensors"),
                    finetune_steps=options.finetune_steps, rtt_ms=options.rtt_ms,
                )  # fmt: skip
                folder = Path(options.out) / f"{base}-{device}-{trace}"
                if (folder / "summary.json").exists():
                    summary = read_run(folder)[0]
                else:
                    if folder.exists():
                        shutil.rmtree(folder)
                    began = time.perf_counter()
                    summary = search(config, folder, cache=options.cache).summary
                    summary["seconds"]["wall"] = time.perf_counter() - began
                    (folder / "summary.json").write_text(json.dumps(summary))
                rows.append((base, device, trace, summary))
                print(line(*rows[-1]), flush=True)
    print("\n" + "\n".join(table(rows)))


def line(base: str, device: str, trace: str, summary: dict) -> str:
    """One search in a row."""
    by = {row["method"]: row for row in summary["methods"]}
    shown = ("device_only", "cloud_raw", "cloud_jpeg", "surgery", "branch", "tree")
    rewards = " | ".join(f"{by[method]['reward']:.2f}" for method in shown)
    tuned = summary["finetuning"]
    return (
        f"| {base} | {device} | {trace.split('__')[0]} | {rewards} "
        f"| {by['tree']['reward'] - by['surgery']['reward']:+.2f} "
        f"| {by['surgery']['latency_ms']:.1f} | {by['tree']['latency_ms']:.1f} | {tuned['base_test']:.2f} "
        f"| {tuned['test']:.2f} | {summary['exact']['found_percent']:.2f} | {summary['chosen']} "
        f"| {summary['seconds'].get('wall', summary['seconds']['total']):.0f} |"
    )


def table(rows: list) -> list[str]:
    """The whole grid, with averages per base."""
    head = (
        "| base | device | scene | device only | cloud raw | cloud jpeg | surgery | branch | tree | tree - surgery "
        "| surgery ms | tree ms | base acc % | tree acc % | of exact % | chosen | s |"
    )
    lines = [head, "|---" * 17 + "|", *(line(*row) for row in rows)]
    for base in dict.fromkeys(row[0] for row in rows):
        gains, losses = [], []
        for name, _, _, summary in rows:
            if name == base:
                by = {row["method"]: row["reward"] for row in summary["methods"]}
                gains.append(by["tree"] - by["surgery"])
                losses.append(summary["finetuning"]["base_test"] - summary["finetuning"]["test"])
        lines.append(
            f"\n{base}: tree over surgery {statistics.mean(gains):+.2f} on average, "
            f"accuracy lost {statistics.mean(losses):.2f} points on average, {max(losses):.2f} at most."
        )
    return lines


if __name__ == "__main__":
    main()
