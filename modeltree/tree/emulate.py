"""Emulation: what a tree would have done on a recorded link, with estimated latencies [Wang 2020, sec. VII-B].

Computing takes the time that the tree predicts; a transfer takes what the trace's changing rate says, integrated
exactly. The bandwidth is measured perfectly and at no cost at every fork: a real device does worse. A fixed strategy is
a tree with one fork per level for all types, so one function serves all.

Who leaves by confidence is no matter of the link. Start i is given the place u_i = frac((i + 1) / phi) among all
samples, the surest first (phi is the golden ratio: the places are spread evenly, and in no order). Where shares p_1,
p_2, ... of those who reach it leave at the exits on the way, it leaves at the first exit n with
u_i < 1 - (1 - p_1) ... (1 - p_n). So every share is met, and whoever leaves early in one tree does in another.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.reward import Reward
from modeltree.tree import ModelTree, Node, by_confidence
from modeltree.units import s_from_ms

_PER_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Emulation:
    """One inference per start; all are (starts,).

    starts_s : when each began. latency_ms : how long it took.
    accuracy : percent, of the path taken. leaf : id of the node where it ended.
    """

    starts_s: np.ndarray
    latency_ms: np.ndarray
    accuracy: np.ndarray
    leaf: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Hindsight:
    """The best path per start, chosen by one who knows the link's future; all are (starts,).

    tree, leaf : which of the trees, and the node where its best path ends.
    """

    starts_s: np.ndarray
    latency_ms: np.ndarray
    accuracy: np.ndarray
    reward: np.ndarray
    tree: np.ndarray
    leaf: np.ndarray


Choose = Callable[[int | None, float], Node]
"""The node that follows another (None: at the start) at a bandwidth in Mbit/s."""


def emulate(tree: ModelTree, trace: Trace, *, starts_s: np.ndarray, choose: Choose | None = None) -> Emulation:
    """Walk the tree from every start [Wang 2020, alg. 2]: measure the trace, match, run the block, go on.

    A hand-over costs the tree's round trip (and by how much the trace's is off its usual one then), the transfer as the
    trace carries it, and the cloud's time. Costs that grow with the bytes but not with the bandwidth
    (`TransferModel.per_byte_ns`) are not in a tree, hence not in here. The
    head of an exit by confidence costs its time for every sample that reaches it.

    Parameters
    ----------
    starts_s : (starts,), finite; may lie beyond the trace's end, it plays in a loop.
    choose : the way at every fork; by the bandwidth's type unless given.

    Raises
    ------
    ConfigError : `starts_s` is not a row of finite numbers.
    """
    starts_s = checked_starts(starts_s)
    latency_ms, leaf = np.empty(starts_s.size), np.empty(starts_s.size, dtype=int)
    sure, rank, choose = sure_exits(tree), ranks(starts_s.size), choose or _by_type(tree)
    for i, start_s in enumerate(starts_s.tolist()):
        latency_ms[i], leaf[i] = _once(tree, trace, start_s, choose, sure, rank[i])
    return Emulation(starts_s=starts_s, latency_ms=latency_ms, accuracy=accuracies(tree)[leaf], leaf=leaf)


def oracle(trees: Sequence[ModelTree], trace: Trace, starts_s: np.ndarray, reward: Reward) -> Hindsight:
    """Hindsight bound: per start the path with the best reward among all paths of all trees, on the true trace.

    starts_s : (starts,), in s.

    No strategy that walks one of these trees can do better, by the switch or by a policy, whatever it measures or
    foresees. An exit by confidence is open to the samples that are sure enough there, and to no others; since they may
    also go on, and no path pays for heads that it does not leave through, the bound holds with such exits too.

    Raises
    ------
    ConfigError : there is no tree, or `starts_s` is not a row of finite numbers.
    """
    starts_s = checked_starts(starts_s)
    options = [(t, leaf) for t, tree in enumerate(trees) for leaf in tree.leaves()]
    if not options:
        raise ConfigError("the oracle has 0 trees to choose from: pass at least one")
    latency_ms = np.array([_along_path(trees[t], leaf, trace, starts_s) for t, leaf in options])
    accuracy = np.array([leaf.leaf.accuracy for _, leaf in options if leaf.leaf is not None])
    rewards = reward.of(accuracy[:, None], latency_ms)
    sure, rank = [sure_exits(tree) for tree in trees], ranks(starts_s.size)
    for row, (t, leaf) in enumerate(options):
        if by_confidence(leaf):
            assert leaf.parent is not None
            rewards[row, rank >= sure[t][leaf.parent][1]] = -math.inf
    best, column = rewards.argmax(axis=0), np.arange(starts_s.size)
    return Hindsight(
        starts_s=starts_s,
        latency_ms=latency_ms[best, column],
        accuracy=accuracy[best],
        reward=rewards[best, column],
        tree=np.array([t for t, _ in options])[best],
        leaf=np.array([leaf.id for _, leaf in options])[best],
    )


def spread_starts(trace: Trace, count: int) -> np.ndarray:
    """(count,) starts in s: the middles of `count` equal parts of the trace.

    Raises
    ------
    ConfigError : `count` is under 1.
    """
    if count < 1:
        raise ConfigError(f"the number of starts is {count}: it must be at least 1")
    return (np.arange(count) + 0.5) * (trace.end_s / count)


def ranks(count: int) -> np.ndarray:
    """(count,): how unsure each start's sample is, as its place 0..1 among all; see the module."""
    return np.asarray(np.arange(1, count + 1) * _PER_GOLDEN_RATIO % 1.0)


def sure_exits(tree: ModelTree) -> dict[int, tuple[Node, float]]:
    """Of every node with an exit by confidence below it: the exit, and the rank under which samples have left by it."""
    stay, found = [1.0] * len(tree.nodes), {}
    for node in tree.nodes:
        stay[node.id] = 1.0 if node.parent is None else stay[node.parent]
        if (exit := tree.confident(node.id)) is not None:
            stay[node.id] *= 1.0 - leaving_share(tree, exit)
            found[node.id] = (exit, 1.0 - stay[node.id])
    return found


def leaving_share(tree: ModelTree, exit: Node) -> float:
    """Share of the samples reaching an exit by confidence that leave through it; 0 where the switch never comes by."""
    assert exit.parent is not None
    chances = tree.chances()
    return chances[exit.id] / chances[exit.parent] if chances[exit.parent] else 0.0


def _by_type(tree: ModelTree) -> Choose:
    return lambda here, mbps: tree.child(here, tree.types.match(mbps))


def _once(
    tree: ModelTree, trace: Trace, start_s: float, choose: Choose, sure: Mapping[int, tuple[Node, float]], rank: float
) -> tuple[float, int]:
    """(latency in ms, leaf) of one inference."""
    elapsed_ms, here = 0.0, None
    while True:
        node = choose(here, trace.at(start_s + s_from_ms(elapsed_ms)))
        elapsed_ms = after_ms(tree, node, trace, start_s, elapsed_ms)
        if node.id in sure:
            exit, below = sure[node.id]
            elapsed_ms += exit.device_ms
            if rank < below:
                return elapsed_ms, exit.id
        if node.leaf is not None:
            return elapsed_ms, node.id
        here = node.id


def _along_path(tree: ModelTree, leaf: Node, trace: Trace, starts_s: np.ndarray) -> list[float]:
    """Latency in ms from every start along one path, whatever the bandwidth."""
    path, found = tree.path(leaf.id), []
    for start_s in starts_s.tolist():
        elapsed_ms = 0.0
        for node in path:
            elapsed_ms = after_ms(tree, node, trace, start_s, elapsed_ms)
        found.append(elapsed_ms)
    return found


def after_ms(tree: ModelTree, node: Node, trace: Trace, start_s: float, elapsed_ms: float) -> float:
    """Milliseconds since the start when a node, begun `elapsed_ms` after it, and its hand-over, if any, are done."""
    elapsed_ms += node.device_ms
    if node.handover is None:
        return elapsed_ms
    begins_s = start_s + s_from_ms(elapsed_ms)
    return elapsed_ms + link_ms(tree, trace, node.handover.bytes, begins_s) + node.cloud_ms


def link_ms(tree: ModelTree, trace: Trace, size_bytes: int, begins_s: float) -> float:
    """What so many bytes take, the round trip included: the tree's, by how much the trace's is off its usual one
    just then, and what the tree knows that hand-overs take beside."""
    rtt_ms = max(0.0, tree.rtt_ms + trace.rtt_at(begins_s) - trace.rtt_ms)
    return tree.extra_ms + rtt_ms + trace.transfer_ms(size_bytes, begins_s)


def accuracies(tree: ModelTree) -> np.ndarray:
    """(nodes,): accuracy in percent where a path ends, NaN elsewhere."""
    return np.array([math.nan if node.leaf is None else node.leaf.accuracy for node in tree.nodes])


def checked_starts(starts_s: np.ndarray) -> np.ndarray:
    """A copy as float64, (starts,).

    Raises
    ------
    ConfigError : they are not a row of finite numbers.
    """
    starts_s = np.array(starts_s, dtype=np.float64)
    if starts_s.ndim != 1 or not np.isfinite(starts_s).all():
        raise ConfigError(f"starts_s has shape {starts_s.shape}: it must be a row of finite times in s")
    return starts_s
