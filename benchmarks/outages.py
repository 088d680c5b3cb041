"""A fork between device and cloud on recorded links with outages: each policy against the two simple choices.

    python benchmarks/outages.py --traces DIR [--links]

Trees of two leaves: stay on the device, or send a JPEG to a server and do the rest here where its answer is overdue.
Four devices and pictures (CASES), every trace of the folder at a round trip of 3 ms and at its own, 240 starts a
quarter of a second apart. Everything is emulated, with the runtime's own estimator, probes, hedging and breaker
(`nas.emulation.estimated`); nothing is timed. `--links` prints every link.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.traces import Trace, read_trace
from modeltree.reward import Reward
from modeltree.tree import BandwidthFork, Fork, Handover, Leaf, ModelTree, Node
from nas.emulation.estimated import emulate_estimated

STARTS, APART_S, REWARD = 240, 0.25, Reward()
HERE_ACCURACY, THERE_ACCURACY = 86.7, 87.2


class Case(NamedTuple):
    """What the path on the device takes, what the rest does behind a picture that was sent, its bytes, the server."""

    device_ms: float
    rest_ms: float
    bytes: int
    cloud_ms: float


CASES = (Case(12, 40, 1300, 2), Case(30, 90, 1300, 2), Case(60, 60, 6300, 4), Case(120, 120, 15_800, 4))


def main() -> None:
    """A row a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--links", action="store_true", help="a line for every link too")
    told = parser.parse_args()
    traces = [read_trace(path) for path in sorted(told.traces.glob("*.csv"))]
    print("| device ms | JPEG bytes | runs | reward over the better choice: switch | worst | measured | worst |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        gains = []
        for link in (one for trace in traces for one in (trace.with_rtt(3.0), trace)):
            gains.append(gain(case, link))
            if told.links:
                print(f"{link.name}, {link.rtt_ms:.0f} ms: {gains[-1][0]:+.2f} {gains[-1][1]:+.2f}")
        switch, measured = np.array(gains).T
        print(
            f"| {case.device_ms:g} | {case.bytes} | {len(gains)} | {switch.mean():+.2f} | {switch.min():+.2f} | "
            f"{measured.mean():+.2f}, {np.count_nonzero(measured < -0.5)} under -0.5 | {measured.min():+.2f} |"
        )


def gain(case: Case, link: Trace) -> tuple[float, float]:
    """Mean reward of the switch, and of who weighs, over the better of staying and of sending always."""
    starts_s = np.arange(STARTS) * APART_S
    tree, always = forked(case, link), sending(case, link)
    rewards = []
    for walked, policy in ((always, "switch"), (tree, "switch"), (tree, "measured")):
        seen = emulate_estimated(walked, link, starts_s=starts_s, policy=policy)
        rewards.append(float(REWARD.of(seen.accuracy, seen.latency_ms).mean()))
    simple = max(rewards[0], float(REWARD.of(HERE_ACCURACY, case.device_ms)))
    return rewards[1] - simple, rewards[2] - simple


def forked(case: Case, link: Trace) -> ModelTree:
    """Stays at the slow type, sends at the fast one."""
    return _tree(link, _stays(case, BandwidthFork(types=(0,))), _sends(case, 1, BandwidthFork(types=(1,)), 0.5))


def sending(case: Case, link: Trace) -> ModelTree:
    """Sends at every type."""
    return _tree(link, _sends(case, 0, BandwidthFork(types=(0, 1)), 1.0))


def _stays(case: Case, fork: Fork) -> Node:
    leaf = Leaf(chance=0.5, latency_ms=case.device_ms, accuracy=HERE_ACCURACY, accuracy_origin="predicted")
    return Node(
        id=0, level=0, parent=None, fork=fork, partition=0, segments=1, actions=(), device_ms=case.device_ms,
        block="a" * 20, leaf=leaf,
    )  # fmt: skip


def _sends(case: Case, number: int, fork: Fork, chance: float) -> Node:
    handover = Handover(
        place=0, shape=(3, 32, 32), bytes=case.bytes, bits=8, block="b" * 20, device_ms=case.rest_ms, encode_ms=0.1
    )  # fmt: skip
    leaf = Leaf(chance=chance, latency_ms=case.cloud_ms, accuracy=THERE_ACCURACY, accuracy_origin="predicted")
    return Node(
        id=number, level=0, parent=None, fork=fork, partition=0, segments=1, actions=(), device_ms=0.1,
        cloud_ms=case.cloud_ms, handover=handover, leaf=leaf,
    )  # fmt: skip


def _tree(link: Trace, *nodes: Node) -> ModelTree:
    return ModelTree(
        base="", input_shape=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3, classes=(), places=(0, 1),
        types=BandwidthTypes.from_trace(link, 2), rtt_ms=link.rtt_ms, device="", cloud="", trace=link.name,
        nodes=nodes, version=3,
    )  # fmt: skip


if __name__ == "__main__":
    main()
