"""The switch against a session that weighs its leaves by what it meets: emulated, with the runtime's own estimator.

    python benchmarks/reweighing.py --traces DIR TREE...

A TREE is a run directory's tree.json or a bundle's manifest.json. Every tree is walked over every trace of the folder
from 200 starts a quarter of a second apart, at a round trip of 3 ms and at the trace's own, and with times as the tree
predicts them, the server 20 ms slower, and the device twice as slow. The tree that chooses by bandwidth types knows
nothing of that; who weighs meets it. Everything is emulated: computing and server take what the case says, transfers
what the trace carries, the bandwidth is known as the runtime's estimator knows it.
"""

import argparse
from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import FormatError
from modeltree.link.traces import Trace, read_trace
from modeltree.manifest import decode_manifest
from modeltree.reward import Reward
from modeltree.tree import ModelTree, decode_tree
from nas.emulation.estimated import emulate_estimated

STARTS, APART_S = 200, 0.25
CASES = {"as predicted": (1.0, 0.0), "server 20 ms slower": (1.0, 20.0), "device twice as slow": (2.0, 0.0)}


def main() -> None:
    """Print a row a tree and case, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("trees", type=Path, nargs="+")
    told = parser.parse_args()
    traces = [read_trace(path) for path in sorted(told.traces.glob("*.csv"))]
    print("| tree | case | links | reward: switch | measured | ms: switch | measured | better / worse by 0.5 |")
    print("|---|---|---|---|---|---|---|---|")
    totals = []
    for path in told.trees:
        tree = tree_of(path)
        for case, (slower, later_ms) in CASES.items():
            pairs = [
                pair(met(tree, link.rtt_ms, slower, later_ms), link)
                for trace in traces
                for link in (trace.with_rtt(3.0), trace)
            ]
            rewards, latencies = (np.array(column) for column in zip(*pairs, strict=True))
            totals.append(rewards)
            print(row(path, case, rewards, latencies))
    gains = np.concatenate(totals) @ [-1, 1]
    print(f"\n{len(gains)} runs: {gains.mean():+.2f} of reward on average, {gains.min():+.2f} at worst.")


def tree_of(path: Path) -> ModelTree:
    """Of a run directory or a bundle."""
    try:
        return decode_tree(path.read_bytes(), str(path))
    except FormatError:
        return decode_manifest(path.read_bytes(), str(path)).tree


def met(tree: ModelTree, rtt_ms: float, slower: float, later_ms: float) -> ModelTree:
    """The tree with the times that are met."""
    nodes = tuple(
        msgspec.structs.replace(
            node, device_ms=slower * node.device_ms, cloud_ms=node.cloud_ms + later_ms * (node.handover is not None)
        )
        for node in tree.nodes
    )
    return msgspec.structs.replace(tree, nodes=nodes, rtt_ms=rtt_ms)


def pair(tree: ModelTree, trace: Trace) -> tuple[tuple[float, float], tuple[float, float]]:
    """((reward, reward), (ms, ms)) of the switch and of who weighs."""
    starts_s = np.arange(STARTS) * APART_S
    both = [emulate_estimated(tree, trace, starts_s=starts_s, policy=policy) for policy in ("switch", "measured")]
    rewards = tuple(float(Reward().of(one.accuracy, one.latency_ms).mean()) for one in both)
    return (rewards[0], rewards[1]), (float(both[0].latency_ms.mean()), float(both[1].latency_ms.mean()))


def row(path: Path, case: str, rewards: np.ndarray, latencies: np.ndarray) -> str:
    """As Markdown."""
    gains = rewards[:, 1] - rewards[:, 0]
    (one, two), (first, second) = rewards.mean(axis=0), latencies.mean(axis=0)
    return (
        f"| {'/'.join(path.parts[-3:-1])} | {case} | {len(gains)} | {one:.2f} | {two:.2f} | {first:.1f} | "
        f"{second:.1f} | {(gains > 0.5).sum()} / {(gains < -0.5).sum()} |"
    )


if __name__ == "__main__":
    main()
