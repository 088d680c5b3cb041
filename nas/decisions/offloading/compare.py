"""Several policies on the same bandwidths or the same link: who, what came out, and a row for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError
from modeltree.files import write_text
from modeltree.link.traces import Trace
from modeltree.offloading.decisions import Decisions, DecisionTable
from modeltree.tree import ModelTree
from modeltree.tree.emulate import spread_starts
from modeltree.units import ms_from_us
from nas.decisions.offloading.evaluate import Sweep, decision_ms, sweep
from nas.decisions.offloading.replay import Played, play
from runtime.selection.battery import Battery, stay_ms, worst_mj
from runtime.selection.policies import Exact, Greedy, Policy, Trained, cloud_only, on_device

RULES = ("exact", "greedy", "on_device", "cloud_only")
_TIMED = 20


PolicyOutcome = Sweep | Played
"""What came out, one entry for every bandwidth of a sweep or every inference on a link."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """One policy; means over all inferences, latency and energy over those that end (`answered`, a share).

    share : of the exact rule's rewards. energy_mj : of an inference; spent_mj : of all. gave_up : share of transfers
    given up among all inferences. decision_us : median time of a choice, measured.
    """

    name: str
    reward: float
    share: float
    latency_ms: float
    p95_latency_ms: float
    accuracy: float
    energy_mj: float
    spent_mj: float
    answered: float
    gave_up: float
    decision_us: float


def contenders(decisions: Decisions, files: Mapping[str, Trained]) -> dict[str, Policy]:
    """The rules, as far as the table has actions for them, and what was read from files.

    Raises
    ------
    ConfigError : a file is called like a rule.
    """
    taken = files.keys() & set(RULES)
    if taken:
        raise ConfigError(f"a policy's file is called {min(taken)}, like a rule: rename it")
    rules: dict[str, Policy] = {"exact": Exact(decisions=decisions), "greedy": Greedy(decisions=decisions)}
    if not decisions.table.sends.all():
        rules["on_device"] = on_device(decisions)
    if decisions.table.sends.any():
        rules["cloud_only"] = cloud_only(decisions)
    return rules | dict(files)


def over_bandwidths(decisions: Decisions, policies: Mapping[str, Policy], mbps: np.ndarray) -> dict[str, PolicyOutcome]:
    """What every policy chooses at one bandwidth, in Mbit/s, after the other; mbps : (steps,)."""
    return {name: sweep(decisions, one, mbps) for name, one in policies.items()}


def over_link(
    decisions: Decisions, policies: Mapping[str, Policy], tree: ModelTree, trace: Trace, *, inferences: int,
    timeout_ms: float, battery_mj: float | None = None,
) -> dict[str, Played]:  # fmt: skip
    """What every policy makes of a link, inferences spread evenly over it, each policy on a battery of its own.

    A tree that does not say how long rests take on the device gives up no transfer, and takes no battery.

    Raises
    ------
    ConfigError : no inference, or a battery that cannot be. DataError : a battery, and the tree does not know enough.
    """
    starts_s = spread_starts(trace, inferences)
    handed = [node.handover.device_ms for node in tree.nodes if node.handover is not None]
    rest_ms = None if battery_mj is None and 0.0 in handed else stay_ms(tree, decisions.table)
    played = {}
    for name, policy in policies.items():
        battery = None
        if battery_mj is not None and rest_ms is not None:
            worst = worst_mj(decisions, rest_ms, timeout_ms=timeout_ms)
            battery = Battery(budget_mj=battery_mj, inferences=inferences, worst_mj=worst)
        played[name] = play(decisions, policy, trace, starts_s, stay_ms=rest_ms, timeout_ms=timeout_ms, battery=battery)
    return played


def rows(
    decisions: Decisions, policies: Mapping[str, Policy], outcomes: Mapping[str, PolicyOutcome]
) -> list[PolicyRow]:
    """One row a policy, in their order."""
    exact = float(outcomes["exact"].reward.sum())
    rows = []
    for name, outcome in outcomes.items():
        ended = np.isfinite(outcome.latency_ms)
        times = outcome.latency_ms[ended] if ended.any() else np.array([np.inf])
        some = outcome.mbps[np.linspace(0, len(outcome.mbps) - 1, min(_TIMED, len(outcome.mbps))).astype(int)]
        rows.append(
            PolicyRow(
                name=name, reward=float(outcome.reward.mean()),
                share=float(outcome.reward.sum()) / exact if exact else 1.0,
                latency_ms=float(times.mean()), p95_latency_ms=float(np.quantile(times, 0.95)),
                accuracy=float(outcome.accuracy.mean()),
                energy_mj=float(outcome.energy_mj[ended].mean()) if ended.any() else np.inf,
                spent_mj=float(outcome.energy_mj[ended].sum()), answered=float(ended.mean()),
                gave_up=float(outcome.gave_up.mean()) if isinstance(outcome, Played) else 0.0,
                decision_us=decision_ms(decisions, policies[name], some, repeats=_TIMED) / ms_from_us(1.0),
            )
        )  # fmt: skip
    return rows


def ranges(table: DecisionTable, outcome: PolicyOutcome) -> list[tuple[float, float, str]]:
    """(from, to, action in words) of every stretch of a sweep with one choice."""
    stretches: list[tuple[float, float, str]] = []
    for mbps, action in zip(outcome.mbps.tolist(), outcome.action.tolist()):
        name = table.name(action)
        if stretches and stretches[-1][2] == name:
            stretches[-1] = (stretches[-1][0], mbps, name)
        else:
            stretches.append((mbps, mbps, name))
    return stretches


def write_csv(path: Path, table: DecisionTable, outcomes: Mapping[str, PolicyOutcome]) -> None:
    """Every choice of every policy, a line each; whole or not at all."""
    lines = ["policy,mbps,exit,cut,bits,leaf,latency_ms,energy_mj,accuracy,reward"]
    for name, outcome in outcomes.items():
        columns = (
            outcome.mbps,
            outcome.action,
            outcome.latency_ms,
            outcome.energy_mj,
            outcome.accuracy,
            outcome.reward,
        )
        for mbps, action, *numbers in zip(*(column.tolist() for column in columns)):
            keys = ",".join(map(str, table.keys[action].tolist()))
            lines.append(f"{name},{mbps:.6g},{keys},{','.join(f'{number:.6g}' for number in numbers)}")
    write_text(path, "\n".join(lines) + "\n")
