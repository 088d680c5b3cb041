"""A tree searched with exits and bits among its forks against the same search without, on recorded links.

    python benchmarks/forks.py --base alexnet_exits --weights FILE --data imagefolder:DIR --traces DIR --out runs/forks

Latencies are predicted, accuracies measured on test images, rewards those of [Wang 2020, eq. 7]; `on trace` is the
emulation over the whole recording. Finished runs are read, not repeated.
"""

import argparse
import statistics
from pathlib import Path

from nas.cli.picture_options import numbers
from nas.cli.search import default_cache
from nas.config import SearchConfig
from nas.results.run_directory import Run, read_run
from nas.search import search

TRACES = (
    "wifi_weak_indoor__zhuge_restaurant_13", "4g_outdoor_quick__att_lte_driving2016_up",
    "4g_indoor_static__nyc19_home1", "4g_weak_indoor__opennetlab_4g500kbps", "wifi_weak_outdoor__sbu_path8_t4_wifi",
    "wifi_outdoor_slow__sbu_path7_t1_wifi",
)  # fmt: skip
KINDS = ("without", "with")


def main() -> None:
    """Search both kinds on every link and print them beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "weights", "data", "traces", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--exits", default="auto")
    parser.add_argument("--bits", default="4,8")
    parser.add_argument("--device", default="phone")
    parser.add_argument("--links", nargs="*", default=TRACES)
    parser.add_argument("--rtt-ms", type=float, default=None, help="of every link; its scene's unless said")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    gains = []
    for link in options.links:
        rows = {}
        for kind in KINDS:
            more = {"exits": options.exits, "bits": tuple(numbers("bits", options.bits, int))} if kind == "with" else {}
            config = SearchConfig(
                base=options.base, weights=options.weights, data=options.data, device=options.device,
                trace=str(Path(options.traces) / f"{link}.csv"), rtt_ms=options.rtt_ms, workers=options.workers,
                executor="serial", methods=("surgery", "branch", "tree"), **more,
            )  # fmt: skip
            folder = Path(options.out) / f"{link}-{kind}"
            done = Run(folder).finished
            summary = read_run(folder)[0] if done else search(config, folder, cache=options.cache, resume=True).summary
            rows[kind] = next(row for row in summary["methods"] if row["method"] == "tree")
        gains.append(rows["with"]["reward"] - rows["without"]["reward"])
        print(line(link, rows), flush=True)
    better = sum(gain > 0 for gain in gains)
    print(f"\nBetter on {better} of {len(gains)} links; {statistics.mean(gains):+.2f} on average.")


def line(link: str, rows: dict) -> str:
    """Both kinds of one link in a row."""
    cells = [link]
    for name, digits in (("reward", 2), ("latency_ms", 2), ("accuracy", 2)):
        cells += [f"{rows[kind][name]:.{digits}f}" for kind in KINDS]
    cells += [f"{rows[kind]['along_trace']['reward']:.2f}" for kind in KINDS]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
