"""What every method would have done on recorded links, beside each other and beside the hindsight oracle.

The paper's emulation [Wang 2020, sec. VII-B]: compute times as predicted, transfers as the trace carries them, exactly.
The link's round trip takes the place of the one that a tree was searched for.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from modeltree.errors import ConfigError, unknown
from modeltree.link.traces import Trace
from modeltree.reward import Reward
from modeltree.tree import ExitFork, ModelTree, Node
from modeltree.tree.emulate import Emulation, emulate, oracle, spread_starts
from nas.emulation.estimated import emulate_estimated
from nas.results.summary import MethodRow, ScenarioSummary, Summary
from nas.results.verdict import best_choice, verdict_of
from runtime.selection.branch_selection import SWITCH, on_known_links

STARTS = 200
MEASURES = ("perfect", "estimated")
"""How the bandwidth is known at a fork: as it is, as the paper has it; or as the runtime estimates it."""

ORACLE, SURGERY = "oracle", "surgery"


@dataclass(frozen=True, kw_only=True)
class EmulatedRow:
    """One method on one link, or on the mean of several; emulated.

    latency_ms : mean. p95_latency_ms : 19 of 20 are under it. accuracy : percent. reward : mean [Wang 2020, eq. 7].
    handed_over, left_early : shares of the inferences; the latter through an early exit, here or there.
    paths : share of each path by the node where it ends, the most taken first; empty in a mean, and for the oracle,
    which walks several trees.
    perfect_latency_ms : mean if the bandwidth were known.
    """

    method: str
    latency_ms: float
    p95_latency_ms: float
    accuracy: float
    reward: float
    handed_over: float
    left_early: float
    paths: Mapping[int, float]
    perfect_latency_ms: float

    def over_percent(self, other: "EmulatedRow | None") -> float | None:
        """How much its mean latency is over another's (negative: under); None without one."""
        return None if other is None else over_percent(self.latency_ms, other.latency_ms)

    @property
    def over_perfect_percent(self) -> float:
        """What imperfect measuring costs in mean latency."""
        return over_percent(self.latency_ms, self.perfect_latency_ms)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every method, the simplest first, and the bound."""

    rows: tuple[EmulatedRow, ...]
    oracle: EmulatedRow

    def row(self, method: str) -> EmulatedRow | None:
        """A method's, None if it is not there."""
        return next((row for row in self.rows if row.method == method), None)

    def surgery_of(self, method: str) -> EmulatedRow | None:
        """Surgery on the same network: the one of the same folder, where methods have one."""
        folder, slash, _ = method.rpartition("/")
        return self.row(f"{folder}{slash}{SURGERY}")


@dataclass(frozen=True, kw_only=True, eq=False)
class EmulatedLink(Comparison):
    """All of it on one link. starts_s : (starts,). latency_ms : (starts,) of each method and the oracle."""

    trace: Trace
    measure: str
    policy: str
    starts_s: np.ndarray
    latency_ms: Mapping[str, np.ndarray]


def emulate_methods(
    trees: Mapping[str, ModelTree], trace: Trace, *, starts: int = STARTS, measure: str = "perfect",
    reward: Reward | None = None, policy: str = SWITCH,
) -> EmulatedLink:  # fmt: skip
    """Run every tree from moments all along a link.

    Parameters
    ----------
    trees : by method. starts : how many inferences, spread evenly over the trace.
    measure : `perfect` or `estimated` (`nas.emulation.estimated`). The oracle needs no measuring.
    reward : what accuracy and latency are worth; the search's unless given.
    policy : what takes the forks, as for a session: `switch`, `measured` (what is met are the tree's times), `exact`.

    Raises
    ------
    ConfigError : no tree, fewer than one start, an unknown `measure` or policy.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    if not trees:
        raise ConfigError("there are 0 trees to emulate: pass at least one")
    reward, starts_s = reward or next(iter(trees.values())).reward, spread_starts(trace, starts)
    here = {name: msgspec.structs.replace(tree, rtt_ms=trace.rtt_ms) for name, tree in trees.items()}
    perfect = {
        name: emulate(tree, trace, starts_s=starts_s, choose=on_known_links(tree, policy))
        for name, tree in here.items()
    }
    seen = perfect
    if measure == "estimated":
        seen = {name: emulate_estimated(tree, trace, starts_s=starts_s, policy=policy) for name, tree in here.items()}
    bound = oracle(list(here.values()), trace, starts_s, reward)
    walked = list(here.values())
    ends = [walked[tree].nodes[leaf] for tree, leaf in zip(bound.tree, bound.leaf, strict=True)]
    return EmulatedLink(
        trace=trace, measure=measure, policy=policy, starts_s=starts_s,
        rows=tuple(_row(name, here[name], run, perfect[name], reward) for name, run in seen.items()),
        oracle=EmulatedRow(
            method=ORACLE, latency_ms=float(bound.latency_ms.mean()), accuracy=float(bound.accuracy.mean()),
            p95_latency_ms=float(np.quantile(bound.latency_ms, 0.95)), reward=float(bound.reward.mean()),
            handed_over=statistics.fmean(end.handover is not None for end in ends),
            left_early=statistics.fmean(_left_early(end) for end in ends), paths={},
            perfect_latency_ms=float(bound.latency_ms.mean()),
        ),
        latency_ms={name: run.latency_ms for name, run in seen.items()} | {ORACLE: bound.latency_ms},
    )  # fmt: skip


def mean_over(links: Sequence[EmulatedLink]) -> Comparison:
    """The mean of every number over links, each counting alike; of the 95 % limits too."""
    if not links:
        raise ConfigError("there are 0 links to take the mean of: pass at least one")
    rows = [_mean([link.rows[i] for link in links]) for i in range(len(links[0].rows))]
    return Comparison(rows=tuple(rows), oracle=_mean([link.oracle for link in links]))


def verdicts(seen: Comparison, trees: Mapping[str, ModelTree]) -> list[str]:
    """What it means, a sentence for the methods of each folder; it says so when splitting does not help."""
    folders = dict.fromkeys(row.method.rpartition("/")[0] for row in seen.rows)
    return [_verdict(seen, folder, trees) for folder in folders]


def over_percent(value: float, other: float) -> float:
    """How much over another a value is, in percent; negative if it is under."""
    return 100.0 * (value / other - 1.0) if other > 0 else 0.0


def _row(name: str, tree: ModelTree, run: Emulation, perfect: Emulation, reward: Reward) -> EmulatedRow:
    counts = Counter(run.leaf.tolist())
    paths = {leaf: count / run.leaf.size for leaf, count in counts.most_common()}
    return EmulatedRow(
        method=name, latency_ms=float(run.latency_ms.mean()), p95_latency_ms=float(np.quantile(run.latency_ms, 0.95)),
        accuracy=float(run.accuracy.mean()), reward=float(reward.of(run.accuracy, run.latency_ms).mean()),
        handed_over=sum((share for leaf, share in paths.items() if tree.nodes[leaf].handover is not None), 0.0),
        left_early=sum((share for leaf, share in paths.items() if _left_early(tree.nodes[leaf])), 0.0),
        paths=paths,
        perfect_latency_ms=float(perfect.latency_ms.mean()),
    )  # fmt: skip


def _left_early(end: Node) -> bool:
    return isinstance(end.fork, ExitFork) or (end.handover is not None and end.handover.exit > 0)


def _mean(rows: Sequence[EmulatedRow]) -> EmulatedRow:
    fields = ("latency_ms", "p95_latency_ms", "accuracy", "reward", "handed_over", "left_early", "perfect_latency_ms")
    means = {field: statistics.fmean(getattr(row, field) for row in rows) for field in fields}
    return EmulatedRow(method=rows[0].method, paths={}, **means)


def _verdict(seen: Comparison, folder: str, trees: Mapping[str, ModelTree]) -> str:
    prefix = f"{folder}/" if folder else ""
    rows = {row.method[len(prefix) :]: row for row in seen.rows if row.method.rpartition("/")[0] == folder}
    summary = _as_summary(rows, seen)
    best = best_choice(summary)
    if best is None:
        return f"{prefix}{', '.join(rows)}: none is a method that we know, so there is no verdict."
    headline = verdict_of(summary, trees.get(f"{prefix}tree"))[0].removesuffix(".")
    surgery = None if best.method == SURGERY else rows.get(SURGERY)
    parts = _against(rows[best.method], [("surgery", surgery), ("the oracle", seen.oracle)])
    more = ""
    if best.method != "tree" and "tree" in rows:
        more = f"; the tree is {_against(rows['tree'], [('it', rows[best.method]), ('surgery', rows.get(SURGERY))])}"
    return f"{prefix and f'{folder}: '}{headline}; in mean latency that is {parts}{more}."


def _against(row: EmulatedRow, others: Iterable[tuple[str, EmulatedRow | None]]) -> str:
    said = []
    for name, other in others:
        if (over := row.over_percent(other)) is not None:
            level = "level with" if abs(over) < 0.5 else f"{abs(over):.0f} % {'under' if over < 0 else 'over'}"
            said.append(f"{level} {name}")
    return " and ".join(said)


def _as_summary(rows: Mapping[str, EmulatedRow], seen: Comparison) -> Summary:
    """As much of a search's summary as its verdict looks at."""
    levels = []
    if isinstance(seen, EmulatedLink):
        levels = [seen.trace.quantile(0.25), seen.trace.quantile(0.75)]
    methods = [
        MethodRow(method=name, reward=row.reward, latency_ms=row.latency_ms, accuracy=row.accuracy)
        for name, row in rows.items()
    ]
    return Summary(methods=methods, scenario=ScenarioSummary(bandwidth_mbps=levels))
